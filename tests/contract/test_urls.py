"""URLs follow the client: a random port, another name of this machine; hosts that are none of ours are refused."""

import socket
from urllib.parse import urlsplit

import pytest

from tests.contract.running import Instance
from tests.contract.toolbox import Toolbox, authorization, refusal
from tests.contract.wire_client import Answer, request

pytestmark = pytest.mark.sdk


def get(sandyard: Instance, path: str, host: str, **headers: str) -> Answer:
    """A GET by a client that reached us under another name."""
    return request("GET", sandyard.origin + path, headers=authorization(sandyard) | {"Host": host} | headers)


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "sandyard.localhost", "[::1]"])
def test_every_url_of_an_answer_has_the_host_that_the_client_used(
    sandyard: Instance, shared_toolbox: Toolbox, name: str
) -> None:
    host = f"{name}:{sandyard.port}"
    sandbox = get(sandyard, f"/api/sandbox/{shared_toolbox.id}", host).json()
    assert sandbox["toolboxProxyUrl"] == f"http://{host}/toolbox"
    preview = get(sandyard, f"/api/sandbox/{shared_toolbox.id}/ports/2280/preview-url", host).json()
    assert preview["url"] == f"http://{host}"
    config = get(sandyard, "/api/config", host).json()
    assert config["proxyToolboxUrl"] == f"http://{host}/toolbox"


def test_another_port_of_a_preview_is_a_host_of_its_own(sandyard: Instance, shared_toolbox: Toolbox) -> None:
    host = f"localhost:{sandyard.port}"
    preview = get(sandyard, f"/api/sandbox/{shared_toolbox.id}/ports/3000/preview-url", host).json()
    assert preview["url"].rstrip("/") == f"http://3000-{shared_toolbox.id}.{host}"


def test_a_client_under_the_name_localhost_works_end_to_end(sandyard: Instance) -> None:
    """A service name in a hosts file is the same case: only the Host header differs."""
    named = Instance(sandyard.combination, sandyard.process, sandyard.folder, api_key=sandyard.api_key)
    named.api_url = f"http://localhost:{sandyard.port}/api"
    box = Toolbox.create(named)
    try:
        assert urlsplit(box.base).hostname == "localhost"
        assert box.call("POST", "/process/execute", {"command": "echo hi"}).json()["result"] == "hi\n"
        box.session("named")
        command = box.run("named", "echo hello", wait=False)["cmdId"]
        with box.follow("named", command) as stream:
            assert b"".join(message.data for message in stream.messages()) == b"\x01\x01\x01hello\n"
    finally:
        box.delete()


def test_a_preview_host_reaches_a_server_bound_to_localhost_inside(sandyard: Instance, shared_toolbox: Toolbox) -> None:
    server = (
        'python3 -c "import http.server as h; '
        "s = type('S', (h.BaseHTTPRequestHandler,), {'do_GET': lambda r: (r.send_response(200), r.end_headers(), "
        "r.wfile.write(b'from inside ' + r.path.encode()))}); "
        "v = h.HTTPServer(('127.0.0.1', 8765), s); print('listening', flush=True); v.serve_forever()\""
    )
    box = shared_toolbox
    box.session("web")
    command = box.run("web", server, wait=False)["cmdId"]
    with box.follow("web", command) as stream:
        assert b"listening" in next(stream.messages()).data
    link = get(sandyard, f"/api/sandbox/{box.id}/ports/8765/preview-url", f"127.0.0.1.localhost:{sandyard.port}").json()
    host = urlsplit(link["url"]).netloc
    token = {"X-Daytona-Preview-Token": link["token"]}
    answer = request("GET", f"{sandyard.origin}/a/b?c=d", headers={"Host": host} | token)
    assert answer.body == b"from inside /a/b?c=d", answer
    nobody = request("GET", f"{sandyard.origin}/a", headers={"Host": host})
    assert nobody.status == 401, "a private preview without credentials"
    by_query = request("GET", f"{sandyard.origin}/a?DAYTONA_SANDBOX_AUTH_KEY={link['token']}", headers={"Host": host})
    assert by_query.status == 200
    as_path = request("GET", f"{sandyard.origin}/preview/{box.id}/8765/a/b?c=d", headers=token)
    assert as_path.body == b"from inside /a/b?c=d", answer
    assert as_path.headers["content-security-policy"].startswith("sandbox")
    box.call("DELETE", "/process/session/web")


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:3986", "127.0.0.1.evil.example", "169.254.169.254", "localhost.evil"]
)
@pytest.mark.parametrize(
    "path", ["/api/sandbox", "/api/health", "/toolbox/x/process/session", "/", "/_sandyard/capabilities"]
)
def test_a_foreign_host_is_refused(sandyard: Instance, host: str, path: str) -> None:
    answer = get(sandyard, path, host)
    assert answer.status in (400, 403, 421), answer
    assert b"evil" not in answer.headers.get("location", "").encode()


def test_a_service_name_is_reachable_when_it_was_allowed(sandyard: Instance) -> None:
    """Not allowed here, so refused; the name `sandyard` works where SANDYARD_ALLOWED_HOSTS has it (docs/clients)."""
    assert get(sandyard, "/api/sandbox", f"sandyard:{sandyard.port}").status in (400, 403, 421)


def test_a_foreign_origin_may_not_open_a_websocket_of_a_browser(sandyard: Instance, shared_toolbox: Toolbox) -> None:
    url = f"ws://127.0.0.1:{sandyard.port}/api/socket.io/?EIO=4&transport=websocket"
    refused = refusal(sandyard, url, {"Origin": "http://evil.example"})
    assert refused.status in (400, 403)


def test_cors_lets_a_browser_app_of_another_origin_use_the_api_and_the_toolbox(
    sandyard: Instance, shared_toolbox: Toolbox
) -> None:
    asked = {
        "Origin": "http://127.0.0.1:5173",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-daytona-source,x-daytona-sdk-version",
    }
    for url in (f"{sandyard.api_url}/sandbox", f"{shared_toolbox.base}/process/execute"):
        answer = request("OPTIONS", url, headers=asked)
        assert answer.status in (200, 204), answer
        assert answer.headers["access-control-allow-origin"] in ("*", asked["Origin"])
        allowed = answer.headers["access-control-allow-headers"].lower()
        assert all(name in allowed for name in asked["Access-Control-Request-Headers"].split(","))


def test_everything_listens_on_loopback_only(sandyard: Instance) -> None:
    """An address of this machine that is not loopback must not answer, where it has one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing; it only chooses the address we would send from
        except OSError:
            pytest.skip("this machine has no address but loopback")
        address: str = probe.getsockname()[0]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address, sandyard.port), 2)
