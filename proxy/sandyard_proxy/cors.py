"""Cross-origin answers: the SDK runs in browsers, so every origin is reflected.

*Source:* sdk-wire.md 1.3, control-plane.md 22.3.
"""

from sandyard_proxy.asgi import Headers, Message, Scope, Send, header

DISABLE_HEADER = b"x-daytona-disable-cors"
METHODS = b"GET, POST, PUT, PATCH, DELETE, HEAD, OPTIONS"
HEADERS = (
    b"Authorization, Content-Type, X-Daytona-Organization-ID, X-Daytona-Source, X-Daytona-SDK-Version, "
    b"X-Daytona-Preview-Token, traceparent"
)


def is_preflight(scope: Scope) -> bool:
    """Whether this is a browser asking for permission; the proxy answers it, unless told to leave it to the app."""
    headers = scope["headers"]
    return (
        scope["type"] == "http"
        and scope["method"] == "OPTIONS"
        and header(headers, b"origin") is not None
        and header(headers, b"access-control-request-method") is not None
        and not _is_disabled(scope)
    )


async def answer_preflight(scope: Scope, send: Send) -> None:
    """Permission for the origin, method and headers that were asked for."""
    asked = header(scope["headers"], b"access-control-request-headers") or HEADERS
    fields: Headers = [
        *_permission(header(scope["headers"], b"origin") or b"*"),
        (b"access-control-allow-methods", METHODS),
        (b"access-control-allow-headers", asked),
        (b"access-control-max-age", b"600"),
    ]
    await send({"type": "http.response.start", "status": 204, "headers": fields})
    await send({"type": "http.response.body", "body": b""})


def with_permission(scope: Scope, send: Send) -> Send:
    """A `send` that lets the asking origin read the answer, unless the app behind a preview decided that itself."""
    origin = header(scope["headers"], b"origin")
    if origin is None or scope["type"] != "http" or _is_disabled(scope):
        return send

    async def permitted(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers: Headers = list(message["headers"])
            if header(headers, b"access-control-allow-origin") is None:
                message = {**message, "headers": [*headers, *_permission(origin)]}
        await send(message)

    return permitted


def _permission(origin: bytes) -> Headers:
    return [
        (b"access-control-allow-origin", origin),
        (b"access-control-allow-credentials", b"true"),
        (b"access-control-expose-headers", b"Content-Disposition, Content-Length, Location"),
        (b"vary", b"Origin"),
    ]


def _is_disabled(scope: Scope) -> bool:
    headers = scope["headers"]
    if (header(headers, DISABLE_HEADER) or b"").strip().lower() == b"true":
        return True
    # A preflight cannot carry the header itself, only announce it.
    asked = header(headers, b"access-control-request-headers") or b""
    return DISABLE_HEADER in (name.strip().lower() for name in asked.split(b","))
