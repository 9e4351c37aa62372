"""The `X-Forwarded-*` headers: what clients claim is believed only when another proxy of the owner stands before us."""

from sandyard_proxy.asgi import Headers, Scope, text_header

NAMES = frozenset((b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-port", b"x-forwarded-proto", b"forwarded"))
SCHEMES = {"http": "http", "ws": "http", "https": "https", "wss": "https"}
DEFAULT_PORTS = {"http": "80", "https": "443"}


def origin_headers(scope: Scope, *, trust: bool) -> Headers:
    """The headers that tell the next one which origin the client used, and from where it came."""
    headers = scope["headers"]
    if trust and text_header(headers, b"x-forwarded-host") is not None:
        return [(key, value) for key, value in headers if key in NAMES]
    host = text_header(headers, b"host") or ""
    scheme = SCHEMES[scope.get("scheme", "http")]
    if trust:
        scheme = text_header(headers, b"x-forwarded-proto") or scheme
    port = host.rpartition(":")[2] if ":" in host and not host.endswith("]") else DEFAULT_PORTS.get(scheme, "80")
    client = scope.get("client")
    told = {
        b"x-forwarded-for": client[0] if client else "",
        b"x-forwarded-host": host,
        b"x-forwarded-port": port,
        b"x-forwarded-proto": scheme,
    }
    return [(key, value.encode("latin-1")) for key, value in told.items() if value]


def without_origin(headers: Headers) -> Headers:
    """The headers without those of `NAMES`."""
    return [(key, value) for key, value in headers if key not in NAMES]


def tell_origin(scope: Scope, *, trust: bool) -> Scope:
    """The same request with `X-Forwarded-*` headers that can be believed."""
    headers = without_origin(list(scope["headers"])) + origin_headers(scope, trust=trust)
    return {**scope, "headers": headers}
