"""Messages about rules on the bus: every proxy and runner has all rules, and each says what it did.

Counts are kept where a rule is applied; with several proxies each counts what came to it.
"""

from typing import Literal

import msgspec

from sandyard.faults.rules import Rule

CHANNEL_FAULTS = "faults"
"""Payload: one of the messages below as JSON. A lost one costs a test, nothing else."""


class Message(msgspec.Struct, frozen=True, tag_field="op", kw_only=True):
    """Base of all."""

    sender: str


class Add(Message, frozen=True, tag="add"):
    """A rule is in force."""

    id: str
    organization_id: str
    rule: Rule


class Remove(Message, frozen=True, tag="remove"):
    """These are not any more."""

    ids: list[str]


class Hello(Message, frozen=True, tag="hello"):
    """Somebody new asks for the rules."""


class Strike(Message, frozen=True, tag="strike"):
    """A runner that has this sandbox shall let it end."""

    token: str
    sandbox_id: str
    kind: Literal["die", "out-of-memory"]


class Struck(Message, frozen=True, tag="struck"):
    """It did, or could not."""

    token: str
    problem: str | None = None


AnyMessage = Add | Remove | Hello | Strike | Struck


def encode(message: AnyMessage) -> bytes:
    """As it goes over the bus."""
    return msgspec.json.encode(message)


def decode(payload: bytes) -> AnyMessage | None:
    """A message, or `None` for what is none of this version's."""
    try:
        return msgspec.json.decode(payload, type=AnyMessage)  # type: ignore[no-any-return]
    except msgspec.MsgspecError:
        return None
