"""The web terminal on preview port 22222: a page of ours, its socket carried to a shell that the daemon starts."""

from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from sandyard_proxy.asgi import Headers, Receive, Scope, Send, answer
from sandyard_proxy.destinations import Destination, Mount, forwarded_query
from sandyard_proxy.errors import NotFound, WrongMethod
from sandyard_proxy.forward import Lend, Outgoing
from sandyard_proxy.tunnel import tunnel

TERMINAL_PORT = 22222

_KINDS: Mapping[str, str] = {
    "index.html": "text/html; charset=utf-8",
    "terminal.js": "text/javascript; charset=utf-8",
    "terminal.css": "text/css; charset=utf-8",
    "xterm.js": "text/javascript; charset=utf-8",
    "addon-fit.js": "text/javascript; charset=utf-8",
    "xterm.css": "text/css; charset=utf-8",
    "LICENSE-xterm": "text/plain; charset=utf-8",
}
_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; img-src data:;"
    b" base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
"""`unsafe-inline` is for xterm.js, which writes its colours and sizes into style elements."""
_HEADERS = (
    (b"content-security-policy", _POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"private, no-cache"),
)


def is_terminal(destination: Destination) -> bool:
    """Whether the web terminal is asked for."""
    return destination.mount is Mount.PREVIEW and destination.port == TERMINAL_PORT


async def serve_terminal(
    scope: Scope, receive: Receive, send: Send, *, path: bytes, lend: Lend, door: Headers, cookies: Headers
) -> None:
    """Answer one request below the terminal's origin; `door` opens the daemon's door, `cookies` are for the browser.

    Raises `NotFound`, `WrongMethod`, `DoorUnreachable`, `ClientGone`.
    """
    if scope["type"] == "websocket":
        if path != b"/ws":
            raise NotFound("not found: the terminal's socket is /ws")
        outgoing = Outgoing("GET", b"/_daemon/terminal" + forwarded_query(scope), [(b"host", b"sandbox"), *door])
        await tunnel(scope, receive, send, lend, outgoing)
        return
    name = path.decode("latin-1").removeprefix("/") or "index.html"
    if name not in _KINDS:
        raise NotFound("not found: the terminal has no such page")
    if scope["method"] not in ("GET", "HEAD"):
        raise WrongMethod(f"{scope['method']} is not allowed here")
    await answer(scope, send, 200, _file(name), content_type=_KINDS[name], headers=[*_HEADERS, *cookies])


@cache
def _file(name: str) -> bytes:
    return files(__package__).joinpath("page", name).read_bytes()
