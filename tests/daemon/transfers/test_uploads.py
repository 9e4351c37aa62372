"""Uploads through the door: exact bytes, all of a file or nothing."""

import shutil
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandyard_daemon.files.staging import Staged
from sandyard_daemon.wire import DOOR_HEADER
from tests.daemon.conftest import SECRET, Answer, Daemon, Starter, eventually
from tests.daemon.files import BOUNDARY, FORM, conforms, error_of, form
from tests.daemon.processes import descriptors
from tests.daemon.test_files import path
from tests.daemon.transfers.uploading import UPLOADS, left_behind, noise, upload


@pytest.mark.parametrize("kind", UPLOADS)
def test_an_upload_makes_parents_keeps_the_mode_and_replaces_the_whole_file(
    daemon: Daemon, home: Path, kind: str
) -> None:
    content = noise(300_000) + b"\r\n--" + BOUNDARY[:-1].encode() + b"\r\n\r\n"
    answer = upload(daemon, kind, "a/b/c.bin", content)
    assert answer.status == 200, answer.body
    file = home / "a" / "b" / "c.bin"
    assert file.read_bytes() == content
    assert (stat.S_IMODE(file.stat().st_mode), stat.S_IMODE(file.parent.stat().st_mode)) == (0o644, 0o755)
    file.chmod(0o751)
    assert upload(daemon, kind, "a/b/c.bin", b"short").status == 200
    assert (file.read_bytes(), stat.S_IMODE(file.stat().st_mode)) == (b"short", 0o751)
    assert upload(daemon, kind, "a/b/c.bin", b"").status == 200
    assert file.read_bytes() == b""
    assert left_behind(home) == []


@pytest.mark.parametrize("kind", UPLOADS)
def test_an_upload_goes_through_links_dangling_ones_too(daemon: Daemon, home: Path, kind: str) -> None:
    (home / "target").write_text("old")
    (home / "link").symlink_to("target")
    (home / "dangling").symlink_to("sub/made")
    assert upload(daemon, kind, "link", b"new").status == 200
    assert upload(daemon, kind, "dangling", b"fresh").status == 200
    assert ((home / "link").is_symlink(), (home / "target").read_bytes()) == (True, b"new")
    assert ((home / "dangling").is_symlink(), (home / "sub" / "made").read_bytes()) == (True, b"fresh")


@pytest.mark.parametrize("kind", UPLOADS)
def test_an_upload_onto_a_directory_a_loop_or_below_a_file_leaves_nothing(
    daemon: Daemon, home: Path, kind: str
) -> None:
    (home / "d").mkdir()
    (home / "loop").symlink_to("loop")
    (home / "file").touch()
    for name in ("d", "d/", "new/", "loop", "file/x", "new/" + "n" * 300, "."):
        answer = upload(daemon, kind, name, b"x")
        assert error_of(answer) == (400, "BAD_REQUEST"), name
    assert sorted(entry.name for entry in home.iterdir()) == ["d", "file", "loop"]


def test_a_raw_body_and_its_answer(daemon: Daemon, home: Path) -> None:
    answer = daemon.ask("POST", path("/upload-v2", path="x/raw.bin"), b"\0raw")
    assert answer.json == {"name": "raw.bin", "path": "x/raw.bin", "type": "file"}
    conforms("UploadFile", answer)
    assert (home / "x" / "raw.bin").read_bytes() == b"\0raw"
    assert daemon.ask("POST", path("/upload-v2", path="empty")).status == 200
    assert (home / "empty").read_bytes() == b""


def test_a_form_without_its_file_is_an_empty_file_for_go_and_else_an_error_in_the_older_operation(
    daemon: Daemon, home: Path
) -> None:
    other = form(("other", b"x"))
    assert daemon.ask("POST", path("/upload-v2", path="e"), other, {"Content-Type": FORM}).status == 200
    assert (home / "e").read_bytes() == b""
    old = daemon.ask("POST", path("/upload", path="f"), other, {"Content-Type": FORM})
    assert error_of(old) == (400, "BAD_REQUEST")
    assert error_of(daemon.ask("POST", path("/upload", path="f"), b"raw")) == (400, "BAD_REQUEST")
    assert not (home / "f").exists()
    for source, version in (("go-sdk", "v0.148.0"), ("sdk-go", "v0.173.0")):
        sent = {"Content-Type": FORM, "X-Daytona-Source": source, "X-Daytona-SDK-Version": version}
        assert daemon.ask("POST", path("/upload", path=source), form(), sent).status == 200
        assert (home / source).read_bytes() == b""
        raw = daemon.ask("POST", path("/upload", path="f"), b"raw", sent | {"Content-Type": "text/plain"})
        assert raw.status == 400


