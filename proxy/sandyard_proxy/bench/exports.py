"""The journal for other tools: curl, HAR, a pytest skeleton, and which operations a run touched."""

import json
import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl

from sandyard_proxy.bench.journal import Record, text_of

SKIPPED_HEADERS = frozenset(
    ("host", "content-length", "connection", "accept-encoding", "authorization", "user-agent", "accept")
)
_NOT_A_NAME = re.compile(r"\W+")


def as_curl(records: Iterable[Record]) -> str:
    """A shell script that asks the same again; `DAYTONA_API_URL` and `_KEY` say where."""
    lines = ["#!/bin/sh", 'origin="${DAYTONA_API_URL%/api}"']
    for record in records:
        lines.append(f"# {record.number}: {record.operation or '-'} -> {record.status or 'no answer'}")
        if record.is_websocket:
            lines.append(f"# a WebSocket: {record.path}")
            continue
        parts = ["curl", "-sS", "-X", record.method, "-H", '"Authorization: Bearer $DAYTONA_API_KEY"']
        for name, value in _sent(record).items():
            parts += ["-H", shlex.quote(f"{name}: {value}")]
        if record.request_body:
            parts += ["--data-binary", shlex.quote(text_of(record.request_body))]
        lines.append(" ".join([*parts, f'"$origin"{shlex.quote(record.path)}']))
    return "\n".join(lines) + "\n"


def as_har(records: Iterable[Record], origin: str, version: str) -> dict[str, Any]:
    """HTTP Archive 1.2."""
    return {
        "log": {
            "version": "1.2",
            "creator": {"name": "Sandyard", "version": version},
            "entries": [_har_entry(record, origin) for record in records],
        }
    }


def as_pytest(records: Iterable[Record]) -> str:
    """A test that asks the same, in order, and expects the same statuses; ids of this run are its variables."""
    lines = [
        '"""Made from a journal of Sandyard: a beginning, to be edited."""',
        "",
        "import json",
        "import urllib.error",
        "import urllib.request",
        "",
        "",
        "def call(sandyard_env, method, path, body=None):",
        '    origin = sandyard_env["DAYTONA_API_URL"].removesuffix("/api")',
        '    headers = {"Authorization": "Bearer " + sandyard_env["DAYTONA_API_KEY"]}',
        '    headers |= {"Content-Type": "application/json"} if body is not None else {}',
        "    data = None if body is None else body.encode()",
        "    request = urllib.request.Request(origin + path, data, headers, method=method)",
        "    try:",
        "        with urllib.request.urlopen(request) as answer:",
        "            return answer.status, answer.read()",
        "    except urllib.error.HTTPError as error:",
        "        with error:",
        "            return error.code, error.read()",
        "",
        "",
        "def test_the_same_again(sandyard_env):",
        "    sandboxes = {}",
    ]
    names: dict[str, str] = {}
    for record in records:
        if not record.is_websocket and record.status is not None:
            lines += _pytest_call(record, names)
    return "\n".join([*lines, "    assert sandboxes is not None", ""])


def coverage(records: Iterable[Record], known: Mapping[str, bool]) -> dict[str, Any]:
    """Which operations were asked for, with which statuses, and which of those we have were not."""
    statuses: defaultdict[str, Counter[str]] = defaultdict(Counter)
    errors: defaultdict[str, set[str]] = defaultdict(set)
    other = 0
    for record in records:
        if record.operation is None:
            other += 1
            continue
        statuses[record.operation][str(record.status or "none")] += 1
        if record.status is None or record.status >= 400:
            errors[record.operation].add(_code(record))
    touched = {name: dict(sorted(counts.items())) for name, counts in sorted(statuses.items())}
    built = [name for name, is_built in known.items() if is_built]
    return {
        "operations": len(built),
        "touched": sum(name in touched for name in built),
        "statuses": touched,
        "errors": {name: sorted(codes) for name, codes in sorted(errors.items())},
        "withoutErrors": sorted(name for name in touched if name not in errors),
        "untouched": sorted(name for name in built if name not in touched),
        "other": other,
    }


def _code(record: Record) -> str:
    try:
        return f"{record.status} {json.loads(bytes(record.response_body))['code']}"
    except (ValueError, RecursionError, KeyError, TypeError):
        return str(record.status or "no answer")


def _sent(record: Record) -> dict[str, str]:
    return {name: value for name, value in record.request_headers.items() if name not in SKIPPED_HEADERS}


def _pytest_call(record: Record, names: dict[str, str]) -> list[str]:
    path, body = repr(record.path), repr(text_of(record.request_body)) if record.request_body else "None"
    for sandbox_id, name in names.items():
        path = path.replace(sandbox_id, f"' + sandboxes[\"{name}\"] + '")
    title = _NOT_A_NAME.sub("_", record.operation or "request").lower()
    lines = [
        f"    # {record.number}: {record.operation or 'no operation of the protocol'}",
        f"    status, {'answer' if record.operation == 'createSandbox' else '_'} = call("
        f"sandyard_env, {record.method!r}, {path}, {body})",
        f"    assert status == {record.status}, {title!r}",
    ]
    if record.operation == "createSandbox" and record.status == 200 and record.sandbox:
        names[record.sandbox] = f"sandbox{len(names) + 1}"
        lines.append(f'    sandboxes["{names[record.sandbox]}"] = json.loads(answer)["id"]')
    return lines


def _har_entry(record: Record, origin: str) -> dict[str, Any]:
    query = record.path.partition("?")[2]
    milliseconds = round(record.seconds * 1000, 3)
    entry: dict[str, Any] = {
        "startedDateTime": record.at.isoformat(),
        "time": milliseconds,
        "request": {
            "method": "GET" if record.is_websocket else record.method,
            "url": origin + record.path,
            "httpVersion": "HTTP/1.1",
            "cookies": [],
            "headers": _pairs(record.request_headers.items()),
            "queryString": _pairs(parse_qsl(query, keep_blank_values=True)),
            "headersSize": -1,
            "bodySize": record.request_bytes,
        },
        "response": {
            "status": record.status or 0,
            "statusText": "",
            "httpVersion": "HTTP/1.1",
            "cookies": [],
            "headers": _pairs(record.response_headers.items()),
            "content": {
                "size": record.response_bytes,
                "mimeType": record.response_headers.get("content-type", ""),
                "text": text_of(record.response_body),
            },
            "redirectURL": record.response_headers.get("location", ""),
            "headersSize": -1,
            "bodySize": record.response_bytes,
        },
        "cache": {},
        "timings": {"send": 0, "wait": milliseconds, "receive": 0},
    }
    if record.request_body:
        mime = record.request_headers.get("content-type", "")
        entry["request"]["postData"] = {"mimeType": mime, "text": text_of(record.request_body)}
    return entry


def _pairs(items: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in items]
