"""Downloads through the door: exact bytes, ranges, several files in one answer, clients that go away."""

import http.client
import os
from pathlib import Path

import pytest

from sandyard_daemon.files.reading import Readable
from sandyard_daemon.wire import DOOR_HEADER
from tests.daemon.conftest import SECRET, Answer, Daemon, DoorConnection, eventually
from tests.daemon.files import error_of
from tests.daemon.processes import descriptors
from tests.daemon.test_files import path
from tests.daemon.transfers.uploading import noise


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


def test_a_file_whose_client_went_before_a_thread_came_to_open_it_stays_closed(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    file = Readable(str(tmp_path / "f"))
    file.close()  # on another thread, which was quicker
    with pytest.raises(OSError, match="Bad file descriptor"):
        file.open()
