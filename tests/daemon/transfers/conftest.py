"""A daemon at work in an empty directory."""

from pathlib import Path

import pytest

from tests.daemon.conftest import Daemon, Starter


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An empty work directory."""
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


@pytest.fixture
def daemon(start_daemon: Starter, home: Path) -> Daemon:
    """A daemon at work there."""
    return start_daemon("--work-dir", str(home))
