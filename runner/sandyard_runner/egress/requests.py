"""What a request becomes on its way out, in either version of HTTP: its head, and how its body is treated."""

import msgspec

from sandyard_runner.egress.substitution import BodySubstitution, Headers, Substitution

MAX_WHOLE_BYTES = 1 << 20
"""Of a body that says its length: that changes, so it is read whole first. A larger one is sent as it is."""
HOP_HEADERS = frozenset({b"connection", b"proxy-connection", b"proxy-authorization", b"keep-alive", b"te", b"upgrade"})
"""Between the sandbox and us only. *Source:* RFC 9110 7.6.1; an upgrade is written anew."""


class Refused(Exception):
    """What the client is told instead of an answer."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Body(msgspec.Struct):
    """Takes the pieces of one request's body and gives what is sent of it."""

    is_whole: bool = False
    """Whether all of it is kept until `end`, because the head has to tell its new length."""
    _substitution: BodySubstitution | None = None
    _parts: list[bytes] = msgspec.field(default_factory=list)

    @classmethod
    def of(cls, headers: Headers, substitution: Substitution) -> "Body":
        """By what the head says. Names are in lower case."""
        said = dict(headers)
        if not substitution or said.get(b"content-encoding", b"identity").lower() != b"identity":
            return cls()
        length = content_length(headers)
        if length is not None and length > MAX_WHOLE_BYTES:
            return cls()
        found = substitution.body(said.get(b"content-type", b""))
        return cls(found is not None and bool(length), found)

    @property
    def held_bytes(self) -> int:
        """How much is kept."""
        return sum(map(len, self._parts))

    def feed(self, data: bytes) -> bytes:
        """What is sent now."""
        if self._substitution is None:
            return data
        done = self._substitution.feed(data)
        if not self.is_whole:
            return done
        self._parts.append(done)
        return b""

    def end(self) -> bytes:
        """What is sent at last."""
        last = self._substitution.end() if self._substitution else b""
        parts, self._parts = [*self._parts, last], []
        return b"".join(parts)


def content_length(headers: Headers) -> int | None:
    """As it is said; `None` is a body that ends where it ends, or none. Raises `Refused`."""
    said = next((value for name, value in headers if name == b"content-length"), None)
    if said is not None and not said.isdigit():
        raise Refused(400, "the content-length is no number")
    return None if said is None else int(said)


def with_length(headers: Headers, length: int) -> Headers:
    """The headers, with another `content-length`."""
    return [(name, str(length).encode() if name == b"content-length" else value) for name, value in headers]


def without_hop(headers: Headers) -> Headers:
    """Names in lower case, and none of this hop: neither the known ones nor those that `Connection` names."""
    lower = [(name.lower(), value) for name, value in headers]
    named = {word.strip().lower() for name, value in lower if name == b"connection" for word in value.split(b",")}
    return [(name, value) for name, value in lower if name not in HOP_HEADERS and name not in named]


def check_host(said: bytes, host: str) -> None:
    """A request with secrets goes to the host it was opened for, also within: many sites may share its address.

    Raises `Refused`.
    """
    name = said.decode("latin-1").lower()
    name = name.rpartition("]")[0].strip("[") if name.startswith("[") else name.partition(":")[0]
    if name.rstrip(".") != host.lower().rstrip(".").strip("[]"):
        raise Refused(421, f"this connection was opened for {host}, and the request is for another host")