def test_parts_are_paired_by_their_index_whatever_their_order(daemon: Daemon, home: Path) -> None:
    body = form(
        ("files[1].path", b" b "),
        ("files[0].path", b"a"),
        ("files[0].file", b"A"),
        ("unknown", b"ignored"),
        ("files[1].file", b"B"),
    )
    answer = daemon.ask("POST", "/files/bulk-upload", body, {"Content-Type": FORM})
    assert answer.json == {"files": [{"path": "a", "bytes": 1}, {"path": "b", "bytes": 1}], "errors": []}
    assert ((home / "a").read_bytes(), (home / "b").read_bytes()) == (b"A", b"B")


def test_what_failed_of_a_batch_is_told_and_the_rest_is_written(daemon: Daemon, home: Path) -> None:
    (home / "d").mkdir()
    body = form(
        ("files[0].path", b"d"),
        ("files[0].file", b"x" * 100_000),
        ("files[1].path", b"good"),
        ("files[1].file", b"good"),
        ("files[2].file", b"no path"),
        ("files[3].path", b"never"),
    )
    answer = daemon.ask("POST", "/files/bulk-upload", body, {"Content-Type": FORM})
    assert error_of(answer) == (400, "BAD_REQUEST")
    assert answer.json["files"] == [{"path": "good", "bytes": 4}]
    first, second, third = answer.json["errors"]
    assert first.startswith("d: ")
    assert "files[2].file" in second
    assert "files[3].path" in third
    assert (home / "good").read_bytes() == b"good"


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b"{}"),
        ("multipart/form-data", b""),
        (FORM, b""),
        (FORM, b"no boundary at all"),
        (FORM, form(("files[0].path", b"cut"), ("files[0].file", b"x"), closed=False)[:-4]),
        (FORM, form(("files[0].path", b"cut"))[: -len(BOUNDARY) - 6]),
        (FORM, f"--{BOUNDARY}\r\n\r\nno name\r\n--{BOUNDARY}--".encode()),
        (FORM, f"--{BOUNDARY}\r\n".encode() + b"x" * 100_000),
        (FORM, form(("files[0].path", b"p" * 100_000), ("files[0].file", b"x"))),
        (FORM, form(("files[0].path", b"a\0b"), ("files[0].file", b"x"))),
        (FORM, form(("files[0].path", b"  "), ("files[0].file", b"x"))),
        (FORM + "x" * 300, b""),
    ],
)
def test_a_broken_form_is_a_400_with_errors_and_leaves_nothing(
    daemon: Daemon, home: Path, content_type: str, body: bytes
) -> None:
    answer = daemon.ask("POST", "/files/bulk-upload", body, {"Content-Type": content_type})
    assert error_of(answer) == (400, "BAD_REQUEST"), answer.body
    assert answer.json["errors"]
    assert len(answer.json["errors"]) == 1
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
def test_a_form_is_read_the_same_however_it_is_cut(daemon: Daemon, home: Path, size: int) -> None:
    content = b"\r\n--the-boundaryx\r\r\n\r\n--the-bound\r\n--" * 3
    body = form(("files[0].path", b"f"), ("files[0].file", content), ("files[1].path", b"e"), ("files[1].file", b""))

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(body), size):
            yield body[start : start + size]

    headers = {DOOR_HEADER: SECRET, "Content-Type": FORM, "Transfer-Encoding": "chunked"}
    daemon._connection.request("POST", "/files/bulk-upload", pieces(), headers, encode_chunked=True)
    assert Answer(daemon._connection.getresponse()).status == 200
    assert (home / "f").read_bytes() == content
    assert (home / "e").read_bytes() == b""


def begin_upload(daemon: Daemon, target: str, content_type: str, first: bytes) -> socket.socket:
    """A connection with the beginning of an upload that announces a gigabyte."""
    head = (
        f"POST {target} HTTP/1.1\r\nHost: x\r\n{DOOR_HEADER}: {SECRET}\r\n"
        f"Content-Type: {content_type}\r\nContent-Length: 1000000000\r\n\r\n"
    )
    return daemon.raw(head.encode() + first)


