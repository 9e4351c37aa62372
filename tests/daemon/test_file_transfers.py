"""Uploads and downloads through the door: exact bytes, all of a file or nothing, bounded memory."""

import hashlib
import http.client
import os
import re
import shutil
import socket
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandyard_daemon.wire import DOOR_HEADER
from tests.daemon.conftest import SECRET, Answer, Daemon, DoorConnection, Starter, eventually
from tests.daemon.files import BOUNDARY, FORM, conforms, error_of, form
from tests.daemon.test_files import path

PEAK_KIB = 40 * 1024
UPLOADS = ("/upload-v2", "/upload", "/bulk-upload")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An empty work directory."""
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


@pytest.fixture
def daemon(start_daemon: Starter, home: Path) -> Daemon:
    """A daemon at work there."""
    return start_daemon("--work-dir", str(home))


def peak_kib(daemon: Daemon) -> int:
    text = Path(f"/proc/{daemon.process.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+)", text)
    assert found
    return int(found[1])


def descriptors(daemon: Daemon) -> int:
    return len(os.listdir(f"/proc/{daemon.process.pid}/fd"))


def upload(daemon: Daemon, kind: str, name: str, content: bytes) -> Answer:
    """By each of the three ways."""
    if kind == "/bulk-upload":
        body = form(("files[0].path", name.encode()), ("files[0].file", content))
        return daemon.ask("POST", "/files/bulk-upload", body, {"Content-Type": FORM})
    return daemon.ask("POST", path(kind, path=name), form(("file", content)), {"Content-Type": FORM})


def noise(size: int) -> bytes:
    """Bytes without a pattern, the same at every run."""
    return hashlib.shake_128(b"noise").digest(size)


def left_behind(home: Path) -> list[str]:
    return [name for _, _, names in os.walk(home) for name in names if name.startswith(".sandyard-upload-")]


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


def test_a_form_without_its_file_is_an_empty_file_for_go_and_an_error_in_the_older_operation(
    daemon: Daemon, home: Path
) -> None:
    other = form(("other", b"x"))
    assert daemon.ask("POST", path("/upload-v2", path="e"), other, {"Content-Type": FORM}).status == 200
    assert (home / "e").read_bytes() == b""
    old = daemon.ask("POST", path("/upload", path="f"), other, {"Content-Type": FORM})
    assert error_of(old) == (400, "BAD_REQUEST")
    assert error_of(daemon.ask("POST", path("/upload", path="f"), b"raw")) == (400, "BAD_REQUEST")
    assert not (home / "f").exists()


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
    daemon.process.wait(20)
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


def test_a_download_has_the_bytes_a_length_a_name_and_a_date(daemon: Daemon, home: Path) -> None:
    content = noise(700_001)
    (home / 'na"me ü').write_bytes(content)
    os.utime(home / 'na"me ü', (0, 1_700_000_000))
    target = path("/download", path='na"me ü')
    answer = daemon.get(target)
    assert answer.body == content
    assert answer.headers["content-length"] == "700001"
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["last-modified"] == "Tue, 14 Nov 2023 22:13:20 GMT"
    disposition = answer.headers["content-disposition"]
    assert disposition == 'attachment; filename="na\\"me _"; filename*=UTF-8\'\'na%22me%20%C3%BC'
    head = daemon.ask("HEAD", target)
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", "700001")
    (home / "empty").touch()
    assert daemon.get(path("/download", path="empty")).body == b""


@pytest.mark.parametrize(
    ("asked", "status", "expected", "told"),
    [
        ("bytes=0-3", 206, b"0123", "bytes 0-3/10"),
        ("bytes=8-", 206, b"89", "bytes 8-9/10"),
        ("bytes=-3", 206, b"789", "bytes 7-9/10"),
        ("bytes=-99", 206, b"0123456789", "bytes 0-9/10"),
        ("bytes=5-99", 206, b"56789", "bytes 5-9/10"),
        ("bytes=1-2,4-5", 200, b"0123456789", None),
        ("bytes=5-2", 200, b"0123456789", None),
        ("lines=1-2", 200, b"0123456789", None),
        ("bytes=-", 200, b"0123456789", None),
        ("bytes=" + "9" * 19 + "-", 416, None, None),
        ("bytes=10-", 416, None, None),
        ("bytes=-0", 416, None, None),
    ],
)
def test_ranges(daemon: Daemon, home: Path, asked: str, status: int, expected: bytes | None, told: str | None) -> None:
    (home / "digits").write_bytes(b"0123456789")
    answer = daemon.get(path("/download", path="digits"), Range=asked)
    assert (answer.status, answer.headers["content-range"]) == (status, told)
    assert answer.body == expected if expected is not None else error_of(answer) == (416, "BAD_REQUEST")


def test_a_file_that_did_not_change_is_not_sent_again(daemon: Daemon, home: Path) -> None:
    (home / "f").write_text("x")
    os.utime(home / "f", (0, 1_700_000_000))
    target, date = path("/download", path="f"), "Tue, 14 Nov 2023 22:13:20 GMT"
    assert (daemon.get(target, If_Modified_Since=date).status, daemon.get(target).status) == (304, 200)
    assert daemon.get(target, If_Modified_Since="Tue, 14 Nov 2023 22:13:19 GMT").status == 200
    assert daemon.get(target, If_Modified_Since="nonsense").status == 200
    assert daemon.get(target, Range="bytes=0-0", If_Range=date).status == 206
    assert daemon.get(target, Range="bytes=0-0", If_Range="Tue, 14 Nov 2023 22:13:19 GMT").status == 200


def parts_of(answer: Answer) -> list[tuple[dict[str, str], bytes]]:
    """Headers and body of each part; the closing boundary must be there."""
    assert answer.status == 200, answer.body
    kind, _, boundary = answer.headers["content-type"].partition("; boundary=")
    assert kind == "multipart/form-data"
    start, *parts, end = (b"\r\n" + answer.body).split(b"\r\n--" + boundary.encode())
    assert (start, end) == (b"", b"--\r\n")
    found = []
    for part in parts:
        head, _, body = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode("ascii").split("\r\n"))
        assert int(headers["Content-Length"]) == len(body)
        found.append((headers, body))
    return found


def test_a_bulk_download_has_a_part_for_each_path_in_order(daemon: Daemon, home: Path) -> None:
    (home / "a").write_bytes(b"A" * 600_000)
    (home / "sp ace ü\n").write_bytes(b"\0")
    (home / "empty").touch()
    (home / "d").mkdir()
    paths = ["a", "nowhere", "sp ace ü\n", "d", "", "empty", str(home / "a"), "/dev/null", "a/x", "a\0"]
    answer = daemon.post("/files/bulk-download", {"paths": paths})
    found = parts_of(answer)
    kinds = [head["Content-Disposition"].split('"')[1] for head, _ in found]
    assert kinds == ["file", "error", "file", "error", "error", "file", "file", "error", "error", "error"]
    assert found[0][0]["Content-Disposition"] == 'form-data; name="file"; filename="a"'
    assert found[0][0]["Content-Type"] == "application/octet-stream"
    assert found[2][0]["Content-Disposition"].endswith("filename*=UTF-8''sp%20ace%20%C3%BC%0A")
    assert [body for _, body in found[::6]] == [b"A" * 600_000, b"A" * 600_000]
    errors = [
        error_of(Part(body), is_modelled=False) for head, body in found if head["Content-Type"] == "application/json"
    ]
    assert errors == [
        (404, "FILE_NOT_FOUND"),
        (400, "INVALID_FILE_PATH"),
        (400, "INVALID_FILE_PATH"),
        (400, "INVALID_FILE_PATH"),
        (400, "INVALID_FILE_PATH"),
        (400, "INVALID_FILE_PATH"),
    ]


class Part(Answer):
    """An error that came as a part."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.status = int(self.json["statusCode"])


