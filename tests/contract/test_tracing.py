"""One trace from a program that uses the newest Python SDK with tracing on, through the proxy, into its sandbox."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.contract.programs import CLIENTS, run_program
from tests.contract.running import Instance
from tests.otlp import RecordingCollector, attributes, running_collector
from tests.ports import kept_port

pytestmark = pytest.mark.sdk

CLIENT, SERVER = 3, 2


def test_a_call_of_the_sdk_and_what_the_sandbox_does_for_it_are_one_trace(sandyard: Instance, folder: Path) -> None:
    # The port is one of sandboxes without a network of their own, too.
    with running_collector() as collector, kept_port() as port:
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url.rstrip("/"), "COLLECTOR_PORT": str(port)}
        command = [sys.executable, str(CLIENTS / "python" / "traced.py")]
        transcript = run_program(command, sandyard, folder, environment=environment)
        assert transcript.exit_code == 0, transcript
        asked = calls_of(collector)
    trace_id, sandbox_id, *posts = transcript.text.splitlines()
    groups = [group for post in posts for group in json.loads(post)["resourceSpans"]]
    assert {attributes(group["resource"])["service.name"] for group in groups} == {f"sandbox-{sandbox_id}"}
    spans = [span for group in groups for scope in group["scopeSpans"] for span in scope["spans"]]
    (served,) = [span for span in spans if span["traceId"] == trace_id]
    assert (served["name"], served["kind"]) == ("POST /process/execute", SERVER)
    call = asked[served["parentSpanId"]]
    assert (call.kind, call.trace_id.hex()) == (CLIENT, trace_id)
    assert call.start_time_unix_nano < int(served["startTimeUnixNano"]), "one machine, one clock"
    assert int(served["startTimeUnixNano"]) < call.end_time_unix_nano, "which the SDK takes when the answer begins"


def calls_of(collector: RecordingCollector) -> dict[str, Any]:
    """The SDK's spans by their ids; it posts them as protocol buffers."""
    bodies = [body for path, _, body in collector.posts if path == "/base/v1/traces"]
    groups = [group for body in bodies for group in ExportTraceServiceRequest.FromString(body).resource_spans]
    return {span.span_id.hex(): span for group in groups for scope in group.scope_spans for span in scope.spans}
