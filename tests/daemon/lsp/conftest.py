"""A sandbox whose language server is the scripted one, and a project in it."""

from pathlib import Path

import pytest

from tests.daemon.conftest import Daemon, Starter
from tests.daemon.lsp_places import Project, install_scripted


@pytest.fixture
def sandbox(start_daemon: Starter, tmp_path: Path) -> Daemon:
    """A daemon whose only Python server is the scripted one."""
    places = install_scripted(tmp_path / "bin", "basedpyright-langserver")
    return start_daemon(PATH=f"{places}:/usr/bin:/bin")


@pytest.fixture
def project(sandbox: Daemon) -> Project:
    """An empty Python project in the home."""
    return Project(sandbox)
