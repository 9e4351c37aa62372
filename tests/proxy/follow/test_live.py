"""The shared window of the newest bytes: gapless, bounded, readable from any position inside."""

import pytest

from sandyard_daemon.wire import LogFrame, Stream
from sandyard_proxy.follow.live import MAX_FRAMES, LiveWindow, from_offset, join_adjacent, up_to

OUT, ERR = Stream.STDOUT, Stream.STDERR


def read(window: LiveWindow, position: int) -> bytes:
    """Everything from a position to the end, as a follower takes it."""
    data = b""
    while taken := window.take(position + len(data)):
        data += b"".join(frame.payload for frame in taken)
    return data


def test_bytes_are_read_from_any_position_inside() -> None:
    window = LiveWindow()
    for frame in (LogFrame(5, OUT, b"abc"), LogFrame(8, ERR, b"de"), LogFrame(10, OUT, b"f")):
        assert window.add(frame)
    assert [read(window, position) for position in (5, 7, 8, 10)] == [b"abcdef", b"cdef", b"def", b"f"]
    assert read(window, 4) == read(window, 11) == b""


def test_repetitions_and_overlaps_bring_nothing_twice() -> None:
    window = LiveWindow()
    window.add(LogFrame(0, OUT, b"abcd"))
    assert not window.add(LogFrame(0, OUT, b"abcd"))
    assert not window.add(LogFrame(1, OUT, b"b"))
    assert window.add(LogFrame(2, OUT, b"cdef"))
    assert read(window, 0) == b"abcdef"


def test_behind_a_gap_the_window_begins_anew() -> None:
    window = LiveWindow()
    window.add(LogFrame(0, OUT, b"old"))
    window.add(LogFrame(9, OUT, b"new"))
    assert (window.start, window.end) == (9, 12)
    assert read(window, 0) == b""
    assert not window.add(LogFrame(3, OUT, b"late"))


def test_the_window_is_bounded_in_bytes() -> None:
    window = LiveWindow(max_bytes=100_000)
    for number in range(200):
        window.add(LogFrame(number * 5_000, OUT if number % 2 else ERR, bytes([number]) * 5_000))
        assert window.end - (window.start or 0) <= 105_000
    assert window.end == 1_000_000
    assert window.start is not None
    assert read(window, window.start)[-5_000:] == bytes([199]) * 5_000


def test_the_window_is_bounded_in_frames_and_small_ones_are_joined() -> None:
    window = LiveWindow()
    for number in range(3 * MAX_FRAMES):
        window.add(LogFrame(number, OUT if number % 2 else ERR, b"x"))
    assert window.end - (window.start or 0) <= MAX_FRAMES
    joined = LiveWindow()
    for number in range(1000):
        joined.add(LogFrame(number, OUT, b"x"))
    assert len(joined.take(0)) == 1


@pytest.mark.parametrize(("position", "rest"), [(0, b"abc"), (3, b"abc"), (4, b"bc"), (6, None), (9, None)])
def test_a_frame_is_cut_at_its_beginning(position: int, rest: bytes | None) -> None:
    cut = from_offset(LogFrame(3, OUT, b"abc"), position)
    assert (cut and cut.payload) == rest
    assert cut is None or cut.offset == max(3, position)


@pytest.mark.parametrize(("end", "rest"), [(3, None), (4, b"a"), (6, b"abc"), (9, b"abc"), (0, None)])
def test_a_frame_is_cut_at_the_end(end: int, rest: bytes | None) -> None:
    cut = up_to(LogFrame(3, OUT, b"abc"), end)
    assert (cut and cut.payload) == rest


def test_adjacent_frames_of_a_stream_become_one() -> None:
    frames = [LogFrame(0, OUT, b"a"), LogFrame(1, OUT, b"b"), LogFrame(2, ERR, b"c"), LogFrame(3, OUT, b"d")]
    assert join_adjacent(frames) == [LogFrame(0, OUT, b"ab"), LogFrame(2, ERR, b"c"), LogFrame(3, OUT, b"d")]
    assert join_adjacent([]) == []
