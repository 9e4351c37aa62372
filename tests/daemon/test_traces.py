"""Traces: a span for each request, its parent from the client, its end with the answer's, and bounds on what waits."""

import base64
import copy
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from sandyard_daemon.http.messages import Headers, Request
from sandyard_daemon.telemetry.spans import MAX_BATCH, MAX_WAITING, Span, SpanQueue, parent_of
from sandyard_daemon.wire import DOOR_HEADER
from tests.contract.wire_client import Refused
from tests.daemon.conftest import SECRET, Daemon, Starter, eventually
from tests.otlp import RecordingCollector, attributes, running_collector

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
ERROR = 2
SERVER = 2


@pytest.fixture
def collector() -> Iterator[RecordingCollector]:
    with running_collector() as made:
        yield made


@pytest.fixture
def traced(start_daemon: Starter, collector: RecordingCollector) -> Daemon:
    """A daemon that sends each span at once."""
    daemon = start_daemon(DAYTONA_OTEL_ENDPOINT=collector.url, OTEL_BSP_SCHEDULE_DELAY="1")
    assert daemon.post("/init", {"token": "of-the-sandbox"}).status == 200
    return daemon


def one(collector: RecordingCollector, name: str) -> Any:
    """The only span of that name, once it came."""
    eventually(lambda: collector.spans(name))
    (span,) = collector.spans(name)
    return span


def test_a_request_is_a_span_in_the_trace_of_who_asked(traced: Daemon, collector: RecordingCollector) -> None:
    before = time.time_ns()
    parent = f"00-{TRACE}-{PARENT}-01"
    answer = traced.ask(
        "POST",
        "/process/session?secret=1",
        {"sessionId": "s"},
        {"traceparent": parent, "tracestate": "a=1,b=2", "User-Agent": "sdk/1"},
    )
    assert answer.status == 201
    span = one(collector, "POST /process/session")
    assert (span["traceId"], span["parentSpanId"], span["traceState"]) == (TRACE, PARENT, "a=1,b=2")
    assert span["kind"] == SERVER
    assert span["flags"] == 0x301, "sampled, and the parent is another process"
    assert span["status"] == {}
    assert before <= int(span["startTimeUnixNano"]) < int(span["endTimeUnixNano"]) < time.time_ns()
    assert attributes(span) == {
        "http.request.method": "POST",
        "http.response.status_code": 201,
        "http.route": "/process/session",
        "url.path": "/process/session",
        "url.scheme": "http",
        "network.protocol.name": "http",
        "network.protocol.version": "1.1",
        "user_agent.original": "sdk/1",
    }
    _, token, body = collector.of("/base/v1/traces")[0]
    assert token == "of-the-sandbox"
    assert attributes(body["resourceSpans"][0]["resource"])["service.name"] == "sandbox-sandbox-of-this-test"


def test_what_is_posted_is_what_the_protocol_defines(traced: Daemon, collector: RecordingCollector) -> None:
    traced.get("/version", traceparent=f"00-{TRACE}-{PARENT}-01", tracestate="a=1")
    traced.get("/nowhere")
    one(collector, "GET /version")
    one(collector, "GET")
    for _, _, body in collector.of("/base/v1/traces"):
        parsed = json_format.ParseDict(with_base64_ids(body), ExportTraceServiceRequest())
        for span in parsed.resource_spans[0].scope_spans[0].spans:
            assert (len(span.trace_id), len(span.span_id)) == (16, 8)


def with_base64_ids(body: Any) -> Any:
    """OTLP writes ids in hexadecimal where JSON of protocol buffers has base64. *Source:* OTLP 1.x, JSON encoding."""
    made = copy.deepcopy(body)
    for span in made["resourceSpans"][0]["scopeSpans"][0]["spans"]:
        for name in {"traceId", "spanId", "parentSpanId"} & set(span):
            span[name] = base64.b64encode(bytes.fromhex(span[name])).decode()
    return made


def test_a_route_is_its_form_and_not_its_values(traced: Daemon, collector: RecordingCollector) -> None:
    traced.session("mine")
    traced.run("echo here", "mine")
    traced.get("/process/session/mine")
    assert attributes(one(collector, "POST /process/session/{sessionId}/exec"))["url.path"] == (
        "/process/session/mine/exec"
    )
    assert attributes(one(collector, "GET /process/session/{sessionId}"))["http.response.status_code"] == 200


def test_without_a_parent_a_request_begins_a_trace_of_its_own(traced: Daemon, collector: RecordingCollector) -> None:
    for _ in range(2):
        traced.get("/version")
    eventually(lambda: len(collector.spans("GET /version")) == 2)
    spans = collector.spans()
    assert all("parentSpanId" not in span for span in spans)
    assert len({span["traceId"] for span in spans} | {span["spanId"] for span in spans}) == 4


def test_who_does_not_record_a_trace_is_not_recorded(traced: Daemon, collector: RecordingCollector) -> None:
    traced.get("/version", traceparent=f"00-{TRACE}-{PARENT}-00")
    traced.get("/work-dir", traceparent=f"00-{TRACE}-{PARENT}-01")
    one(collector, "GET /work-dir")
    assert collector.spans("GET /version") == []


