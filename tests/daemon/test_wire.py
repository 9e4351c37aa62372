"""The parts of the wire that the proxy shares: markers, SDK versions, frames, the table of operations."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandyard_daemon.wire import FrameDecoder, LogFrame, Stream
from sandyard_daemon.wire.markers import MAX_MESSAGE, Demultiplexer, MarkerEncoder, demultiplex
from sandyard_daemon.wire.operations import OPERATIONS
from sandyard_daemon.wire.versions import Caller, LogFormat, parse_release

OPENAPI = Path(__file__).parents[3] / "shared" / "contract" / "openapi" / "toolbox.json"

nasty = st.lists(
    st.sampled_from([b"\1", b"\2", b"\1\1", b"\2\2\2", b"a", "€".encode(), b"\xe2\x82", b"\xff", "😀".encode()[:3]]),
    max_size=12,
).map(b"".join)
writes = st.lists(st.tuples(st.sampled_from([Stream.STDOUT, Stream.STDERR]), nasty), max_size=8)


@given(writes, st.integers(1, 5))
def test_any_bytes_survive_markers_however_the_text_is_cut(parts: list[tuple[Stream, bytes]], size: int) -> None:
    encoder = MarkerEncoder()
    messages = [message for stream, data in parts for message in encoder.feed(stream, data)] + encoder.flush()
    expected = tuple(
        b"".join(data for stream, data in parts if stream is wanted) for wanted in (Stream.STDOUT, Stream.STDERR)
    )
    text = b"".join(messages)
    assert demultiplex(messages) == expected
    assert demultiplex([text[start : start + size] for start in range(0, len(text), size)]) == expected
    assert encoder.held == 0


@given(writes)
def test_every_message_has_a_payload_and_fits(parts: list[tuple[Stream, bytes]]) -> None:
    encoder = MarkerEncoder()
    for message in [message for stream, data in parts for message in encoder.feed(stream, data)] + encoder.flush():
        streams = Demultiplexer()
        assert streams.feed(message) + streams.flush()
        assert len(message) <= MAX_MESSAGE


def test_a_character_waits_for_its_last_byte() -> None:
    encoder = MarkerEncoder()
    assert encoder.feed(Stream.STDOUT, b"a\xe2\x82") == [b"\1\1\1a"]
    assert encoder.held == 2
    assert encoder.feed(Stream.STDERR, b"x") == [b"\2\2\2x"]
    assert encoder.feed(Stream.STDOUT, b"\xac!") == ["\1\1\1€!".encode()]


def test_bytes_that_are_no_utf8_do_not_wait_for_ever() -> None:
    encoder = MarkerEncoder()
    assert encoder.feed(Stream.STDOUT, b"\x80\x80\x80\x80") == [b"\1\1\1\x80\x80\x80\x80"]
    assert encoder.feed(Stream.STDOUT, b"\xf0") == []
    assert encoder.flush() == [b"\1\1\1\xf0"]


@pytest.mark.parametrize(
    ("text", "release"),
    [
        ("0.27.0", (0, 27, 0)),
        ("v0.166.1", (0, 166, 1)),
        ("0.27.0a1", (0, 27, 0)),
        ("0.167.0-alpha.1", (0, 167, 0)),
        ("0.27", (0, 27, 0)),
        ("not a version", None),
        ("", None),
        ("1.2.3.4", None),
    ],
)
def test_versions_are_read_as_their_release(text: str, release: tuple[int, int, int] | None) -> None:
    assert parse_release(text) == release


def caller(version: str | None, **headers: str) -> Caller:
    known = {name.replace("_", "-").lower(): value for name, value in headers.items()}
    if version is not None:
        known["x-daytona-sdk-version"] = version
    return Caller.of(lambda name: known.get(name.lower()))


@pytest.mark.parametrize(
    ("version", "log", "entrypoint", "streams"),
    [
        ("0.26.0", LogFormat.PLAIN, LogFormat.MARKED, False),
        ("0.27.0", LogFormat.MARKED, LogFormat.MARKED, False),
        ("0.160.9", LogFormat.MARKED, LogFormat.MARKED, False),
        ("0.161.0", LogFormat.MARKED, LogFormat.JSON, False),
        ("0.166.0", LogFormat.MARKED, LogFormat.JSON, False),
        ("0.167.0", LogFormat.JSON, LogFormat.JSON, True),
        ("0.0.0-dev", LogFormat.JSON, LogFormat.JSON, True),
        ("mystery", LogFormat.MARKED, LogFormat.MARKED, False),
        (None, LogFormat.PLAIN, LogFormat.PLAIN, True),
    ],
)
def test_each_version_gets_its_form(version: str | None, log: LogFormat, entrypoint: LogFormat, streams: bool) -> None:
    asking = caller(version)
    assert (asking.log_format, asking.entrypoint_log_format, asking.exec_has_streams) == (log, entrypoint, streams)


def test_callers_without_version_choose_by_header() -> None:
    assert caller(None, X_Daytona_Split_Output="true").log_format is LogFormat.MARKED
    assert caller(None, Accept="application/json").log_format is LogFormat.JSON
    assert caller(None, Accept="*/*").log_format is LogFormat.PLAIN


def test_follow_markers_go_to_all_but_the_oldest_and_lone_ones_to_okhttp() -> None:
    assert not caller("0.26.9").follow_has_markers
    assert caller("0.27.0").follow_has_markers
    assert caller(None).follow_has_markers
    assert caller(None, User_Agent="okhttp/4.12.0").follow_wants_lone_marker
    assert not caller(None, User_Agent="curl/8").follow_wants_lone_marker
    assert not caller("0.190.0", User_Agent="okhttp/4.12.0").follow_wants_lone_marker


def test_a_browser_tells_its_version_by_subprotocol() -> None:
    asking = Caller.of(lambda name: None, ["other", "X-Daytona-SDK-Version~0.150.0"])
    assert asking.release == (0, 150, 0)


@pytest.mark.parametrize("source", ["sdk-go", "go-sdk"])
@pytest.mark.parametrize("version", ["v0.136.0", "v0.143.0", "v0.187.0", "v0.188.0"])
def test_go_of_every_release_has_streams_in_a_synchronous_answer(version: str, source: str) -> None:
    assert caller(version, X_Daytona_Source=source).exec_has_streams


def test_go_before_0_159_is_known_by_its_older_name() -> None:
    assert caller("v0.148.0", X_Daytona_Source="go-sdk").decodes_strictly
    assert caller("v0.148.0", X_Daytona_Source="go-sdk").follow_wants_closing_marker
    assert not caller("0.148.0", X_Daytona_Source="sdk-python").follow_wants_closing_marker


def test_go_decodes_strictly_before_0_188() -> None:
    assert caller("v0.143.0", X_Daytona_Source="sdk-go").decodes_strictly
    assert not caller("v0.188.0", X_Daytona_Source="sdk-go").decodes_strictly
    assert not caller("0.143.0", X_Daytona_Source="sdk-python").decodes_strictly


def test_frames_survive_any_cut() -> None:
    frames = [LogFrame(0, Stream.STDOUT, b"ab"), LogFrame(2, Stream.STDERR, b""), LogFrame(2, Stream.END, b"x" * 8)]
    data = b"".join(frame.encode() for frame in frames)
    for size in (1, 5, 100):
        decoder = FrameDecoder()
        assert [f for start in range(0, len(data), size) for f in decoder.feed(data[start : start + size])] == frames


@pytest.mark.skipif(not OPENAPI.exists(), reason="the toolbox's OpenAPI description is not beside this checkout")
def test_the_table_of_operations_is_complete() -> None:
    described = {
        (method.upper(), path, operation["operationId"])
        for path, methods in json.loads(OPENAPI.read_text())["paths"].items()
        for method, operation in methods.items()
    }
    ours = {(row.method, row.path, row.operation_id) for row in OPERATIONS}
    assert described <= ours
    added = {"GetProjectDir", "CreateConnectPtySession", "UploadFileLegacy", "DownloadFileHead"}
    assert {row[2] for row in ours - described} == added
