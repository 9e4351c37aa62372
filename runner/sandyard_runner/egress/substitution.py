"""Putting the values of secrets in the place of their placeholders, in the parts of one HTTP request."""

import base64
import binascii
import json
import re
from collections.abc import Callable, Sequence
from urllib.parse import quote

from sandyard_api.jobs.wire import SecretGrant

BASIC = b"basic "
FORBIDDEN_IN_HEADERS = re.compile(rb"[\x00\r\n]")
"""*Source:* RFC 9110 5.5."""

JSON = (b"application/json", b"application/x-ndjson", b"application/jsonl", b"application/json-seq")
TEXT = (b"multipart/form-data", b"application/xml", b"application/graphql", b"application/yaml", b"application/x-yaml")
"""Types of bodies in which placeholders are looked for, beside `text/*` and those that say no type."""

Headers = list[tuple[bytes, bytes]]
Write = Callable[[str], bytes]
"""How a value is written in some place, so that it arrives there as it is."""


class Unfit(Exception):
    """A value cannot stand where its placeholder does. The message names the variable, never the value."""


class Substitution:
    """The secrets that may be sent to one host."""

    def __init__(self, grants: Sequence[SecretGrant]) -> None:
        self._grants = {grant.placeholder.encode(): grant for grant in grants}
        self._placeholders = tuple(self._grants)
        self._pattern = re.compile(b"|".join(re.escape(each) for each in self._placeholders))

    def __bool__(self) -> bool:
        return bool(self._grants)

    def target(self, target: bytes) -> bytes:
        """A path with its query."""
        return self._in(target, _in_url)

    def headers(self, headers: Sequence[tuple[bytes, bytes]]) -> Headers:
        """Also inside of basic credentials, which are base64. Raises `Unfit`."""
        return [(name, self._header(name, value)) for name, value in headers]

    def body(self, content_type: bytes) -> "BodySubstitution | None":
        """For a body of that type, from its beginning to its end.

        `None` where it is not text: gRPC, protobuf, git's packets and archives tell lengths within that would be wrong.
        """
        kind = content_type.partition(b";")[0].strip().lower()
        if kind == b"application/x-www-form-urlencoded":
            return BodySubstitution(self, _in_url)
        if kind in JSON or kind.endswith(b"+json"):
            return BodySubstitution(self, _in_json)
        if not kind or kind in TEXT or kind.startswith(b"text/") or kind.endswith(b"+xml"):
            return BodySubstitution(self, _plain)
        return None

    def pieces(self, text: bytes, write: Write) -> tuple[bytes, bytes]:
        """The text with placeholders replaced, and apart from it an end that may be the beginning of one."""
        if not self._grants:
            return text, b""
        done, end = [], 0
        for match in self._pattern.finditer(text):
            done += [text[end : match.start()], write(self._grants[match[0]].value)]
            end = match.end()
        split = self._possible_beginning(text, end)
        return b"".join([*done, text[end:split]]), text[split:]

    def _possible_beginning(self, text: bytes, start: int) -> int:
        longest = max(map(len, self._placeholders)) - 1
        for place in range(max(start, len(text) - longest), len(text)):
            if any(each.startswith(text[place:]) for each in self._placeholders):
                return place
        return len(text)

    def _in(self, text: bytes, write: Write) -> bytes:
        return b"".join(self.pieces(text, write))

    def _header(self, name: bytes, value: bytes) -> bytes:
        if name.lower() in (b"authorization", b"proxy-authorization") and value.lower().startswith(BASIC):
            try:
                plain = base64.b64decode(value[len(BASIC) :].strip(), validate=True)
            except binascii.Error:
                return value
            return b"Basic " + base64.b64encode(self._in(plain, _plain))
        for placeholder, grant in self._grants.items():
            if placeholder in value and FORBIDDEN_IN_HEADERS.search(grant.value.encode()):
                raise Unfit(f"the secret of {grant.variable} has line breaks, which no header can carry")
        return self._in(value, _plain)


class BodySubstitution:
    """Replaces in a stream: a placeholder may be cut anywhere, and no more is kept back than may be one's beginning."""

    def __init__(self, substitution: Substitution, write: Write) -> None:
        self._substitution = substitution
        self._write = write
        self._kept = b""

    def feed(self, data: bytes) -> bytes:
        """What can be sent after this piece."""
        done, self._kept = self._substitution.pieces(self._kept + data, self._write)
        return done

    def end(self) -> bytes:
        """What was kept back."""
        kept, self._kept = self._kept, b""
        return kept


def _plain(value: str) -> bytes:
    return value.encode()


def _in_url(value: str) -> bytes:
    return quote(value, safe="").encode()


def _in_json(value: str) -> bytes:
    return json.dumps(value, ensure_ascii=False)[1:-1].encode()