@pytest.mark.parametrize(
    "body", [b"", b"{}", b'{"paths": []}', b'{"paths": null}', b'{"paths": "a"}', b'{"paths": [1]}']
)
def test_a_bulk_download_of_nothing_is_a_400(daemon: Daemon, body: bytes) -> None:
    assert error_of(daemon.post("/files/bulk-download", body))[0] == 400


def test_d31_a_file_that_holds_the_boundary_of_an_earlier_answer_can_be_downloaded(daemon: Daemon, home: Path) -> None:
    (home / "a").write_bytes(b"x")
    first = daemon.post("/files/bulk-download", {"paths": ["a"]})
    (home / "a").write_bytes(first.body)
    again = daemon.post("/files/bulk-download", {"paths": ["a"]})
    assert parts_of(again)[0][1] == first.body
    assert again.headers["content-type"] != first.headers["content-type"]


@pytest.mark.parametrize("way", ["download", "bulk"])
def test_d31_a_file_that_grows_has_its_announced_length_and_one_that_shrinks_is_cut_off(
    daemon: Daemon, home: Path, way: str
) -> None:
    for end, size in (("grows", 60_000_000), ("shrinks", 60_000_000)):
        with (home / end).open("wb") as file:
            file.truncate(size)
        connection = DoorConnection(daemon.door)
        headers = {DOOR_HEADER: SECRET}
        if way == "bulk":
            connection.request("POST", "/files/bulk-download", f'{{"paths": ["{end}"]}}', headers)
        else:
            connection.request("GET", path("/download", path=end), headers=headers)
        response = connection.getresponse()
        received = len(response.read(1000))
        os.truncate(home / end, size + 5_000_000 if end == "grows" else 40_000_000)
        try:
            while chunk := response.read(1 << 20):
                received += len(chunk)
            is_whole = True
        except http.client.IncompleteRead:
            is_whole = False
        connection.close()
        if way == "download":
            is_whole = received == size
        assert is_whole == (end == "grows")
        assert received < size + 1000


