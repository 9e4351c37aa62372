"""What people see in a browser instead of a preview: why there is none, or that it is somebody's own program."""

import html
from http import HTTPStatus
from urllib.parse import quote

from sandyard_proxy.asgi import Headers, Scope, Send, answer, header, raw_path, text_header
from sandyard_proxy.destinations import PREVIEWS, PRIVATE_PORTS, Destination, find_destination, query_value
from sandyard_proxy.errors import BadRequest, NotStarted, ProxyError, Unauthenticated

ACCEPT_PATH = b"/accept-daytona-preview-warning"
SKIP_HEADER = b"x-daytona-skip-preview-warning"
COOKIE = b"daytona-preview-page-accepted"
COOKIE_SECONDS = 86_400

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 38em; margin: 15vh auto; padding: 0 1em; color: #222 }}
code {{ background: #f0f0f0; padding: .1em .3em }} button {{ font: inherit; padding: .4em 1.2em }}
</style></head><body><h1>{title}</h1>{body}</body></html>
"""
_PRIVATE = (
    "<p>Open the URL that <code>signed-preview-url</code> gives, add the token of <code>preview-url</code> as "
    "<code>?DAYTONA_SANDBOX_AUTH_KEY=...</code>, or send it as the header <code>X-Daytona-Preview-Token</code>.</p>"
)
_STOPPED = "<p>Start the sandbox and load this page again.</p>"
_WARNING = (
    "<p>What comes next is served by a program in a sandbox, not by Sandyard. Enter no passwords or personal data "
    "unless you know who runs it.</p><form method='post' action='{action}'><button>Go on</button></form>"
)


def wants_page(scope: Scope) -> bool:
    """Whether a person at a preview waits for the answer."""
    destination = find_destination(scope)
    is_preview = destination is not None and destination.mount in PREVIEWS and not destination.is_toolbox
    accepts = text_header(scope["headers"], b"accept") or ""
    return scope["type"] == "http" and is_preview and "text/html" in accepts


async def answer_page(scope: Scope, send: Send, error: ProxyError, headers: Headers) -> None:
    """An error as a page."""
    title, advice = "There is no preview here", ""
    if isinstance(error, Unauthenticated):
        title, advice = "This preview is private", _PRIVATE
    elif isinstance(error, NotStarted):
        title, advice = "This sandbox does not run", _STOPPED
    elif error.status == HTTPStatus.BAD_GATEWAY:
        title = "Nothing answers here"
    body = f"<p>{html.escape(error.message)}</p>{advice}"
    await _page(scope, send, int(error.status), title, body, headers)


async def warn_first(scope: Scope, send: Send, destination: Destination) -> bool:
    """Show the warning, or take its acceptance; false when the preview itself is to be served."""
    if not _may_warn(scope, destination):
        return False
    if destination.path == b"/proxy/%d" % destination.port + ACCEPT_PATH and scope["method"] == "POST":
        await _accept(scope, send, destination)
        return True
    if not wants_page(scope) or header(scope["headers"], SKIP_HEADER) == b"true" or _has_accepted(scope):
        return False
    here = raw_path(scope) + (b"?" + scope["query_string"] if scope.get("query_string") else b"")
    action = f"{(destination.prefix + ACCEPT_PATH).decode()}?redirect={quote(here.decode('latin-1'), safe='')}"
    await _page(scope, send, 200, "This page belongs to a sandbox", _WARNING.format(action=html.escape(action)), [])
    return True


def _may_warn(scope: Scope, destination: Destination) -> bool:
    agent = text_header(scope["headers"], b"user-agent") or ""
    is_preview = destination.mount in PREVIEWS and destination.port not in PRIVATE_PORTS
    return scope["type"] == "http" and is_preview and agent.startswith("Mozilla/")


def _has_accepted(scope: Scope) -> bool:
    cookies = header(scope["headers"], b"cookie") or b""
    return any(part.strip() == COOKIE + b"=true" for part in cookies.split(b";"))


async def _accept(scope: Scope, send: Send, destination: Destination) -> None:
    """Remember it for a day and lead back. Raises `BadRequest` for a way that leads elsewhere."""
    back = query_value(scope, "redirect") or "/"
    if not back.startswith("/") or back.startswith(("//", "/\\")) or not back.isprintable():
        raise BadRequest("bad request: redirect must be a path of this preview")
    path = destination.prefix or b"/"
    cookie = COOKIE + b"=true; Path=%b; Max-Age=%d; HttpOnly; SameSite=Lax" % (path, COOKIE_SECONDS)
    headers = [(b"location", quote(back, safe="/?&=%:;,+@~!$'()*-._").encode()), (b"set-cookie", cookie)]
    await answer(scope, send, 303, b"", content_type="text/plain", headers=headers)


async def _page(scope: Scope, send: Send, status: int, title: str, body: str, headers: Headers) -> None:
    page = _PAGE.format(title=title, body=body).encode()
    policy = (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'; form-action 'self'")
    fields = [*headers, policy, (b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")]
    await answer(scope, send, status, page, content_type="text/html; charset=utf-8", headers=fields)
