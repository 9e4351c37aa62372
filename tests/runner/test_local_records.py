"""What the local runtime writes down is read again by the next process, and refused where it is damaged."""

import json
from pathlib import Path

import pytest

from sandyard_runner.errors import RuntimeFailure
from sandyard_runner.runtime.local.builds.dockerfile import parse
from sandyard_runner.runtime.local.layers import FOOTING_FILE, Footing, ImageConfig
from sandyard_runner.runtime.local.process import ProcessId, Run

CONFIG = ImageConfig({"PATH": "/bin", "NAME": "grün"}, "/work", "me", ["/entry"], None)


def test_a_footing_is_read_as_it_was_written(tmp_path: Path) -> None:
    Footing(("one", "two"), CONFIG).save(tmp_path)
    assert Footing.load(tmp_path) == Footing(("one", "two"), CONFIG)


def test_without_a_footing_a_sandbox_stands_on_the_host(tmp_path: Path) -> None:
    assert Footing.load(tmp_path) is None


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "null", '{"layers": [1], "config": {}}', '{"layers": ["a"]', "\udc80"]
)
def test_a_damaged_footing_is_not_taken_for_that_of_the_host(tmp_path: Path, text: str) -> None:
    (tmp_path / FOOTING_FILE).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(RuntimeFailure, match=r"what .* was built on cannot be read"):
        Footing.load(tmp_path)


def test_a_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    run = Run("id", ProcessId(1, "2"), ProcessId(3, "4"), (ProcessId(5, "6"),), ("/sys/fs/cgroup/a",))
    run.save(tmp_path / "run.json")
    assert Run.load(tmp_path / "run.json") == run


def test_a_run_that_an_earlier_version_wrote_is_read(tmp_path: Path) -> None:
    process = {"pid": 1, "started": "2"}
    written = {"run_id": "id", "monitor": process, "first": process, "helpers": [process], "cgroup": []}
    (tmp_path / "run.json").write_text(json.dumps(written))
    assert Run.load(tmp_path / "run.json") == Run("id", ProcessId(1, "2"), ProcessId(1, "2"), (ProcessId(1, "2"),))


@pytest.mark.parametrize("text", ["", "{}", '{"run_id": "id", "monitor": 1, "first": 1}', "\udc80"])
def test_a_damaged_run_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_bytes(text.encode(errors="surrogateescape"))
    assert Run.load(tmp_path / "run.json") is None


def test_what_is_no_text_in_a_list_of_words_makes_it_a_line_for_the_shell() -> None:
    instructions = parse('FROM debian\nCMD ["\\ud83d\\ude00"]\nCMD ["\\udc80"]\nCMD [1]\n')
    assert [each.json_form() for each in instructions[1:]] == [["\U0001f600"], None, None]
