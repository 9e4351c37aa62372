"""Telemetry: off without an endpoint, metrics and log lines with one, a collector that fails does no harm."""

import os
import signal
import socket
from collections.abc import Iterator

import pytest

from sandyard_daemon.telemetry.exporter import MAX_LINE, Splitter
from sandyard_daemon.wire import LogFrame, Stream
from tests.daemon.conftest import Daemon, Starter, eventually
from tests.otlp import RecordingCollector, attributes, running_collector

GAUGES = {
    f"daytona.sandbox.{name}"
    for name in (
        "cpu.limit",
        "cpu.utilization",
        "memory.limit",
        "memory.usage",
        "memory.utilization",
        "filesystem.total",
        "filesystem.usage",
        "filesystem.available",
        "filesystem.utilization",
    )
}


@pytest.fixture
def collector() -> Iterator[RecordingCollector]:
    with running_collector() as made:
        yield made


def test_metrics_and_the_entrypoints_lines_are_sent_after_init(
    start_daemon: Starter, collector: RecordingCollector
) -> None:
    daemon = start_daemon(
        "sh",
        "-c",
        "echo one; echo two >&2; printf 'no newline'",
        DAYTONA_OTEL_ENDPOINT=collector.url,
        DAYTONA_SANDBOX_OTEL_EXTRA_LABELS="team=blue,odd, x = y ",
        OTEL_METRIC_EXPORT_INTERVAL="50",
    )
    assert daemon.get("/version").status == 200
    assert collector.posts == []
    assert daemon.post("/init", {"token": "secret-token"}).status == 200
    eventually(lambda: len(collector.of("/base/v1/metrics")) >= 2)
    _, token, body = collector.of("/base/v1/metrics")[0]
    assert token == "secret-token"
    (group,) = body["resourceMetrics"]
    told = attributes(group["resource"])
    assert told["service.name"] == "sandbox-sandbox-of-this-test"
    assert (told["team"], told["x"]) == ("blue", "y")
    metrics = group["scopeMetrics"][0]["metrics"]
    assert {metric["name"] for metric in metrics} == GAUGES
    assert all(metric["gauge"]["dataPoints"][0]["asDouble"] >= 0 for metric in metrics)
    eventually(lambda: len(collector.lines()) == 3)
    assert sorted(collector.lines()) == [("ERROR", "two"), ("INFO", "no newline"), ("INFO", "one")]


def test_an_endpoint_that_comes_with_the_claim_of_a_warm_sandbox_counts(
    start_daemon: Starter, collector: RecordingCollector
) -> None:
    daemon = start_daemon(OTEL_BSP_SCHEDULE_DELAY="1")
    variables = {"DAYTONA_OTEL_ENDPOINT": collector.url, "DAYTONA_ORGANIZATION_ID": "whose-it-is"}
    assert daemon.post("/env", {"set": {"OTHER": "1"}}).status == 200
    assert daemon.post("/init", {"token": "t"}).status == 200
    assert daemon.post("/env", {"set": variables}).status == 200
    eventually(lambda: collector.of("/base/v1/metrics"))
    _, token, body = collector.of("/base/v1/metrics")[0]
    assert token == "t"
    assert attributes(body["resourceMetrics"][0]["resource"])["daytona.organization.id"] == "whose-it-is"
    assert daemon.get("/version").status == 200
    eventually(collector.spans)  # the second that a daemon takes for its last ones may be too little
    end(daemon)
    # A daemon that ends before it hears that a span was taken sends that span again.
    assert [name for _, name in {(span["spanId"], span["name"]) for span in collector.spans()}] == ["GET /version"]


def test_before_init_nothing_is_sent(start_daemon: Starter, collector: RecordingCollector) -> None:
    daemon = start_daemon()
    assert daemon.post("/env", {"set": {"DAYTONA_OTEL_ENDPOINT": collector.url}}).status == 200
    assert daemon.get("/version").status == 200
    end(daemon)
    assert collector.posts == []


def test_init_again_changes_the_token(start_daemon: Starter, collector: RecordingCollector) -> None:
    daemon = start_daemon(DAYTONA_OTEL_ENDPOINT=collector.url, OTEL_METRIC_EXPORT_INTERVAL="50")
    for token in ("first", "second"):
        assert daemon.post("/init", {"token": token}).status == 200
        eventually(lambda token=token: collector.posts and collector.posts[-1][1] == token)  # type: ignore[misc]


def test_lines_survive_a_collector_that_fails_for_a_while(start_daemon: Starter, collector: RecordingCollector) -> None:
    collector.statuses = [503, 503]
    daemon = start_daemon("echo", "kept", DAYTONA_OTEL_ENDPOINT=collector.url)
    assert daemon.post("/init", {}).status == 200
    eventually(lambda: collector.lines() == [("INFO", "kept")])


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        ("collector:4318", "no http:// or https:// URL"),
        ("http://[bad", "no URL"),
    ],
)
def test_an_endpoint_that_cannot_be_used_is_said_once_and_does_no_harm(
    start_daemon: Starter, endpoint: str, said: str
) -> None:
    daemon = start_daemon("echo", "hello", DAYTONA_OTEL_ENDPOINT=endpoint)
    for _ in range(2):
        assert daemon.post("/init", {"token": "secret-token"}).status == 200
    assert daemon.execute("echo works").json["result"] == "works\n"
    assert end(daemon).count(said) == 1


