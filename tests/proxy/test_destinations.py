"""Which requests are for which sandbox, told from host and path alone; and which hosts are ours."""

from typing import Any

import pytest

from sandyard.hosts import HostRules, host_name, same_origin
from sandyard_proxy.destinations import Destination, Mount, find_destination, forwarded_query


def scope(path: str, host: str = "localhost:3986", query: str = "", **headers: str) -> dict[str, Any]:
    """A request as a server tells it."""
    fields = {"host": host, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return {
        "type": "http",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in fields.items()],
    }


@pytest.mark.parametrize(
    ("request_scope", "expected"),
    [
        (
            scope("/toolbox/id/process/execute"),
            Destination(Mount.TOOLBOX, "id", b"/process/execute", prefix=b"/toolbox/id"),
        ),
        (scope("/toolbox/id"), Destination(Mount.TOOLBOX, "id", b"/", prefix=b"/toolbox/id")),
        (
            scope("/toolbox/my%2Fbox/a%2Fb"),
            Destination(Mount.TOOLBOX, "my/box", b"/a%2Fb", prefix=b"/toolbox/my%2Fbox"),
        ),
        (
            scope("/api/toolbox/id/toolbox/project-dir"),
            Destination(Mount.TOOLBOX, "id", b"/project-dir", prefix=b"/api/toolbox/id/toolbox"),
        ),
        (scope("/x", "3000-id.localhost:3986"), Destination(Mount.PREVIEW, "id", b"/proxy/3000/x", 3000)),
        (scope("/version", "2280-id.localhost"), Destination(Mount.PREVIEW, "id", b"/version", 2280)),
        (
            scope("/toolbox/a/b", "3000-id.localhost"),
            Destination(Mount.PREVIEW, "id", b"/proxy/3000/toolbox/a/b", 3000),
        ),
        (
            scope("/process/session", x_daytona_preview_token="tok"),
            Destination(Mount.TOKEN, "tok", b"/process/session"),
        ),
        (scope("/files", query="a=1&DAYTONA_SANDBOX_AUTH_KEY=tok"), Destination(Mount.TOKEN, "tok", b"/files")),
        (scope("/api/sandbox", x_daytona_preview_token="tok"), None),
        (scope("/_sandyard/x", x_daytona_preview_token="tok"), None),
        (scope("/", x_daytona_preview_token="tok"), None),
        (scope("/process/session"), None),
        (scope("/toolbox/"), None),
        (scope("/toolboxes/id/x"), None),
        (scope("/api/toolbox/id/other/x"), None),
        (scope("/x", "0-id.localhost"), None),
        (scope("/x", "65536-id.localhost"), None),
        (scope("/x", "port-id.localhost"), None),
    ],
)
def test_requests_find_their_sandbox(request_scope: dict[str, Any], expected: Destination | None) -> None:
    assert find_destination(request_scope) == expected


@pytest.mark.parametrize(
    "path",
    [
        "/_daemon/events",
        "/_daemon",
        "//_daemon/x",
        "/%5Fdaemon/x",
        "/a/../_daemon/x",
        "/a/%2e%2e/_daemon/x",
        "/./_daemon",
        "/%2F_daemon",
        "/_DAEMON/x",
    ],
)
def test_the_daemons_internal_routes_are_told_however_they_are_written(path: str) -> None:
    destination = find_destination(scope(f"/toolbox/id{path}"))
    assert destination is not None
    assert destination.is_internal


@pytest.mark.parametrize("path", ["/process/_daemon", "/files/download", "/_daemons", "/"])
def test_other_routes_are_not_internal(path: str) -> None:
    destination = find_destination(scope(f"/toolbox/id{path}"))
    assert destination is not None
    assert not destination.is_internal


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", b""),
        ("a=1", b"?a=1"),
        ("DAYTONA_SANDBOX_AUTH_KEY=x", b""),
        ("a=%2F+b&DAYTONA_SANDBOX_AUTH_KEY=x&c", b"?a=%2F+b&c"),
        ("MY_DAYTONA_SANDBOX_AUTH_KEY=x", b"?MY_DAYTONA_SANDBOX_AUTH_KEY=x"),
    ],
)
def test_only_our_key_leaves_the_query(query: str, expected: bytes) -> None:
    assert forwarded_query(scope("/x", query=query)) == expected


RULES = HostRules.of(["sandyard.test", "*.corp.example"], "https://public.example:8443")


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:3986",
        "LOCALHOST.",
        "3000-id.localhost:80",
        "127.0.0.1:3986",
        "127.1.2.3",
        "[::1]:3986",
        "sandyard.test",
        "3000-id.sandyard.test:99",
        "corp.example",
        "a.corp.example",
        "public.example",
        "10.0.0.5:3986",
    ],
)
def test_our_hosts_are_accepted(host: str) -> None:
    assert RULES.accepts(host, "10.0.0.5")


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "evilsandyard.test",
        "10.0.0.6",
        "",
        "[::2]",
        "127.0.0.1.evil.example",
        "a b",
    ],
)
def test_foreign_hosts_are_not(host: str) -> None:
    assert not RULES.accepts(host, "10.0.0.5")


@pytest.mark.parametrize(
    ("host", "name"), [("A.b:80", "a.b"), ("[::1]:80", "::1"), ("[::1]", "::1"), ("::1", "::1"), ("a.", "a")]
)
def test_host_names_lose_port_case_and_brackets(host: str, name: str) -> None:
    assert host_name(host) == name


def test_an_origin_is_the_same_only_with_host_and_port() -> None:
    assert same_origin(None, "a:1")
    assert same_origin("http://a:1", "a:1")
    assert not same_origin("http://a:2", "a:1")
    assert not same_origin("null", "a:1")
    assert not same_origin("http://a:1", None)
