"""Putting the values of secrets in the place of their placeholders, in one HTTP request."""

import base64
import binascii
from collections.abc import Sequence

from sandyard_api.jobs.wire import SecretGrant

BASIC = b"basic "
HOP_HEADERS = frozenset({b"connection", b"proxy-connection", b"proxy-authorization", b"keep-alive", b"te", b"upgrade"})
"""Between the sandbox and us only. *Source:* RFC 9110 7.6.1; an upgrade is written anew."""
Headers = list[tuple[bytes, bytes]]


def substitute(text: bytes, grants: Sequence[SecretGrant]) -> bytes:
    """The text with every placeholder replaced."""
    for grant in grants:
        text = text.replace(grant.placeholder.encode(), grant.value.encode())
    return text


def substituted_headers(headers: Sequence[tuple[bytes, bytes]], grants: Sequence[SecretGrant]) -> Headers:
    """Without those of the hop to us; also inside of basic credentials, which are base64."""
    return [(name, _value(name, value, grants)) for name, value in headers if name.lower() not in HOP_HEADERS]


def _value(name: bytes, value: bytes, grants: Sequence[SecretGrant]) -> bytes:
    if name.lower() == b"authorization" and value.lower().startswith(BASIC):
        try:
            plain = base64.b64decode(value[len(BASIC) :].strip(), validate=True)
        except binascii.Error:
            return value
        return b"Basic " + base64.b64encode(substitute(plain, grants))
    return substitute(value, grants)
