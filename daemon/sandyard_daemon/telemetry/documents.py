"""The OTLP documents: what is measured, what was logged and what was asked, with who says so."""

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sandyard_daemon import VERSION
from sandyard_daemon.system.metrics import Metrics
from sandyard_daemon.telemetry.spans import Span

EXTRA_LABELS = "DAYTONA_SANDBOX_OTEL_EXTRA_LABELS"
_LABELS = {
    "DAYTONA_SANDBOX_ID": "daytona.sandbox.id",
    "DAYTONA_SANDBOX_SNAPSHOT": "daytona.sandbox.snapshot",
    "DAYTONA_ORGANIZATION_ID": "daytona.organization.id",
    "DAYTONA_REGION_ID": "daytona.region.id",
}
_SCOPE = {"name": "sandyard-daemon", "version": VERSION}
_INFO, _ERROR = 9, 17
_SERVER_SPAN = 2
_STATUS_ERROR = 2
_SAMPLED, _ORIGIN_KNOWN, _PARENT_IS_REMOTE = 0x1, 0x100, 0x200


class Line(NamedTuple):
    """One line of the log."""

    text: str
    is_error: bool
    at: int
    """Nanoseconds since the epoch."""


def resource(variables: Mapping[str, str]) -> dict[str, Any]:
    """Who speaks: the sandbox, with the labels it was given."""
    labels = {"service.name": f"sandbox-{variables.get('DAYTONA_SANDBOX_ID', '')}"}
    labels |= {label: variables[name] for name, label in _LABELS.items() if variables.get(name)}
    for pair in variables.get(EXTRA_LABELS, "").split(","):
        name, equals, value = pair.partition("=")
        if equals and name.strip():
            labels[name.strip()] = value.strip()
    return {"attributes": [_attribute(name, value) for name, value in labels.items()]}


def metrics_document(who: dict[str, Any], seen: Metrics) -> dict[str, Any]:
    """`/v1/metrics`: gauges."""
    at = str(time.time_ns())
    gauges: list[tuple[str, str, float]] = [
        ("cpu.limit", "{cpu}", seen.cpu_limit),
        ("cpu.utilization", "%", seen.cpu_used_percent),
        ("memory.limit", "By", seen.memory_total),
        ("memory.usage", "By", seen.memory_used),
        ("memory.utilization", "%", _percent(seen.memory_used, seen.memory_total)),
        ("filesystem.total", "By", seen.disk_total),
        ("filesystem.usage", "By", seen.disk_used),
        ("filesystem.available", "By", seen.disk_free),
        ("filesystem.utilization", "%", _percent(seen.disk_used, seen.disk_total)),
    ]
    made = [
        {
            "name": f"daytona.sandbox.{name}",
            "unit": unit,
            "gauge": {"dataPoints": [{"timeUnixNano": at, "asDouble": float(value)}]},
        }
        for name, unit, value in gauges
    ]
    return {"resourceMetrics": [{"resource": who, "scopeMetrics": [{"scope": _SCOPE, "metrics": made}]}]}


def logs_document(who: dict[str, Any], lines: Sequence[Line]) -> dict[str, Any]:
    """`/v1/logs`: a record for each line."""
    records = [
        {
            "timeUnixNano": str(line.at),
            "observedTimeUnixNano": str(line.at),
            "severityNumber": _ERROR if line.is_error else _INFO,
            "severityText": "ERROR" if line.is_error else "INFO",
            "body": {"stringValue": line.text},
            "attributes": [_attribute("log.iostream", "stderr" if line.is_error else "stdout")],
        }
        for line in lines
    ]
    return {"resourceLogs": [{"resource": who, "scopeLogs": [{"scope": _SCOPE, "logRecords": records}]}]}


def spans_document(who: dict[str, Any], spans: Sequence[Span]) -> dict[str, Any]:
    """`/v1/traces`: a server's span for each request."""
    made = [_span(span) for span in spans]
    return {"resourceSpans": [{"resource": who, "scopeSpans": [{"scope": _SCOPE, "spans": made}]}]}


def _span(span: Span) -> dict[str, Any]:
    told = {
        "traceId": span.trace_id,
        "spanId": span.span_id,
        "flags": _SAMPLED | _ORIGIN_KNOWN,
        "name": span.name,
        "kind": _SERVER_SPAN,
        "startTimeUnixNano": str(span.started),
        "endTimeUnixNano": str(span.ended),
        "attributes": [_attribute(name, value) for name, value in span.attributes.items()],
        "status": {"code": _STATUS_ERROR} if span.is_error else {},
    }
    if span.parent is not None:
        told |= {"parentSpanId": span.parent.span_id, "flags": _SAMPLED | _ORIGIN_KNOWN | _PARENT_IS_REMOTE}
        if span.parent.state:
            told["traceState"] = span.parent.state
    return told


def _attribute(name: str, value: str | int) -> dict[str, Any]:
    return {"key": name, "value": {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value}}


def _percent(part: int, whole: int) -> float:
    return round(100 * part / whole, 2) if whole else 0.0
