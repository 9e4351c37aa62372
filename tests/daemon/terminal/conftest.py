"""A terminal for tests that need just one."""

from collections.abc import Iterator

import pytest

from tests.daemon.conftest import Daemon
from tests.daemon.terminal.screens import Screen, open_screen


@pytest.fixture
def screen(daemon: Daemon) -> Iterator[Screen]:
    """A terminal called `t`."""
    screen = open_screen(daemon)
    yield screen
    daemon.ask("DELETE", "/process/pty/t")