@pytest.mark.parametrize("way", ["download", "bulk"])
def test_clients_that_go_away_in_the_middle_of_a_download_leave_no_descriptor(
    daemon: Daemon, home: Path, way: str
) -> None:
    with (home / "large").open("wb") as file:
        file.truncate(50_000_000)
    daemon.get("/files")
    before = descriptors(daemon)
    body = b'{"paths": ["large"]}'
    for _ in range(20):
        if way == "bulk":
            connection = daemon.raw_post("/files/bulk-download", body)
        else:
            head = f"GET /files/download?path=large HTTP/1.1\r\nHost: x\r\n{DOOR_HEADER}: {SECRET}\r\n\r\n"
            connection = daemon.raw(head.encode())
        assert connection.recv(1000)
        connection.close()
    for _ in range(5):
        assert daemon.ask("HEAD", path("/download", path="large")).status == 200
    eventually(lambda: descriptors(daemon) == before)


def large_pieces(size: int) -> Iterator[bytes]:
    block = noise(1 << 20)
    for start in range(0, size, len(block)):
        yield block[: size - start]


def there_and_back(daemon: Daemon, home: Path, size: int) -> None:
    """One file up in a form and down as a part and plainly; what comes back is what was sent."""
    sent, received = hashlib.blake2b(), hashlib.blake2b()

    def body() -> Iterator[bytes]:
        yield form(("files[0].path", b"large"), ("files[0].file", b""), closed=False)[:-2]
        for piece in large_pieces(size):
            sent.update(piece)
            yield piece
        yield f"\r\n--{BOUNDARY}--\r\n".encode()

    headers = {DOOR_HEADER: SECRET, "Content-Type": FORM, "Transfer-Encoding": "chunked"}
    daemon._connection.request("POST", "/files/bulk-upload", body(), headers, encode_chunked=True)
    assert Answer(daemon._connection.getresponse()).json["files"] == [{"path": "large", "bytes": size}]
    daemon._connection.request("GET", path("/download", path="large"), headers={DOOR_HEADER: SECRET})
    response = daemon._connection.getresponse()
    while chunk := response.read(1 << 20):
        received.update(chunk)
    assert received.digest() == sent.digest()
    daemon._connection.request("POST", "/files/bulk-download", '{"paths": ["large"]}', {DOOR_HEADER: SECRET})
    response = daemon._connection.getresponse()
    total = 0
    while chunk := response.read(1 << 20):
        total += len(chunk)
    assert size < total < size + 1000
    assert peak_kib(daemon) < PEAK_KIB


def test_a_file_of_200_mb_goes_up_and_down_in_little_memory(daemon: Daemon, home: Path) -> None:
    there_and_back(daemon, home, 200_000_000)


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_file_of_2_gb_goes_up_and_down_in_little_memory(daemon: Daemon, home: Path) -> None:
    there_and_back(daemon, home, 2_000_000_000)


def test_many_at_once_stay_within_memory_threads_and_descriptors(daemon: Daemon, home: Path) -> None:
    daemon.get("/files")
    before = descriptors(daemon)

    def work(number: int) -> None:
        client = daemon.client()
        content = noise(3_000_000 + number)
        assert upload(client, UPLOADS[number % 3], f"f{number}", content).status == 200
        assert client.get(path("/download", path=f"f{number}")).body == content

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(home.iterdir())) == 12
    assert len(os.listdir(f"/proc/{daemon.process.pid}/task")) <= 1 + 4
    assert peak_kib(daemon) < PEAK_KIB * 2
    daemon.close()
    eventually(lambda: descriptors(daemon) <= before)