def test_a_collector_that_refuses_is_said_once_for_each_kind(
    start_daemon: Starter, collector: RecordingCollector
) -> None:
    collector.statuses = [400] * 100_000  # until both kinds were refused: which begins, and when, is not said
    daemon = start_daemon("echo", "lost", DAYTONA_OTEL_ENDPOINT=collector.url, OTEL_METRIC_EXPORT_INTERVAL="20")
    assert daemon.post("/init", {"token": "secret-token"}).status == 200
    said = hear(daemon, "path='/v1/metrics'", "path='/v1/logs'")
    left = len(collector.statuses)
    eventually(lambda: len(collector.statuses) < left - 3)
    collector.statuses = []
    eventually(lambda: collector.of("/base/v1/metrics"))
    assert collector.lines() == [], "what is refused for good is not sent again"
    said += end(daemon)
    assert said.count("telemetry_failed path='/v1/metrics'") == 1
    assert said.count("telemetry_failed path='/v1/logs'") == 1


def test_posts_share_a_connection_and_survive_its_end(start_daemon: Starter) -> None:
    with running_collector() as collector:
        daemon = start_daemon(DAYTONA_OTEL_ENDPOINT=collector.url, OTEL_METRIC_EXPORT_INTERVAL="20")
        assert daemon.post("/init", {}).status == 200
        eventually(lambda: len(collector.posts) >= 10)
        assert collector.connections <= 2, "logs and metrics may begin at the same moment"
        collector.is_hasty = True
        before = len(collector.posts)
        eventually(lambda: len(collector.posts) >= before + 5)
        assert "telemetry_failed" not in end(daemon)


PATIENT_END = {
    "sandyard_daemon.service.SHUTDOWN_SECONDS": 600,
    "sandyard_daemon.sessions.supervisor._USUAL_ENDING": ((signal.SIGTERM.value, 60), (signal.SIGKILL.value, 20)),
    "sandyard_daemon.telemetry.exporter.FLUSH_SECONDS": 60,
}
"""For a program that gets no processor time when it is told to end."""


def test_the_last_lines_and_requests_are_sent_when_the_daemon_ends(
    start_daemon: Starter, collector: RecordingCollector
) -> None:
    # Its shell is dead before it has said that: this was taken for the end of its output.
    program = "exec 2>/dev/null; trap 'sleep 4; echo bye; exit' TERM; echo hello; sleep 30 & wait"
    daemon = start_daemon("sh", "-c", program, constants=PATIENT_END, DAYTONA_OTEL_ENDPOINT=collector.url)
    assert daemon.post("/init", {}).status == 200
    eventually(lambda: collector.lines() == [("INFO", "hello")])
    assert daemon.get("/version").status == 200
    said = end(daemon)
    assert collector.lines() == [("INFO", "hello"), ("INFO", "bye")], said
    assert [span["name"] for span in collector.spans()] == ["GET /version"]


def test_a_collector_that_never_answers_does_not_keep_a_daemon_from_ending(start_daemon: Starter) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        patience = {"sandyard_daemon.telemetry.collector.POST_SECONDS": 600}
        daemon = start_daemon("echo", "hello", constants=patience, DAYTONA_OTEL_ENDPOINT=endpoint)
        assert daemon.post("/init", {}).status == 200
        assert daemon.get("/version").status == 200
        assert "spans_dropped count=1" in end(daemon)


def hear(daemon: Daemon, *words: str) -> str:
    """What the daemon wrote to its own log, once it holds all these words."""
    assert daemon.process.stderr is not None
    text = ""
    while not all(word in text for word in words):
        piece = os.read(daemon.process.stderr.fileno(), 65536)  # past the file's buffer, which `communicate` passes too
        assert piece, text
        text += piece.decode()
    return text


def end(daemon: Daemon) -> str:
    """What the daemon wrote to its own log, once it ended."""
    daemon.process.terminate()
    text = daemon.process.communicate(timeout=60)[1].decode()
    assert "secret-token" not in text
    return text


def test_without_an_endpoint_nothing_of_it_is_loaded(daemon: Daemon) -> None:
    assert daemon.post("/init", {"token": "t"}).status == 200
    assert end(daemon).count("telemetry") == 0


def test_lines_are_cut_where_they_end_and_a_long_one_in_pieces() -> None:
    splitter = Splitter()
    taken = list(splitter.take(LogFrame(0, Stream.STDOUT, b"a\n\nb")))
    assert [line.text for line in taken] == ["a", ""]
    assert list(splitter.take(LogFrame(4, Stream.STDERR, b"e"))) == []
    taken = list(splitter.take(LogFrame(5, Stream.STDOUT, b"x" * (2 * MAX_LINE) + b"\n")))
    assert [len(line.text) for line in taken] == [MAX_LINE, MAX_LINE, 1]
    taken = list(splitter.take(LogFrame(6, Stream.STDOUT, b"y" * (MAX_LINE + 5))))
    assert [len(line.text) for line in taken] == [MAX_LINE]
    rest = list(splitter.take(LogFrame(7, Stream.END, b"")))
    assert [(line.text, line.is_error) for line in rest] == [("y" * 5, False), ("e", True)]