@pytest.mark.parametrize("kind", ["raw", *UPLOADS])
def test_d31_an_upload_whose_client_goes_away_leaves_the_old_file_and_nothing_else(
    daemon: Daemon, home: Path, kind: str
) -> None:
    (home / "kept").write_text("old")
    daemon.get("/files")
    before = descriptors(daemon)
    for name in ("kept", "fresh/sub/new"):
        if kind == "raw":
            connection = begin_upload(
                daemon, path("/upload-v2", path=name), "application/octet-stream", b"x" * 3_000_000
            )
        elif kind == "/bulk-upload":
            start = form(("files[0].path", name.encode()), ("files[0].file", b"x" * 3_000_000), closed=False)
            connection = begin_upload(daemon, "/files/bulk-upload", FORM, start[:-2])
        else:
            start = form(("file", b"x" * 3_000_000), closed=False)[:-2]
            connection = begin_upload(daemon, path(kind, path=name), FORM, start)
        eventually(lambda: left_behind(home))
        connection.close()
        eventually(lambda: not left_behind(home))
    eventually(lambda: not (home / "fresh").exists())
    assert (home / "kept").read_text() == "old"
    eventually(lambda: descriptors(daemon) == before)


def test_an_upload_is_ended_with_its_daemon_and_leaves_nothing(start_daemon: Starter, home: Path) -> None:
    daemon = start_daemon("--work-dir", str(home))
    begin_upload(daemon, path("/upload-v2", path="new"), "application/octet-stream", b"x" * 3_000_000)
    eventually(lambda: left_behind(home))
    daemon.process.terminate()
    daemon.process.wait(60)
    assert list(home.iterdir()) == []


@pytest.mark.root
@pytest.mark.parametrize("kind", UPLOADS)
def test_a_full_disk_is_told_and_the_old_file_stays(daemon: Daemon, tmp_path: Path, kind: str) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(small)], check=False)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        (small / "file").write_bytes(b"old" * 100_000)
        answer = upload(daemon, kind, str(small / "file"), b"x" * 2_000_000)
        assert error_of(answer) == (400, "BAD_REQUEST")
        assert "space" in answer.json["message"]
        assert (small / "file").read_bytes() == b"old" * 100_000
        assert left_behind(small) == []
        body = {"files": [str(small / "file")], "pattern": "o", "newValue": "much longer"}
        replaced = daemon.post("/files/replace", body).json
        assert replaced[0]["success"] is False
        assert "space" in replaced[0]["error"]
        assert (small / "file").read_bytes() == b"old" * 100_000
        assert sorted(entry.name for entry in small.iterdir()) == ["file"]
    finally:
        subprocess.run(["umount", str(small)], check=True)


@pytest.mark.root
def test_d31_a_file_that_cannot_be_renamed_over_is_written_in_place(daemon: Daemon, home: Path) -> None:
    (home / "below").write_text("old")
    (home / "mounted").touch()
    source, target = str(home / "below"), str(home / "mounted")
    if subprocess.run(["mount", "--bind", source, target], check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        assert upload(daemon, "/upload-v2", "mounted", b"new").status == 200
        assert (home / "below").read_bytes() == b"new"
    finally:
        subprocess.run(["umount", target], check=True)
    assert left_behind(home) == []


@pytest.mark.root
def test_d31_a_file_of_ours_in_a_directory_that_is_not_is_written_in_place(
    start_daemon: Starter, tmp_path: Path
) -> None:
    daemon = start_daemon(user="nobody")
    closed = tmp_path / "closed"
    closed.mkdir(0o755)
    mine = closed / "mine"
    mine.write_text("old and long")
    shutil.chown(mine, "nobody")
    assert upload(daemon, "/upload-v2", str(mine), b"new").status == 200
    assert mine.read_bytes() == b"new"
    assert [entry.name for entry in closed.iterdir()] == ["mine"]


def test_an_upload_whose_client_went_before_a_thread_came_to_open_it_leaves_nothing(tmp_path: Path) -> None:
    staged = Staged(str(tmp_path / "folder" / "f"))
    staged.discard()  # on another thread, which was quicker
    with pytest.raises(OSError, match="over"):
        staged.open()
    assert list(tmp_path.iterdir()) == []
