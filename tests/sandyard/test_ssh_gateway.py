"""The SSH gateway of a whole Sandyard: its key, its port, and going on without."""

import socket
from pathlib import Path

import pytest
from msgspec.structs import replace

from sandyard.host_keys import new_host_key
from sandyard.settings import InvalidSetting, Settings, read_settings
from sandyard.wiring import listen_ssh
from tests.contract.running import COMBINATIONS, start


def test_the_host_key_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    settings = replace(Settings(), data_dir=tmp_path)
    first, second = listen_ssh(settings, 0), listen_ssh(settings, 0)
    with first.socket, second.socket:
        assert first.host_key == second.host_key
    assert first.host_key.startswith("-----BEGIN OPENSSH PRIVATE KEY-----")
    assert (tmp_path / "ssh-host-key").stat().st_mode & 0o777 == 0o600


def test_a_given_key_is_used_and_one_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(new_host_key() + "\n")
    given = read_settings({"SANDYARD_SSH_HOST_KEY_FILE": str(tmp_path / "key"), "SANDYARD_DATA_DIR": str(tmp_path)})
    listener = listen_ssh(given, 0)
    with listener.socket:
        assert listener.host_key == (tmp_path / "key").read_text().strip()
    assert not (tmp_path / "ssh-host-key").exists()
    with pytest.raises(InvalidSetting, match="ssh-keygen"):
        listen_ssh(replace(given, ssh_host_key="nonsense"), 0)


@pytest.mark.parametrize(
    ("told", "port"),
    [
        ({}, 2222),
        ({"SANDYARD_PORT": "0"}, 0),
        ({"SANDYARD_SSH_PORT": "0"}, None),
        ({"SANDYARD_SSH_PORT": "2022"}, 2022),
    ],
)
def test_the_port_is_the_one_that_people_expect(told: dict[str, str], port: int | None) -> None:
    assert read_settings(told).resolved_ssh_port() == port


def test_up_goes_on_without_a_gateway_where_its_port_is_taken_and_says_so(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        environment = {"SANDYARD_SSH_PORT": str(number)}
        running = start(COMBINATIONS["sqlite-memory-processes"], tmp_path, environment=environment)
        running.stop()
    assert f"no SSH gateway: cannot listen on 127.0.0.1:{number}" in running.log
