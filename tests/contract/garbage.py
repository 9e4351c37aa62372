"""Requests that no client of ours sends, as bytes: for whoever listens, behind whichever path."""

import contextlib
import gzip
import itertools
import json
import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

ANSWER_SECONDS = 20.0
BOMB = gzip.compress(b" " * (64 << 20), 9)
"""64 MiB of nothing, in 64 KiB."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where requests go: a listener, and what leads to one part of it."""

    address: tuple[str, int]
    host: str
    """The Host header."""
    path: str
    key: str
    method: str = "POST"

    def head(self, *lines: str, path: str | None = None, method: str | None = None) -> bytes:
        """The head of a request with more headers."""
        first = f"{method or self.method} {self.path if path is None else path} HTTP/1.1"
        every = (first, f"Host: {self.host}", f"Authorization: Bearer {self.key}", *lines, "", "")
        return "\r\n".join(every).encode("latin-1")


@dataclass(frozen=True, slots=True)
class Told:
    """What came back: `None` where the connection ended without an answer."""

    status: int | None
    headers: Mapping[str, str]
    body: bytes


def garbage(place: Place) -> Iterator[tuple[str, bytes]]:
    """A name and the bytes of each."""
    return itertools.chain(_bodies(place), _types(place), _paths(place), _heads(place), _upgrades(place))


def _bodies(place: Place) -> Iterator[tuple[str, bytes]]:
    chunked = place.head("Transfer-Encoding: chunked")
    for name, body in {
        "a chunk of no number": b"zz\r\nabc\r\n0\r\n\r\n",
        "a chunk of a negative number": b"-5\r\nabc\r\n0\r\n\r\n",
        "a chunk that is longer than said": b"1\r\nabcdef\r\n0\r\n\r\n",
        "a chunk of more than can be": b"ffffffffffffffffff\r\nabc",
        "a chunk with extensions": b"2;a=b;c\r\n{}\r\n0\r\n\r\n",
        "chunks that break off": b"5\r\nab",
        "trailers": b"2\r\n{}\r\n0\r\nX-Trailer: a\r\nAuthorization: Bearer x\r\n\r\n",
    }.items():
        yield name, chunked + body
    yield "length and chunks", place.head("Content-Length: 3", "Transfer-Encoding: chunked") + b"0\r\n\r\n"
    for value in ("-1", "abc", "1e3", "99999999999999999999999", "0x10", "3, 3"):
        yield f"length {value}", place.head(f"Content-Length: {value}") + b"{}\n"
    yield "a body shorter than said", place.head("Content-Length: 100") + b"{}"
    for value in ("gzip, chunked", "identity", "chunked, chunked", "nonsense"):
        yield f"transfer encoding {value}", place.head(f"Transfer-Encoding: {value}") + b"2\r\n{}\r\n0\r\n\r\n"
    yield "an expectation that cannot be met", place.head("Expect: nonsense", "Content-Length: 2") + b"{}"
    yield "deep JSON", _with_body(place, b"[" * 100_000)
    yield "a long number", _with_body(place, b"1" * 100_000)
    yield "JSON in UTF-16", _with_body(place, "{}".encode("utf-16"), "Content-Type: application/json; charset=utf-16")
    yield "NUL bytes", _with_body(place, b"\x00" * 1000, "Content-Type: application/json")
    yield "duplicate keys", _with_body(place, b'{"name": "a", "name": {}, "name": null}')
    yield "a bomb", _with_body(place, BOMB, "Content-Encoding: gzip", "Content-Type: application/json")


def _types(place: Place) -> Iterator[tuple[str, bytes]]:
    for value in (
        *("text/xml", "multipart/form-data", "multipart/form-data; boundary=", "application/x-www-form-urlencoded"),
        *("application/json; charset=nonsense", "nonsense", "a/b; c", '"', "\xff"),
    ):
        yield f"content type {value}", _with_body(place, b"--x\r\n{}", f"Content-Type: {value}")


def _paths(place: Place) -> Iterator[tuple[str, bytes]]:
    query = "&".join(f"limit={number}&cursor[]=x&a[{number}]=1" for number in range(800))
    for name, path in {
        "NUL": f"{place.path}%00",
        "no UTF-8": f"{place.path}%ff%fe/%c0%af",
        "raw bytes": f"{place.path}\xff\xfe",
        "half an escape": f"{place.path}%/%zz%4",
        "dots": f"{place.path}/../../../../etc/passwd",
        "encoded dots": f"{place.path}/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "many slashes": "/" * 5_000,
        "another authority": f"http://evil.example{place.path}",
        "no slash": "api",
        "a star": "*",
        "nothing": "",
        "many query keys": f"{place.path}?{query}",
        "a query of nothing": f"{place.path}?&&=&=&%00=%00&%ff=%ff&\xff",
        "a fragment": f"{place.path}#a?b",
        "a semicolon": f"{place.path};a=b?c;d",
    }.items():
        for method in (place.method, "GET"):
            yield f"path: {name}, {method}", place.head("Content-Length: 0", path=path, method=method)
    for method in ("FOO", "get", "CONNECT", "TRACE", "OPTIONS", "HEAD", "PROPFIND", "M-SEARCH", "DELETE", "PUT"):
        yield f"method {method}", place.head("Content-Length: 0", method=method)


