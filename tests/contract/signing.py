"""Signed file URLs as clients compute them."""

import base64
import hashlib
import hmac
from urllib.parse import urlencode


def signed_query(key: str, method: str, path: str, expires: int) -> str:
    """The query of a signed file URL. *Source:* sdk-wire.md 3.7."""
    text = f"v1:files:{method}:{path}:{expires}"
    digest = hmac.new(key.encode(), text.encode(), hashlib.sha256).digest()
    signature = "v1_" + base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    return urlencode({"path": path, "expires": expires, "signature": signature})