@pytest.mark.parametrize(
    ("method", "path", "name", "status", "kind"),
    [
        ("GET", "/process/session/none", "GET /process/session/{sessionId}", 404, None),
        ("GET", "/nowhere", "GET", 404, None),
        ("PATCH", "/version", "PATCH", 405, None),
        ("POST", "/computeruse/start", "POST /computeruse/start", 501, "501"),
        ("GET", "/proxy/1/deep/path?q=1", "GET /proxy/{port}/{*}", 502, "502"),
        ("SHOUT", "/version", "HTTP", 405, None),
    ],
)
def test_an_error_is_the_spans_when_it_is_ours(
    traced: Daemon, collector: RecordingCollector, method: str, path: str, name: str, status: int, kind: str | None
) -> None:
    assert traced.ask(method, path).status == status
    span = one(collector, name)
    told = attributes(span)
    assert told["http.response.status_code"] == status
    assert told.get("error.type") == kind
    assert span["status"] == ({} if kind is None else {"code": ERROR})
    assert told["http.request.method"] == ("_OTHER" if method == "SHOUT" else method)
    assert told.get("http.request.method_original") == ("SHOUT" if method == "SHOUT" else None)


def test_a_request_with_the_wrong_secret_is_a_span_too(traced: Daemon, collector: RecordingCollector) -> None:
    assert traced.ask("GET", "/version", headers={DOOR_HEADER: "guess"}).status == 401
    assert attributes(one(collector, "GET"))["http.response.status_code"] == 401
    assert SECRET not in str(collector.posts)


def test_a_stream_is_a_span_that_ends_with_it(traced: Daemon, collector: RecordingCollector) -> None:
    assert traced.ask("POST", "/files/upload-v2?path=big", bytes(8 << 20)).status == 200
    reader = traced.raw(f"GET /files/download?path=big HTTP/1.1\r\nHost: x\r\n{DOOR_HEADER}: {SECRET}\r\n\r\n".encode())
    assert reader.recv(100).startswith(b"HTTP/1.1 200")
    traced.get("/version")
    one(collector, "GET /version")
    assert collector.spans("GET /files/download") == [], "most of it is still to be read"
    left = 8 << 20
    while left > 0:
        left -= len(reader.recv(1 << 20))
    span = one(collector, "GET /files/download")
    assert span["status"] == {}
    assert attributes(span)["http.response.status_code"] == 200


def test_an_answer_that_its_client_does_not_take_is_an_error(traced: Daemon, collector: RecordingCollector) -> None:
    assert traced.ask("POST", "/files/upload-v2?path=big", bytes(8 << 20)).status == 200
    head = f"GET /files/download?path=big HTTP/1.1\r\nHost: x\r\n{DOOR_HEADER}: {SECRET}\r\n\r\n"
    reader = traced.raw(head.encode())
    reader.recv(100)
    reader.close()
    waiting = traced.raw_post("/process/execute", b'{"command": "sleep 12341"}')  # like no other test's
    eventually(lambda: "sleep 12341" in traced.execute("cat /proc/*/cmdline | tr '\\0' ' '").json["result"])
    waiting.shutdown(socket.SHUT_RDWR)
    cut = one(collector, "GET /files/download")
    assert attributes(cut)["error.type"] == "client_gone"
    assert attributes(cut)["http.response.status_code"] == 200
    eventually(lambda: [span for span in collector.spans("POST /process/execute") if span["status"]])
    (left,) = [span for span in collector.spans("POST /process/execute") if span["status"]]
    assert attributes(left)["error.type"] == "client_gone"
    assert "http.response.status_code" not in attributes(left), "it came to none"


def test_asking_for_a_head_alone_is_no_error(traced: Daemon, collector: RecordingCollector) -> None:
    assert traced.ask("POST", "/files/upload-v2?path=some", b"some").status == 200
    assert traced.ask("HEAD", "/files/download?path=some").status == 200
    assert one(collector, "HEAD /files/download")["status"] == {}


