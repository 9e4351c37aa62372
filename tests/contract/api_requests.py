"""Requests about things that are there, right in everything, or in all but one value that layers below choke on."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from hypothesis import strategies as st

from tests.contract.api_seeds import KINDS, PLAIN, VARIANTS, Seeds

DEEP: Any = json.loads("[" * 300 + "]" * 300)
NASTY: list[Any] = [
    *("", " ", "\x00", "a\x00b", "\ud800", "\udfff\ud800", "\U0001f600", "\u202e\ufeff", "x" * 70_000, "a\r\nb: c"),
    *("../../../etc/passwd", "%00", "%2e%2e%2f", "' OR 1=1 --", "{{7*7}}", "${jndi:x}", "<script>", "null", "NaN"),
    *("0000-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "10000-01-01T00:00:00Z"),
    *("2026-02-30T00:00:00Z", "1e400", "0x10", "٣", "1_000", "-0"),
    *(0, -1, 1, 2**31 - 1, 2**31, -(2**31) - 1, 2**53 + 1, 2**63, -(2**63) - 1, 2**64, 10**400, 1.5, 1e308, -1e308),
    *(float("nan"), float("inf"), True, False, None, [], {}, [None], {"": ""}, {"\x00": "\x00"}, [[]], DEEP),
]
"""What some layer below us is known to choke on."""

BODIES: Mapping[str, Callable[[Seeds], dict[str, Any]]] = {
    "createApiKey": lambda seeds: {
        "name": seeds.unused(),
        "permissions": ["write:sandboxes"],
        "expiresAt": "2100-01-01T00:00:00Z",
    },
    "createRegistry": lambda seeds: {
        "name": seeds.unused(),
        "url": "https://registry.example:5000/a",
        "username": "u",
        "password": "p",
        "project": "x",
    },
    "updateRegistry": lambda seeds: {
        "name": seeds.unused(),
        "url": "registry.example",
        "username": "u",
        "password": "p",
        "project": "x",
    },
    "createSandbox": lambda seeds: {
        "name": seeds.unused(),
        "snapshot": "sandyard-default",
        "user": "daytona",
        "env": {"A": "b"},
        "labels": {"a": "b"},
        "public": True,
        "networkBlockAll": False,
        "networkAllowList": "10.0.0.0/8",
        "domainAllowList": "a.example",
        "target": seeds.get("region"),
        "autoStopInterval": 15,
        "autoPauseInterval": 0,
        "autoArchiveInterval": 60,
        "autoDeleteInterval": 60,
        "ttlMinutes": 60,
        "volumes": [{"volumeId": seeds.get("volume"), "mountPath": "/data", "subpath": "a"}],
        "secrets": [{"TOKEN": seeds.get("secret_name")}],
    },
    "createSandboxSnapshot": lambda seeds: {"name": seeds.unused(), "includeMemory": False},
    "createSecret": lambda seeds: {
        "name": seeds.unused(),
        "value": "x",
        "description": "d",
        "hosts": ["*.a.example", "b.example"],
    },
    "updateSecret": lambda seeds: {"value": "x", "description": "d", "hosts": ["a.example"]},
    "createSnapshot": lambda seeds: {
        "name": seeds.unused(),
        "imageName": "debian:12",
        "entrypoint": ["sleep", "1"],
        "cpu": 1,
        "memory": 1,
        "disk": 1,
        "regionId": seeds.get("region"),
    },
    "createVolume": lambda seeds: {"name": seeds.unused()},
    "createWarmPool": lambda seeds: {
        "snapshot": seeds.get("snapshot_name"),
        "pool": 1,
        "target": seeds.get("region"),
    },
    "updateWarmPool": lambda seeds: {"pool": 1},
    "forkSandbox": lambda seeds: {"name": seeds.unused()},
    "replaceLabels": lambda seeds: {"labels": {"a": "b"}},
    "resizeSandbox": lambda seeds: {"cpu": 2, "memory": 2, "disk": 10},
    "updateLastActivity": lambda seeds: {"activityType": "x"},
    "updateNetworkSettings": lambda seeds: {
        "networkBlockAll": False,
        "networkAllowList": "10.0.0.0/8,192.168.1.1/32",
        "domainAllowList": "a.example,*.b.example",
    },
    "updateSandboxSecrets": lambda seeds: {"secrets": [{"TOKEN": seeds.get("secret_name")}]},
}
"""A body with every field that this version has, by operation. Any but the required ones may be left out."""
BUILD = {"dockerfileContent": "FROM debian:12", "contextHashes": []}
ENDS = frozenset({"stopSandbox", "archiveSandbox", "pauseSandbox", "createSandboxSnapshot", "deactivateSnapshot"})
"""After these, and what deletes, the thing is perhaps not what the next request needs."""

Draw = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Seasoned:
    """One request."""

    target: str
    """Path and query, below the API's base URL."""
    body: bytes | None
    kinds: Sequence[str]
    """Of the things in its path."""
    may_end: bool
    """Whether those are gone, or changed for good, when it succeeds."""

    @classmethod
    def draw(cls, draw: Draw, path: str, operation: Mapping[str, Any], seeds: Seeds) -> "Seasoned":
        """One request of an operation of the API description."""
        where = draw(st.sampled_from(("nowhere", "path", "query", "body", "body")), label="nasty in")
        filled, kinds = _path(draw, path, operation, seeds, nasty=where == "path")
        query = _query(draw, operation, seeds, nasty=where == "query")
        body = _body(draw, operation, seeds, nasty=where == "body")
        name = operation["operationId"]
        may_end = name in ENDS or name.startswith(("delete", "remove", "expire", "revoke"))
        return cls(filled + (f"?{query}" if query else ""), body, kinds, may_end)


