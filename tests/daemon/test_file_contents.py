"""Finding names and text, and replacing text, through the door."""

import os
from pathlib import Path

import pytest

from sandyard_daemon.wire import DOOR_HEADER
from tests.daemon.conftest import SECRET, Daemon, Starter, eventually
from tests.daemon.files import conforms, error_of
from tests.daemon.processes import descriptors
from tests.daemon.test_files import path
from tests.daemon.transfers.uploading import left_behind


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An empty work directory."""
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


@pytest.fixture
def daemon(start_daemon: Starter, home: Path) -> Daemon:
    """A daemon at work there."""
    return start_daemon("--work-dir", str(home))


def found(daemon: Daemon, pattern: str, root: str = ".") -> list[tuple[str, int, str]]:
    answer = daemon.get(path("/find", path=root, pattern=pattern))
    assert answer.status == 200, answer.body
    conforms("FindInFiles", answer)
    return [(match["file"], match["line"], match["content"]) for match in answer.json]


def searched(daemon: Daemon, pattern: str, root: str = ".") -> list[str]:
    answer = daemon.get(path("/search", path=root, pattern=pattern))
    assert answer.status == 200, answer.body
    conforms("SearchFiles", answer)
    files: list[str] = answer.json["files"]
    return files


def test_find_tells_each_line_that_holds_the_literal_text(daemon: Daemon, home: Path) -> None:
    (home / "b").mkdir()
    (home / "b" / "two.txt").write_bytes(b"a.c here\nabc\r\nA.C\n\nlast a.c a.c")
    (home / "a.txt").write_text("x a.c\r\n")
    (home / "binary").write_bytes(b"a.c\0")
    assert found(daemon, "a.c") == [
        ("./a.txt", 1, "x a.c"),
        ("./b/two.txt", 1, "a.c here"),
        ("./b/two.txt", 5, "last a.c a.c"),
    ]
    assert found(daemon, "a.c", str(home / "a.txt")) == [(str(home / "a.txt"), 1, "x a.c")]
    assert found(daemon, "here\nabc") == []


def test_d32_long_lines_and_what_comes_behind_them_are_found(daemon: Daemon, home: Path) -> None:
    long, endless = b"x" * 200_000, b"y" * 9_000_000
    (home / "f").write_bytes(
        long + b"needle" + long + b"\nplain\nneedle 3\n" + endless + b"needle" + endless + b"\nneedle 5"
    )
    matches = found(daemon, "needle")
    assert [line for _, line, _ in matches] == [1, 3, 4, 5]
    assert matches[1][2] == "needle 3"
    for _, _, content in matches:
        assert "needle" in content
        assert len(content) <= 65536


@pytest.mark.root
def test_d32_an_unreadable_entry_hides_nothing_else(start_daemon: Starter) -> None:
    daemon = start_daemon(user="nobody")
    for name in ("a", "b", "c"):
        (daemon.home / name).write_text("needle")
    (daemon.home / "b").chmod(0)
    (daemon.home / "aa").mkdir(0)
    (daemon.home / "dangling").symlink_to("nowhere")
    assert [name for name, _, _ in found(daemon, "needle")] == ["./a", "./c"]


def test_d32_results_have_a_limit_and_say_so(daemon: Daemon, home: Path) -> None:
    (home / "f").write_bytes(b"x\n" * 60_000)
    answer = daemon.get(path("/find", path=".", pattern="x"))
    assert len(answer.json) == 50_000
    assert answer.headers["x-sandyard-truncated"] == "true"
    assert daemon.get(path("/find", path=".", pattern="y")).headers["x-sandyard-truncated"] is None


def test_links_are_named_and_never_followed(daemon: Daemon, home: Path) -> None:
    (home / "d").mkdir()
    (home / "d" / "up").symlink_to(home)
    (home / "d" / "file").write_text("needle")
    (home / "to-file").symlink_to("d/file")
    (home / "to-d").symlink_to("d")
    assert [name for name, _, _ in found(daemon, "needle")] == ["./d/file"]
    assert searched(daemon, "*") == [".", "./d", "./d/file", "./d/up", "./to-d", "./to-file"]
    assert searched(daemon, "file", "to-d") == ["to-d/file"], "the root itself may be a link"
    assert found(daemon, "needle", "to-file") == [("to-file", 1, "needle")]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.txt", ["a.txt", "b.txt", ".hidden.txt"]),
        ("?.txt", ["a.txt", "b.txt"]),
        ("[a-a].*", ["a.txt"]),
        ("[^a].txt", ["b.txt"]),
        ("[!a].txt", ["b.txt"]),
        (r"a\.txt", ["a.txt"]),
        (r"[\]x]", ["]"]),
        ("**", ["]", "a.txt", "b.txt", ".hidden.txt", "c(1)"]),
        ("c(1)", ["c(1)"]),
        ("A.TXT", []),
        ("*t*x*t*", ["a.txt", "b.txt", ".hidden.txt"]),
    ],
)
def test_search_takes_shell_patterns_of_names(daemon: Daemon, home: Path, pattern: str, expected: list[str]) -> None:
    for name in ("a.txt", "b.txt", ".hidden.txt", "c(1)", "]"):
        (home / name).touch()
    assert sorted(searched(daemon, pattern, str(home))) == sorted(
        f"{home}/{name}" if name else str(home) for name in [*expected, *([""] if pattern == "**" else [])]
    )


@pytest.mark.parametrize("pattern", ["[", "[a", "[]", "a\\", "[z-a]", "[a-", "[\\"])
def test_a_pattern_that_is_not_finished_is_a_400(daemon: Daemon, pattern: str) -> None:
    assert error_of(daemon.get(path("/search", path=".", pattern=pattern))) == (400, "BAD_REQUEST")


def test_a_pattern_of_many_stars_is_answered_at_once(daemon: Daemon, home: Path) -> None:
    (home / ("a" * 250)).touch()
    assert searched(daemon, "*a" * 120 + "b") == []
    assert searched(daemon, "a*" * 100 + "[ab]") != []


@pytest.mark.parametrize("operation", ["/find", "/search"])
def test_a_missing_root_or_pattern_is_a_400(daemon: Daemon, operation: str) -> None:
    assert error_of(daemon.get(path(operation, path="nowhere", pattern="x"))) == (400, "FILE_NOT_FOUND")
    assert error_of(daemon.get(path(operation, path="."))) == (400, "BAD_REQUEST")
    assert error_of(daemon.get(path(operation, path=".", pattern=""))) == (400, "BAD_REQUEST")


def test_replace_changes_every_occurrence_and_keeps_mode_and_links(daemon: Daemon, home: Path) -> None:
    (home / "f").write_bytes(b"aaa a.c b\xff\r\n")
    (home / "f").chmod(0o750)
    (home / "link").symlink_to("f")
    (home / "none").write_text("nothing here")
    before = (home / "none").stat()
    body = {"files": ["link", "none", "nowhere", ".", "/dev/null", "a\0"], "pattern": "aa", "newValue": "é"}
    answer = daemon.post("/files/replace", body)
    conforms("ReplaceInFiles", answer)
    assert [result["success"] for result in answer.json] == [True, True, False, False, False, False]
    assert [result["file"] for result in answer.json] == body["files"]
    assert "nowhere" in answer.json[2]["error"]
    assert (home / "f").read_bytes() == "éa a.c b".encode() + b"\xff\r\n"
    assert ((home / "f").stat().st_mode & 0o777, (home / "link").is_symlink()) == (0o750, True)
    assert (home / "none").stat().st_mtime_ns == before.st_mtime_ns
    assert (home / "none").stat().st_ino == before.st_ino
    assert daemon.post("/files/replace", {"files": [], "pattern": "x", "newValue": ""}).json == []


@pytest.mark.parametrize("length", [2, 1000, 131_072, 300_000])
def test_replace_finds_the_text_across_its_blocks(daemon: Daemon, home: Path, length: int) -> None:
    text = b"<" + b"o" * (length - 2) + b">"
    content = (b"o" * 131_070 + text + b"<<oo" + text + text) * 3
    (home / "f").write_bytes(content)
    body = {"files": ["f"], "pattern": text.decode(), "newValue": ""}
    assert daemon.post("/files/replace", body).json == [{"file": "f", "success": True}]
    assert (home / "f").read_bytes() == content.replace(text, b"")
    assert left_behind(home) == []


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"files": ["f"], "pattern": "x"},
        {"files": ["f"], "newValue": "x"},
        {"files": ["f"], "pattern": "", "newValue": "x"},
        {"pattern": "x", "newValue": "x"},
        {"files": None, "pattern": "x", "newValue": "x"},
        {"files": "f", "pattern": "x", "newValue": "x"},
        {"files": [1], "pattern": "x", "newValue": "x"},
        {"files": ["f"], "pattern": 1, "newValue": "x"},
        {"files": ["f"], "pattern": "x", "newValue": None},
    ],
)
def test_a_replace_without_what_it_needs_is_a_400(daemon: Daemon, body: dict[str, object]) -> None:
    assert error_of(daemon.post("/files/replace", body)) == (400, "INVALID_REQUEST_BODY")


def test_a_find_ends_with_its_client_and_holds_nobody_up(daemon: Daemon, home: Path) -> None:
    with (home / "large").open("wb") as file:
        file.write(b"text")
        file.truncate(1 << 40)  # sparse: reading it would take minutes
    os.truncate(home / "large", 1 << 40)
    with (home / "large").open("r+b") as file:
        file.write(b"t" * 600)
    daemon.get("/files")
    before = descriptors(daemon)
    head = f"GET /files/find?path=.&pattern=needle HTTP/1.1\r\nHost: x\r\n{DOOR_HEADER}: {SECRET}\r\n\r\n"
    finders = [daemon.raw(head.encode()) for _ in range(8)]
    eventually(lambda: descriptors(daemon) >= before + 16)
    assert daemon.get("/files").status == 200
    assert daemon.ask("POST", path("/upload-v2", path="x"), b"x").status == 200
    for finder in finders:
        finder.close()
    eventually(lambda: descriptors(daemon) == before)