@pytest.mark.parametrize("is_polite", [True, False])
def test_a_websocket_is_a_span_that_ends_with_it(
    traced: Daemon, collector: RecordingCollector, is_polite: bool
) -> None:
    path = "/process/pty/create-connect?id=t"
    terminal = traced.websocket(path, headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
    next(terminal.messages())
    traced.get("/version")
    one(collector, "GET /version")
    assert collector.spans("GET /process/pty/create-connect") == []
    if is_polite:
        terminal.send("exit\n")
        list(terminal.messages())
    else:
        terminal.cut()
    span = one(collector, "GET /process/pty/create-connect")
    assert (span["traceId"], span["status"]) == (TRACE, {})
    assert attributes(span)["http.response.status_code"] == 101


def test_a_websocket_that_is_refused_has_the_status_of_that(traced: Daemon, collector: RecordingCollector) -> None:
    with pytest.raises(Refused):
        traced.websocket("/process/pty/none/connect")
    span = one(collector, "GET /process/pty/{sessionId}/connect")
    assert attributes(span)["http.response.status_code"] == 404


def test_what_runner_and_proxy_ask_for_themselves_is_not_told(traced: Daemon, collector: RecordingCollector) -> None:
    assert traced.get("/_daemon/health").status == 200
    traced.get("/version")
    one(collector, "GET /version")
    assert [span["name"] for span in collector.spans()] == ["GET /version"]


def test_spans_wait_for_others_and_are_posted_together(start_daemon: Starter, collector: RecordingCollector) -> None:
    daemon = start_daemon(DAYTONA_OTEL_ENDPOINT=collector.url, OTEL_BSP_SCHEDULE_DELAY="60000")
    assert daemon.post("/init", {}).status == 200
    for _ in range(MAX_BATCH):
        daemon.get("/version")
    eventually(lambda: len(collector.spans()) == MAX_BATCH)
    assert len(collector.of("/base/v1/traces")) == 1


def test_a_collector_that_is_gone_costs_no_request_and_what_is_lost_is_counted(start_daemon: Starter) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        daemon = start_daemon(DAYTONA_OTEL_ENDPOINT=endpoint, OTEL_BSP_SCHEDULE_DELAY="1")
        assert daemon.post("/init", {}).status == 200
        asked = MAX_BATCH + MAX_WAITING + 100
        for _ in range(asked):
            assert daemon.get("/version").status == 200
        daemon.process.terminate()
        said = daemon.process.communicate(timeout=60)[1].decode()
    assert f"spans_dropped count={asked} total={asked}" in said


def test_spans_survive_a_collector_that_fails_for_a_while(traced: Daemon, collector: RecordingCollector) -> None:
    eventually(lambda: collector.of("/base/v1/metrics"))
    collector.statuses = [503, 503]
    traced.get("/version")
    one(collector, "GET /version")


def test_spans_that_are_refused_are_counted(start_daemon: Starter, collector: RecordingCollector) -> None:
    daemon = start_daemon(DAYTONA_OTEL_ENDPOINT=collector.url, OTEL_BSP_SCHEDULE_DELAY="1")
    assert daemon.post("/init", {}).status == 200
    eventually(lambda: collector.of("/base/v1/metrics"))
    collector.statuses = [404]
    daemon.get("/version")
    eventually(lambda: not collector.statuses)
    daemon.get("/work-dir")
    one(collector, "GET /work-dir")
    daemon.process.terminate()
    said = daemon.process.communicate(timeout=60)[1].decode()
    assert said.count("spans_dropped count=1 total=1") == 1


class NoBody:
    """A request that has none."""

    chunks = take_over = None


def parent(*headers: tuple[str, str]) -> tuple[str, str, bool, str] | None:
    encoded: Headers = [(name.encode(), value.encode()) for name, value in headers]
    return parent_of(Request("GET", "/", encoded, NoBody()))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "is_sampled"),
    [
        (f"00-{TRACE}-{PARENT}-01", True),
        (f"00-{TRACE}-{PARENT}-00", False),
        (f"00-{TRACE}-{PARENT}-ff", True),
        (f"01-{TRACE}-{PARENT}-01", True),
        (f"cc-{TRACE}-{PARENT}-01-what-the-future-adds", True),
    ],
)
def test_a_valid_parent(value: str, is_sampled: bool) -> None:
    assert parent(("traceparent", value)) == (TRACE, PARENT, is_sampled, "")


@pytest.mark.parametrize(
    "value",
    [
        "",
        "00",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01-more",
        f"01-{TRACE}-{PARENT}-01more",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-0",
        f"00-{TRACE}-{PARENT}",
        f"00-{TRACE}x-{PARENT}-01",
    ],
)
def test_an_invalid_parent_is_none(value: str) -> None:
    assert parent(("traceparent", value)) is None


def test_two_parents_are_none_and_states_are_joined_within_a_bound() -> None:
    valid = ("traceparent", f"00-{TRACE}-{PARENT}-01")
    assert parent(valid, valid) is None
    assert parent() is None
    assert parent(valid, ("tracestate", "a=1"), ("tracestate", "b=2")) == (TRACE, PARENT, True, "a=1,b=2")
    assert parent(valid, ("tracestate", "a=" + "x" * 512)) == (TRACE, PARENT, True, "")


async def test_a_queue_is_bounded_and_gives_the_oldest_first() -> None:
    queue = SpanQueue()
    for number in range(MAX_WAITING + 3):
        queue.add(Span("", "", None, str(number), 0, 0, {}, is_error=False))
    assert queue.dropped == 3
    assert [span.name for span in await queue.batch(60)] == [str(number) for number in range(MAX_BATCH)]
    while queue.take():
        pass
    queue.add(Span("", "", None, "later", 0, 0, {}, is_error=False))
    assert [span.name for span in await queue.batch(0.001)] == ["later"]
