"""The registry's answers: its errors, and headers that every one of them has."""

import json
from collections.abc import Mapping

from sandyard_api.asgi import Headers, Scope, Send

STATUS: Mapping[str, int] = {
    "BLOB_UNKNOWN": 404,
    "BLOB_UPLOAD_INVALID": 400,
    "BLOB_UPLOAD_UNKNOWN": 404,
    "DENIED": 403,
    "DIGEST_INVALID": 400,
    "MANIFEST_BLOB_UNKNOWN": 404,
    "MANIFEST_INVALID": 400,
    "MANIFEST_UNKNOWN": 404,
    "NAME_INVALID": 400,
    "NAME_UNKNOWN": 404,
    "SIZE_INVALID": 400,
    "TOOMANYREQUESTS": 429,
    "UNAUTHORIZED": 401,
    "UNAVAILABLE": 503,
    "UNSUPPORTED": 405,
}
"""HTTP status of the errors, where an error names no other. *Source:* the OCI distribution specification, "Error
Codes"; `UNAVAILABLE` is the distribution project's."""
CHALLENGE: Headers = [(b"www-authenticate", b'Basic realm="sandyard"')]
VERSION = (b"docker-distribution-api-version", b"registry/2.0")
JSON = (b"content-type", b"application/json")


class RegistryError(Exception):
    """An error in the registry's form."""

    def __init__(self, code: str, message: str, *, status: int | None = None, headers: Headers | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.status = status or STATUS[code]
        self.headers = headers or []

    def body(self) -> bytes:
        """As JSON."""
        return json.dumps({"errors": [{"code": self.code, "message": str(self), "detail": None}]}).encode()


async def answer(scope: Scope, send: Send, status: int, body: bytes = b"", headers: Headers | None = None) -> None:
    """A whole answer; to HEAD, what it would have been."""
    fields = [VERSION, *(headers or [])]
    if status != 204:
        fields.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


async def refuse(scope: Scope, send: Send, error: RegistryError) -> None:
    """An error as an answer."""
    challenge = CHALLENGE if error.code == "UNAUTHORIZED" else []
    await answer(scope, send, error.status, error.body(), [JSON, *challenge, *error.headers])
