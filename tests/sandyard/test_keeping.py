import stat
from pathlib import Path

import pytest

from sandyard.keeping import DataDirectoryInUse, Running, announce, hold, is_held, keep_secret, read_running


def test_a_secret_is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    made = iter(["first", "second"])
    assert keep_secret(tmp_path, "key", lambda: next(made)) == "first"
    assert keep_secret(tmp_path, "key", lambda: next(made)) == "first"
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


def test_a_data_directory_has_one_holder(tmp_path: Path) -> None:
    running = Running(pid=1, url="http://127.0.0.1:1", runtime="memory")
    with hold(tmp_path), announce(tmp_path, running):
        assert is_held(tmp_path)
        with pytest.raises(DataDirectoryInUse, match=r"http://127\.0\.0\.1:1"), hold(tmp_path):
            pass
    assert not is_held(tmp_path)


def test_what_was_announced_is_found_and_taken_back(tmp_path: Path) -> None:
    running = Running(pid=7, url="http://127.0.0.1:7", runtime="memory")
    with announce(tmp_path, running):
        assert read_running(tmp_path) == running
    assert read_running(tmp_path) is None


def test_a_damaged_announcement_counts_as_none(tmp_path: Path) -> None:
    (tmp_path / "running.json").write_text("{")
    assert read_running(tmp_path) is None
