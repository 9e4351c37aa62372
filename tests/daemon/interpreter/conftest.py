"""A daemon for the code interpreter."""

import os
import sys

import pytest

from tests.daemon.conftest import Daemon, Starter


@pytest.fixture
def daemon(start_daemon: Starter) -> Daemon:
    """A daemon that finds the interpreter itself before any script that looks for one."""
    return start_daemon(PATH=f"{sys.base_prefix}/bin:{os.environ['PATH']}")
