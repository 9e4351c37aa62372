from pathlib import Path

import pytest

from sandyard.folders import HostFolder
from sandyard.settings import PREFIX, InvalidSetting, read_settings


def test_nothing_set_is_the_embedded_form(tmp_path: Path) -> None:
    settings = read_settings({}, data_dir=tmp_path)
    assert settings.port == 3986
    assert settings.bus_url == "memory://"
    assert settings.resolved_database_url() == f"sqlite+aiosqlite:///{tmp_path}/sandyard.db"
    assert settings.resolved_doors_dir() == tmp_path / "doors"


def test_the_command_line_wins_over_the_environment() -> None:
    assert read_settings({"SANDYARD_PORT": "4000"}, port=5000).port == 5000
    assert read_settings({"SANDYARD_PORT": "4000"}, port=None).port == 4000


def test_a_file_variable_names_the_value(tmp_path: Path) -> None:
    secret = tmp_path / "key"
    secret.write_text("from-a-file\n")
    assert read_settings({"SANDYARD_API_KEY_FILE": str(secret)}).api_key == "from-a-file"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="SANDYARD_API_KEY_FILE"):
        read_settings({"SANDYARD_API_KEY_FILE": str(tmp_path / "nothing")})


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PORT", "many"),
        ("RUNTIME", "vm"),
        ("ISOLATION", "some"),
        ("HOST_FOLDERS", "relative"),
        ("TRUST_FORWARDED", "perhaps"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_by_name(variable: str, value: str) -> None:
    with pytest.raises(InvalidSetting, match=PREFIX + variable):
        read_settings({PREFIX + variable: value})


def test_lists_and_switches_are_read() -> None:
    settings = read_settings({"SANDYARD_ALLOWED_HOSTS": "a.example, b.example", "SANDYARD_TRUST_FORWARDED": "true"})
    assert settings.allowed_hosts == ("a.example", "b.example")
    assert settings.trust_forwarded is True
    folders = read_settings({"SANDYARD_HOST_FOLDERS": "/home/me, /srv:ro"}).host_folders
    assert folders == (HostFolder("/home/me"), HostFolder("/srv", read_only=True))


def test_paths_may_begin_with_a_tilde() -> None:
    assert read_settings({"SANDYARD_DATA_DIR": "~/somewhere"}).data_dir == Path.home() / "somewhere"


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"S3_ENDPOINT": "https://s3.example.com"}, "SANDYARD_S3_ENDPOINT needs S3_BUCKET"),
        ({"S3_ENDPOINT": "s3.example.com"}, "takes https://host"),
        ({"S3_ENDPOINT": "https://s3.example.com/bucket"}, "takes https://host"),
        ({"S3_STS_ENDPOINT": "sts"}, "SANDYARD_S3_STS_ENDPOINT"),
        ({"STORAGE_GIB": "0"}, "SANDYARD_STORAGE_GIB is 0; it takes a number from 1"),
    ],
)
def test_an_object_storage_that_lacks_something_is_refused(environment: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidSetting, match=words):
        read_settings({f"{PREFIX}{name}": value for name, value in environment.items()})
