"""Bodies of the test bench's routes, decoded strictly: an unknown field is an error that names it."""

from datetime import datetime
from typing import Literal, TypeVar

import msgspec

from sandyard_api.access import AnyRequest
from sandyard_api.errors import BadRequest

Body = TypeVar("Body")


async def strict(request: AnyRequest, kind: type[Body]) -> Body:
    """The request's body; an empty one is `{}`. Raises `BadRequest` with the path of what is wrong."""
    try:
        return msgspec.json.decode(await request.body() or b"{}", type=kind)
    except msgspec.MsgspecError as error:
        raise BadRequest(str(error)) from error


class ClockMove(msgspec.Struct, forbid_unknown_fields=True):
    """One move of the clock."""

    action: Literal["freeze", "set", "advance", "run-until-idle", "release"]
    at: datetime | None = None
    """For `set`, and if wanted for `freeze`: RFC 3339 with a time zone."""
    seconds: float | None = None
    """For `advance`."""


class ClockView(msgspec.Struct, rename="camel"):
    """Where the clock stands."""

    mode: str
    now: datetime
    machine_now: datetime
    offset_seconds: float
    steps: int = 0
    """How many moments, with something due at each, the move went through."""


class Reset(msgspec.Struct, forbid_unknown_fields=True):
    """What to remove."""

    scope: Literal["organization", "all"] = "organization"
    seed: int | None = None
    """With `all`: begin the identifiers of this seed anew."""


class ResetView(msgspec.Struct, rename="camel"):
    """What was removed."""

    sandboxes: int
    rows: int
    organizations: int


class NewOrganization(msgspec.Struct, forbid_unknown_fields=True):
    """An organization for one test or one worker."""

    name: str | None = None


class OrganizationView(msgspec.Struct, rename="camel"):
    """The organization and its only key, which is told once."""

    id: str
    name: str
    api_key: str
