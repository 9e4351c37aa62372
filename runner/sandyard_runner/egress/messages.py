"""The little of DNS messages that a forwarder needs to read and write. *Source:* RFC 1035."""

import ipaddress
import secrets
import struct

import msgspec

A, CNAME, AAAA, SVCB, HTTPS = 1, 5, 28, 64, 65
REFUSED, SERVER_FAILURE = 5, 2
HEADER_BYTES = 12
QUERY, ANSWER_FLAGS, RECURSION_WANTED = 0x0000, 0x8180, 0x0100
MAX_LABEL = 63
POINTER = 0xC0


class BadMessage(ValueError):
    """Not a DNS message that we can read."""


class Question(msgspec.Struct, frozen=True):
    """The one question of a query."""

    name: str
    """Lower case, without the dot at the end."""
    kind: int
    end: int
    """Where the question ends in the message."""


def read_question(message: bytes) -> Question:
    """The question of a query. Raises `BadMessage`."""
    try:
        flags, count = struct.unpack_from("!HH", message, 2)
        if flags & 0xF800 or count != 1:
            raise BadMessage("not a query with one question")
        name, end = _name(message, HEADER_BYTES)
        kind, _ = struct.unpack_from("!HH", message, end)
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise BadMessage("cut short") from error
    return Question(name.lower(), kind, end + 4)


def empty_answer(query: bytes, question: Question, code: int = 0) -> bytes:
    """An answer without records: there are none of that kind, or `code` says why not."""
    return query[:2] + struct.pack("!HHHHH", ANSWER_FLAGS | code, 1, 0, 0, 0) + query[HEADER_BYTES : question.end]


def make_query(name: str, kind: int = A) -> bytes:
    """A query under a random number."""
    labels = [label.encode("idna") for label in name.rstrip(".").split(".")]
    packed = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    return (
        secrets.token_bytes(2)
        + struct.pack("!HHHHH", RECURSION_WANTED, 1, 0, 0, 0)
        + packed
        + struct.pack("!HH", kind, 1)
    )


def addresses(answer: bytes) -> list[tuple[str, int]]:
    """IPv4 addresses of an answer, each with its time to live in seconds. Raises `BadMessage`."""
    found = []
    try:
        questions, answers = struct.unpack_from("!HH", answer, 4)
        place = HEADER_BYTES
        for _ in range(questions):
            place = _name(answer, place)[1] + 4
        for _ in range(answers):
            place = _name(answer, place)[1]
            kind, _, ttl, length = struct.unpack_from("!HHIH", answer, place)
            place += 10
            if kind == A and length == 4:
                found.append((str(ipaddress.IPv4Address(answer[place : place + 4])), ttl))
            place += length
    except (struct.error, IndexError, UnicodeDecodeError, ValueError) as error:
        raise BadMessage("cut short") from error
    return found


def _name(message: bytes, place: int) -> tuple[str, int]:
    """A name and where it ends; pointers are only followed backwards, so that this comes to an end."""
    labels, end, limit = [], 0, place
    while (length := message[place]) != 0:
        if length & POINTER == POINTER:
            end = end or place + 2
            target = struct.unpack_from("!H", message, place)[0] & 0x3FFF
            if target >= limit:
                raise BadMessage("a pointer that leads forwards")
            place = limit = target
        elif length > MAX_LABEL:
            raise BadMessage("a label that is too long")
        else:
            labels.append(message[place + 1 : place + 1 + length].decode("ascii"))
            place += length + 1
    return ".".join(labels), end or place + 1
