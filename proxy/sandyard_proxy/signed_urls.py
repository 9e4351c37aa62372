"""Signed file URLs: one file, one direction, until a time, for whoever has the URL.

*Source:* sdk-wire.md 3.7, contract/README.md 11.
"""

import base64
import hashlib
import hmac
import re
from urllib.parse import parse_qsl

import msgspec

from sandyard_proxy.asgi import Scope
from sandyard_proxy.destinations import Destination, Mount

_METHODS = {
    ("GET", b"/files/download"): "GET",
    ("HEAD", b"/files/download"): "GET",
    ("POST", b"/files/upload-v2"): "POST",
}
_EXPIRES = re.compile(r"\d{1,15}", re.ASCII)
_FIELDS = ("path", "expires", "signature")


class SignedUrl(msgspec.Struct, frozen=True):
    """What a URL claims; nothing of it is checked yet."""

    text: bytes
    """What was signed."""
    expires: int
    """Unix seconds; 0 is never."""
    signature: str

    def holds(self, key: str, now: float) -> bool:
        """Whether it was signed with this key and is not over. No key, no signature."""
        if not key or (self.expires and self.expires <= now):
            return False
        digest = hmac.new(key.encode(), self.text, hashlib.sha256).digest()
        expected = "v1_" + base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        return hmac.compare_digest(self.signature.encode(), expected.encode())


def is_signed(scope: Scope, destination: Destination) -> bool:
    """Whether the request is one that a signature may let in, and has one."""
    query: bytes = scope.get("query_string") or b""
    return (
        scope["type"] == "http"
        and destination.mount is Mount.TOOLBOX
        and (scope["method"], destination.path) in _METHODS
        and b"signature=" in query
    )


def read_signed_url(scope: Scope, destination: Destination) -> SignedUrl | None:
    """The claim of a request that `is_signed`; `None` when it is not complete, or says anything twice.

    The daemon takes the last of a repeated parameter: what was checked must be what is done. Bytes that are no UTF-8
    are kept for the same reason.
    """
    query: bytes = scope.get("query_string") or b""
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, errors="surrogateescape")
    values = dict(pairs)
    if sorted(name for name, _ in pairs if name in _FIELDS) != sorted(_FIELDS):
        return None
    if _EXPIRES.fullmatch(values["expires"]) is None:
        return None
    method = _METHODS[scope["method"], destination.path]
    text = f"v1:files:{method}:{values['path']}:{values['expires']}"
    signature = values["signature"].encode("utf-8", "replace").decode()
    return SignedUrl(text.encode("utf-8", "surrogateescape"), int(values["expires"]), signature)