def _path(
    draw: Draw, path: str, operation: Mapping[str, Any], seeds: Seeds, *, nasty: bool
) -> tuple[str, Sequence[str]]:
    names = [one["name"] for one in operation.get("parameters", ()) if one["in"] == "path"]
    spoiled = draw(st.sampled_from(names), label="parameter") if names and nasty else None
    first, kinds = path.split("/")[1], []
    for name in names:
        kind = KINDS.get((first, name))
        if name == spoiled:
            value = text_of(draw(st.sampled_from(NASTY), label=name)) or "x"
        elif kind is None:
            value = draw(st.sampled_from(PLAIN[name]), label=name)
        else:
            kinds.append(draw(st.sampled_from(VARIANTS.get(kind, (kind,))), label=name))
            value = seeds.get(kinds[-1])
        path = path.replace(f"{{{name}}}", quote(value, safe="", errors="surrogatepass"))
    return path, kinds


def _query(draw: Draw, operation: Mapping[str, Any], seeds: Seeds, *, nasty: bool) -> str:
    known = [one for one in operation.get("parameters", ()) if one["in"] == "query"]
    if not known:
        return ""
    chosen = draw(st.lists(st.sampled_from(known), max_size=4, unique_by=lambda one: one["name"]), label="query")
    pairs = [(one["name"], _plain(draw, one["schema"])) for one in chosen]
    if nasty and pairs:
        pairs[0] = (pairs[0][0], text_of(draw(st.sampled_from(NASTY), label=pairs[0][0])))
    if any(one["name"] == "token" for one in known):
        pairs = [("token", seeds.get("ssh_token")), *pairs] if draw(st.booleans(), label="token") else pairs
    return urlencode(pairs, errors="surrogatepass")


def _plain(draw: Draw, schema: Mapping[str, Any]) -> str:
    """A right value of a query parameter."""
    if (values := schema.get("enum") or schema.get("items", {}).get("enum")) is not None:
        return str(draw(st.sampled_from(values)))
    if schema.get("format") == "date-time":
        return "2026-01-01T00:00:00Z"
    return {"boolean": "true", "number": "2", "integer": "2"}.get(schema.get("type", ""), "{}")


def _body(draw: Draw, operation: Mapping[str, Any], seeds: Seeds, *, nasty: bool) -> bytes | None:
    if "requestBody" not in operation:
        return None
    name = operation["operationId"]
    body = BODIES[name](seeds)
    if name in ("createSandbox", "createSnapshot") and draw(st.booleans(), label="build"):
        body = {key: value for key, value in body.items() if key not in ("snapshot", "imageName", "entrypoint")}
        body["buildInfo"] = BUILD
    if draw(st.booleans(), label="less"):
        left_out = draw(st.lists(st.sampled_from(sorted(body)), max_size=len(body)), label="left out")
        body = {key: value for key, value in body.items() if key not in left_out}
    return json.dumps(_spoiled(draw, body) if nasty else body).encode()


def _spoiled(draw: Draw, value: Any) -> Any:
    """The value with something nasty in one place."""
    if isinstance(value, dict) and value and draw(st.integers(0, 9), label="deeper"):
        name = draw(st.sampled_from(sorted(value)), label="field")
        return {**value, name: _spoiled(draw, value[name])}
    if isinstance(value, list) and value and draw(st.booleans(), label="deeper"):
        return [_spoiled(draw, value[0]), *value[1:]]
    return draw(st.sampled_from(NASTY), label="nasty")


def text_of(value: Any) -> str:
    """A value as it stands in a URL."""
    return value if isinstance(value, str) else json.dumps(value)
