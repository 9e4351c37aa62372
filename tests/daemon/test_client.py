"""Connecting to a door that user code can reach."""

import socket
from pathlib import Path

import pytest

from sandyard_daemon.client import DoorMissing, DoorRefused, connect_door


def listening(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    return listener


def test_a_door_is_connected(tmp_path: Path) -> None:
    with listening(tmp_path / "door.sock") as listener, connect_door(tmp_path / "door.sock") as door:
        assert not door.getblocking()
        accepted, _ = listener.accept()
        with accepted:
            accepted.sendall(b"hello")
            door.setblocking(True)
            assert door.recv(10) == b"hello"


def test_a_link_to_a_socket_is_refused(tmp_path: Path) -> None:
    with listening(tmp_path / "other.sock"):
        (tmp_path / "door.sock").symlink_to(tmp_path / "other.sock")
        with pytest.raises(DoorRefused):
            connect_door(tmp_path / "door.sock")


def test_a_file_is_refused_and_nothing_is_missing(tmp_path: Path) -> None:
    (tmp_path / "door.sock").write_text("")
    with pytest.raises(DoorRefused):
        connect_door(tmp_path / "door.sock")
    with pytest.raises(DoorMissing):
        connect_door(tmp_path / "none.sock")
    with pytest.raises(DoorMissing):
        connect_door(tmp_path / "door.sock" / "x")


def test_a_door_nobody_listens_at_any_more_is_missing(tmp_path: Path) -> None:
    listening(tmp_path / "door.sock").close()
    with pytest.raises(DoorMissing):
        connect_door(tmp_path / "door.sock")


def test_a_path_longer_than_a_socket_address_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / ("d" * 120)
    directory.mkdir()
    monkeypatch.chdir(directory)
    with listening(Path("door.sock")), connect_door(directory / "door.sock") as door:
        assert door.fileno() >= 0
