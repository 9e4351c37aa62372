"""Looking at files and changing the tree, through the door."""

import json
import os
import socket
import stat
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes, urlencode

import pytest

from tests.daemon.conftest import Answer, Daemon, Starter
from tests.daemon.files import conforms, error_of


def path(operation: str, **query: str) -> str:
    return f"/files{operation}?{urlencode(query)}"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An empty work directory."""
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


@pytest.fixture
def daemon(start_daemon: Starter, home: Path) -> Daemon:
    """A daemon at work there."""
    return start_daemon("--work-dir", str(home))


def names(answer: Answer) -> list[str]:
    assert answer.status == 200, answer.body
    conforms("ListFiles", answer)
    return [entry["name"] for entry in answer.json]


def test_a_listing_has_the_entries_by_name_with_what_they_are(daemon: Daemon, home: Path) -> None:
    (home / "b.txt").write_text("four")
    (home / "a").mkdir(0o751)
    (home / "b.txt").chmod(0o4640)
    os.utime(home / "b.txt", ns=(0, 1_700_000_000_123_456_789))
    answer = daemon.get("/files")
    assert names(answer) == ["a", "b.txt"]
    folder, file = answer.json
    assert (folder["isDir"], folder["mode"], folder["permissions"]) == (True, "drwxr-x--x", "0751")
    assert file == {
        "name": "b.txt",
        "size": 4,
        "mode": "urw-r-----",
        "permissions": "0640",
        "owner": str(os.getuid()),
        "group": str(os.getgid()),
        "modTime": "2023-11-14 22:13:20.123456789 +0000 UTC",
        "modifiedAt": "2023-11-14T22:13:20.123456Z",
        "isDir": False,
        "path": str(home / "b.txt"),
    }


@pytest.mark.parametrize(("source", "version"), [("go-sdk", "v0.148.0"), ("sdk-go", "v0.173.0")])
def test_go_gets_the_keys_it_knows_and_a_time_that_it_can_parse(
    daemon: Daemon, home: Path, source: str, version: str
) -> None:
    (home / "note").write_text("text")
    os.utime(home / "note", ns=(0, 1_700_000_000_120_000_000))
    asked = {"X_Daytona_Source": source, "X_Daytona_SDK_Version": version}
    for answer in (daemon.get(path("", path="."), **asked), daemon.get(path("/info", path="note"), **asked)):
        told = answer.json[0] if isinstance(answer.json, list) else answer.json
        assert set(told) == {"name", "size", "mode", "permissions", "owner", "group", "modTime", "isDir"}
        assert told["modTime"] == "2023-11-14T22:13:20.12Z"


def test_depth_lists_what_is_deeper_and_never_through_links(daemon: Daemon, home: Path) -> None:
    (home / "one" / "two" / "three").mkdir(parents=True)
    (home / "one" / "loop").symlink_to(home)
    assert names(daemon.get(path("", path=str(home)))) == ["one"]
    assert names(daemon.get(path("", path=".", depth="2"))) == ["one", "loop", "two"]
    assert names(daemon.get(path("", path="", depth="99"))) == ["one", "loop", "two", "three"]


@pytest.mark.parametrize("depth", ["0", "-1", "x", "1.5", "", "9" * 400, "\N{FULLWIDTH DIGIT ONE}"])
def test_a_depth_that_is_no_number_of_levels_is_a_400(daemon: Daemon, depth: str) -> None:
    assert error_of(daemon.get(path("", depth=depth))) == (400, "BAD_REQUEST")


def test_listing_what_is_missing_or_no_directory(daemon: Daemon, home: Path) -> None:
    (home / "file").touch()
    assert error_of(daemon.get(path("", path="nowhere"))) == (404, "FILE_NOT_FOUND")
    assert error_of(daemon.get(path("", path="file"))) == (400, "BAD_REQUEST")
    assert daemon.get("/files/").status == 200


def test_d30_dangling_links_are_seen_told_and_deleted(daemon: Daemon, home: Path) -> None:
    (home / "dangling").symlink_to("nowhere")
    (home / "round").symlink_to("round")
    assert names(daemon.get("/files")) == ["dangling", "round"]
    info = daemon.get(path("/info", path="dangling"))
    assert (info.json["mode"], info.json["isDir"]) == ("Lrwxrwxrwx", False)
    for name in ("dangling", "round"):
        assert daemon.ask("DELETE", path("", path=name)).status == 204
    assert names(daemon.get("/files")) == []


def test_d30_every_error_has_the_envelope(daemon: Daemon) -> None:
    for method, target in (
        ("GET", path("/info", path="nowhere")),
        ("DELETE", path("", path="nowhere")),
        ("GET", path("/download", path="nowhere")),
        ("POST", path("/move", source="nowhere", destination="x")),
        ("POST", path("/permissions", path="nowhere", mode="644")),
    ):
        answer = daemon.ask(method, target)
        assert error_of(answer) == (404, "FILE_NOT_FOUND"), target
        assert "nowhere" in answer.json["message"]


def test_special_files_are_told_and_nothing_waits_for_them(daemon: Daemon, home: Path) -> None:
    os.mkfifo(home / "fifo", 0o644)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(home / "sock"))
        modes = {entry["name"]: entry["mode"][0] for entry in daemon.get("/files").json}
        assert modes == {"fifo": "p", "sock": "S"}
        assert daemon.get(path("/info", path="/dev/null")).json["mode"].startswith("Dcrw")
        for name in ("fifo", "sock", "/dev/null", "/dev/zero"):
            assert error_of(daemon.get(path("/download", path=name))) == (400, "BAD_REQUEST"), name
            upload = daemon.ask("POST", path("/upload-v2", path=name), b"x")
            assert error_of(upload) == (400, "BAD_REQUEST"), name
            assert error_of(daemon.get(path("/find", path=name, pattern="x"))) == (400, "BAD_REQUEST"), name
        assert daemon.get(path("/find", path=".", pattern="x")).json == []
        assert daemon.ask("DELETE", path("", path=".", recursive="true")).status in (204, 400)
    assert Path("/dev/null").is_char_device()


def test_a_name_that_is_no_utf8_can_be_listed_read_moved_and_deleted(daemon: Daemon, home: Path) -> None:
    raw = b"caf\xe9.txt"
    with open(os.fsencode(home) + b"/" + raw, "wb") as file:
        file.write(b"needle")
    quoted = quote_from_bytes(raw)
    assert names(daemon.get("/files")) == ["caf�.txt"]
    assert daemon.get(f"/files/download?path={quoted}").body == b"needle"
    assert daemon.get(path("/search", path=".", pattern="caf*")).json["files"] == ["./caf�.txt"]
    assert daemon.get(path("/find", path=".", pattern="needle")).json[0]["line"] == 1
    assert error_of(daemon.get(f"/files/info?path={quoted}x")) == (404, "FILE_NOT_FOUND")
    assert daemon.ask("POST", f"/files/move?source={quoted}&destination=other%FF").status == 200
    assert daemon.ask("DELETE", "/files?path=other%FF").status == 204


@pytest.mark.parametrize(
    ("method", "operation"),
    [
        ("GET", "/info"),
        ("DELETE", ""),
        ("POST", "/folder"),
        ("POST", "/permissions"),
        ("GET", "/download"),
        ("HEAD", "/download"),
        ("POST", "/upload-v2"),
        ("POST", "/upload"),
        ("GET", "/find"),
        ("GET", "/search"),
    ],
)
def test_a_path_that_is_missing_empty_or_no_path_is_refused(
    daemon: Daemon, home: Path, method: str, operation: str
) -> None:
    more = "&pattern=x&mode=755&recursive=true"
    for query in (more, "path=" + more, "path=a%00b" + more, "path=" + "x" * 5000 + more, "path=" + "y/" * 3000 + more):
        status = daemon.ask(method, f"/files{operation}?{query}", b"" if method == "POST" else None).status
        assert status in (400, 404), query[:40]
    assert list(home.iterdir()) == []
    assert daemon.get("/version").status == 200


def test_deleting_a_directory_needs_recursive(daemon: Daemon, home: Path) -> None:
    (home / "d" / "e").mkdir(parents=True)
    for value in ("", "1", "TRUE", "false"):
        assert error_of(daemon.ask("DELETE", path("", path="d", recursive=value))) == (400, "BAD_REQUEST")
    assert daemon.ask("DELETE", path("", path="d/", recursive="true")).status == 204
    assert not (home / "d").exists()
    assert error_of(daemon.ask("DELETE", path("", path="/", recursive="true"))) == (400, "BAD_REQUEST")
    assert error_of(daemon.ask("DELETE", path("", path="/../..", recursive="true"))) == (400, "BAD_REQUEST")


def test_deleting_a_tree_removes_links_and_not_what_they_lead_to(daemon: Daemon, home: Path) -> None:
    (home / "kept").mkdir()
    (home / "kept" / "file").touch()
    (home / "tree" / "deep").mkdir(parents=True)
    (home / "tree" / "deep" / "link").symlink_to(home / "kept")
    (home / "to-kept").symlink_to("kept")
    assert daemon.ask("DELETE", path("", path="tree", recursive="true")).status == 204
    assert daemon.ask("DELETE", path("", path="to-kept")).status == 204
    assert [entry.name for entry in sorted(home.iterdir())] == ["kept"]
    assert (home / "kept" / "file").exists()


def test_a_folder_is_made_with_its_parents_and_its_mode(daemon: Daemon, home: Path) -> None:
    def made(name: str, mode: str | None = None) -> int:
        query = {"path": name} | ({"mode": mode} if mode is not None else {})
        assert daemon.ask("POST", path("/folder", **query)).status == 201
        return stat.S_IMODE((home / name).stat().st_mode)

    assert made("x/y/z", "755") == 0o755
    assert made("plain") == 0o755
    assert made("empty", "") == 0o755
    assert made("closed/inner", "0500") == 0o500
    assert made("x/y/z", "700") == 0o755, "one that exists stays as it is"


def test_d32_special_bits_of_a_mode_are_set(daemon: Daemon, home: Path) -> None:
    assert daemon.ask("POST", path("/folder", path="shared", mode="1777")).status == 201
    assert (home / "shared").stat().st_mode & 0o7000 == 0o1000
    assert daemon.ask("POST", path("/permissions", path="shared", mode="2755")).status == 200
    assert stat.S_IMODE((home / "shared").stat().st_mode) == 0o2755


@pytest.mark.parametrize("mode", ["999", "abc", "0o755", "77777", "-755", " 755", "\N{FULLWIDTH DIGIT SEVEN}55", "7.5"])
def test_a_mode_that_is_not_octal_is_a_400_and_changes_nothing(daemon: Daemon, home: Path, mode: str) -> None:
    assert error_of(daemon.ask("POST", path("/folder", path="new", mode=mode))) == (400, "BAD_REQUEST")
    assert not (home / "new").exists()
    (home / "old").touch(0o644)
    assert error_of(daemon.ask("POST", path("/permissions", path="old", mode=mode))) == (400, "BAD_REQUEST")


def test_a_folder_where_a_file_is_is_a_400(daemon: Daemon, home: Path) -> None:
    (home / "file").touch()
    for name in ("file", "file/inner"):
        assert error_of(daemon.ask("POST", path("/folder", path=name))) == (400, "BAD_REQUEST")


def test_permissions_take_names_and_numbers_and_change_all_or_nothing(daemon: Daemon, home: Path) -> None:
    file = home / "file"
    file.touch(0o600)
    assert daemon.ask("POST", path("/permissions", path="file", mode="644")).status == 200
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    for wrong in ({"owner": "no-such-user"}, {"group": "no-such-group"}, {"owner": "99999999999"}, {"group": "a\0"}):
        answer = daemon.ask("POST", path("/permissions", path="file", mode="600", **wrong))
        assert error_of(answer) == (400, "BAD_REQUEST")
        assert stat.S_IMODE(file.stat().st_mode) == 0o644, "nothing was changed"
    assert daemon.ask("POST", path("/permissions", path="file")).status == 200
    if os.getuid() == 0:
        assert (
            daemon.ask("POST", path("/permissions", path="file", owner="nobody", group="12", mode="4755")).status == 200
        )
        status = file.stat()
        assert (status.st_gid, stat.S_IMODE(status.st_mode)) == (12, 0o4755)
        assert daemon.ask("POST", path("/permissions", path="file", owner="0")).status == 200
        assert file.stat().st_uid == 0


def test_a_move_never_goes_onto_or_into_what_exists(daemon: Daemon, home: Path) -> None:
    (home / "a").write_text("a")
    (home / "b").mkdir()
    (home / "dangling").symlink_to("nowhere")
    for taken in ("b", "dangling", "a"):
        assert error_of(daemon.ask("POST", path("/move", source="a", destination=taken))) == (409, "CONFLICT"), taken
    assert daemon.ask("POST", path("/move", source="a", destination="b/c")).status == 200
    assert (home / "b" / "c").read_text() == "a"
    assert daemon.ask("POST", path("/move", source="b/", destination="d/")).status == 200
    assert (home / "d" / "c").exists()


def test_a_move_that_cannot_be(daemon: Daemon, home: Path) -> None:
    (home / "d").mkdir()
    (home / "f").touch()
    for source, destination, expected in (
        ("nowhere", "x", (404, "FILE_NOT_FOUND")),
        ("d", "no/where", (404, "FILE_NOT_FOUND")),
        ("d", "d/inner", (400, "BAD_REQUEST")),
        ("d", "f/inner", (400, "BAD_REQUEST")),
    ):
        assert error_of(daemon.ask("POST", path("/move", source=source, destination=destination))) == expected
    assert error_of(daemon.ask("POST", path("/move", source="d"))) == (400, "BAD_REQUEST")
    assert error_of(daemon.ask("POST", path("/move", destination="d"))) == (400, "BAD_REQUEST")


def test_d32_a_move_to_another_file_system_keeps_what_belongs_to_a_file(daemon: Daemon, home: Path) -> None:
    shm = Path("/dev/shm")
    if shm.stat().st_dev == home.stat().st_dev:
        pytest.skip("there is no second file system to write to")
    (home / "tree").mkdir()
    file = home / "tree" / "file"
    file.write_bytes(os.urandom(1 << 20))
    file.chmod(0o4711)
    (home / "tree" / "link").symlink_to("file")
    os.mkfifo(home / "tree" / "fifo")
    os.utime(file, ns=(1_000_000_000, 1_500_000_000_000_000_001))
    os.utime(home / "tree", ns=(1_000_000_000, 1_600_000_000_000_000_000))
    before, content = file.stat(), file.read_bytes()
    target = shm / f"sandyard-move-{os.getpid()}"
    try:
        assert daemon.ask("POST", path("/move", source="tree", destination=str(target))).status == 200
        after = (target / "file").stat()
        assert (after.st_mode, after.st_mtime_ns, after.st_uid) == (before.st_mode, before.st_mtime_ns, before.st_uid)
        assert target.stat().st_mtime_ns == 1_600_000_000_000_000_000
        assert (target / "file").read_bytes() == content
        assert os.readlink(target / "link") == "file"
        assert stat.S_ISFIFO((target / "fifo").stat().st_mode)
        assert not (home / "tree").exists()
        (home / "again").mkdir()
        again = daemon.ask("POST", path("/move", source="again", destination=str(target)))
        assert error_of(again) == (409, "CONFLICT")
        assert (home / "again").exists()
        assert not [entry for entry in shm.iterdir() if entry.name.startswith(".sandyard-upload-")]
    finally:
        daemon.ask("DELETE", path("", path=str(target), recursive="true"))


@pytest.mark.root
def test_an_ordinary_user_is_refused_what_is_not_theirs(start_daemon: Starter, tmp_path: Path) -> None:
    daemon = start_daemon(user="nobody")
    closed = tmp_path / "closed"
    closed.mkdir(0o755)
    (closed / "file").write_text("old")
    secret = tmp_path / "secret"
    secret.mkdir(0o700)
    file, denied = str(closed / "file"), (403, "FILE_ACCESS_DENIED")
    asked: list[tuple[str, str, Any]] = [
        ("GET", path("", path=str(secret)), None),
        ("GET", path("/info", path=str(secret / "x")), None),
        ("DELETE", path("", path=file), None),
        ("POST", path("/folder", path=str(closed / "new")), None),
        ("POST", path("/move", source=file, destination=str(closed / "other")), None),
        ("POST", path("/permissions", path=file, mode="777"), None),
        ("POST", path("/upload-v2", path=file), b"new"),
        ("POST", path("/upload-v2", path=str(closed / "new")), b"new"),
        ("GET", path("/find", path=str(secret), pattern="x"), None),
        ("GET", path("/search", path=str(secret), pattern="x"), None),
        ("GET", path("/download", path=str(secret / "x")), None),
    ]
    for method, target, body in asked:
        answer = daemon.ask(method, target, body)
        assert error_of(answer) == denied, (target, answer.body)
    (daemon.home / "mine").write_text("x")
    os.chown(daemon.home / "mine", daemon.home.stat().st_uid, -1)
    both = daemon.ask("POST", path("/permissions", path="mine", mode="600", owner="root"))
    assert error_of(both) == denied
    assert stat.S_IMODE((daemon.home / "mine").stat().st_mode) != 0o600, "nothing was changed"
    assert (closed / "file").read_text() == "old"
    assert sorted(entry.name for entry in closed.iterdir()) == ["file"]


def test_a_tree_deeper_than_a_path_may_be_long_is_listed_as_far_as_it_goes_and_deleted(
    daemon: Daemon, home: Path, request: pytest.FixtureRequest
) -> None:
    # What pytest itself cannot remove must not be left to it, whatever becomes of this test.
    request.addfinalizer(lambda: subprocess.run(["rm", "-rf", str(home)], check=True, timeout=60))
    handle = os.open(home, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("deep", dir_fd=handle)
        inner = os.open("deep", os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = inner
    os.close(handle)
    assert len(names(daemon.get(path("", depth="100000")))) > 700
    assert daemon.get(path("/search", path=".", pattern="x*")).json == {"files": []}
    assert daemon.ask("DELETE", path("", path="deep", recursive="true")).status == 204
    assert list(home.iterdir()) == []


def test_answers_are_text_that_json_parsers_take(daemon: Daemon, home: Path) -> None:
    name = 'quote" back\\ new\nline \x01 ü'
    (home / name).touch()
    assert json.loads(daemon.get("/files").body)[0]["name"] == name
    assert daemon.get(path("/info", path=name)).json["name"] == name