def _heads(place: Place) -> Iterator[tuple[str, bytes]]:
    line = f"{place.method} {place.path} HTTP/1.1\r\n"
    for name, text in {
        "no host": f"{line}\r\n",
        "two hosts": f"{line}Host: {place.host}\r\nHost: evil.example\r\n\r\n",
        "an empty host": f"{line}Host:\r\n\r\n",
        "an odd host": f"{line}Host: [::1\r\n\r\n",
        "a host with a port of no number": f"{line}Host: 127.0.0.1:abc\r\n\r\n",
        "a host of a thousand labels": f"{line}Host: {'a.' * 1000}localhost\r\n\r\n",
        "a folded header": f"{line}Host: {place.host}\r\nX: a\r\n b\r\n\r\n",
        "a NUL in a header": f"{line}Host: {place.host}\r\nX: a\x00b\r\n\r\n",
        "a space before a colon": f"{line}Host : {place.host}\r\n\r\n",
        "two keys": f"{line}Host: {place.host}\r\nAuthorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n",
        "a key of odd characters": f"{line}Host: {place.host}\r\nAuthorization: Bearer \xff\xfe\r\n\r\n",
        "cookies of nonsense": f"{line}Host: {place.host}\r\nCookie: =;;a=\xff;{'b=c;' * 1000}\r\n\r\n",
        "forwarded nonsense": f"{line}Host: {place.host}\r\nX-Forwarded-Host: \xff, a\r\nX-Forwarded-Proto: x\r\n\r\n",
        "ranges of nonsense": f"{line}Host: {place.host}\r\nRange: bytes=5-1,-,a-b\r\nIf-Range: \xff\r\n\r\n",
        "version 1.0": f"{place.method} {place.path} HTTP/1.0\r\n\r\n",
        "version 0.9": f"{place.method} {place.path}\r\n\r\n",
        "version 3.7": f"{place.method} {place.path} HTTP/3.7\r\n\r\n",
        "HTTP/2": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "bare line feeds": f"{place.method} {place.path} HTTP/1.1\nHost: {place.host}\n\n",
    }.items():
        yield f"head: {name}", text.encode("latin-1")


def _upgrades(place: Place) -> Iterator[tuple[str, bytes]]:
    websocket = ("Connection: Upgrade", "Upgrade: websocket")
    for name, lines in {
        "to a WebSocket without a key": websocket,
        "to a WebSocket of version 7": (*websocket, "Sec-WebSocket-Key: x", "Sec-WebSocket-Version: 7"),
        "to a WebSocket of nonsense": (*websocket, "Sec-WebSocket-Key: \xff", "Sec-WebSocket-Version: 13"),
        "to a WebSocket of odd protocols": (
            *websocket,
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Protocol: ,,\x7f,a b,,",
            "Sec-WebSocket-Extensions: permessage-deflate; a=;;",
        ),
        "to HTTP/2": ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAA"),
        "to nothing": ("Connection: Upgrade", "Upgrade:"),
    }.items():
        for method in ("GET", place.method):
            yield f"upgrade {name}, {method}", place.head(*lines, method=method)


def _with_body(place: Place, body: bytes, *lines: str) -> bytes:
    return place.head(*lines, f"Content-Length: {len(body)}") + body


def say(place: Place, said: bytes) -> Told:
    """Send it and read the answer; half a request is broken off. Raises `TimeoutError` where neither comes."""
    with socket.create_connection(place.address, ANSWER_SECONDS) as connection:
        connection.settimeout(ANSWER_SECONDS)
        received = b""
        # A server may have answered and closed before all was said: then its answer is there to be read all the same.
        with contextlib.suppress(OSError):
            connection.sendall(said)
            if is_half(said):
                connection.shutdown(socket.SHUT_WR)
        try:
            while len(received) < 1 << 20 and (part := connection.recv(1 << 16)):
                received += part
                if (told := _whole(received, is_head=b"HEAD" in said[:4])) is not None:
                    return told
        except (ConnectionResetError, BrokenPipeError):
            pass
    return _whole(received, is_all=True) or Told(None, {}, received)


def is_half(said: bytes) -> bool:
    """Whether a server may wait for more."""
    head, _, body = said.partition(b"\r\n\r\n")
    length = re.search(rb"^content-length: *(\d+)\r?$", head, re.IGNORECASE | re.MULTILINE)
    if length is not None:
        return len(body) < int(length[1])
    return b"chunked" in head and not body.endswith(b"\r\n\r\n")


def _whole(received: bytes, *, is_head: bool = False, is_all: bool = False) -> Told | None:
    """The answer in these bytes, if it is all there."""
    head, found, body = received.partition(b"\r\n\r\n")
    if not found:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = headers.get("content-length")
    status = int(first.split()[1])
    has_no_body = is_head or status in (101, 204)
    if is_all or has_no_body or (length is not None and len(body) >= int(length)):
        return Told(status, headers, body)
    return None


def is_envelope(told: Told) -> bool:
    """Whether it is an error in the one form of all."""
    try:
        body = json.loads(told.body)
    except ValueError:
        return False
    return isinstance(body, dict) and body.get("statusCode") == told.status and bool(body.get("message"))
