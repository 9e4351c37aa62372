"""Request bodies of warm pools. The messages are the platform's."""

import msgspec

from sandyard_api.errors import NotFound
from sandyard_api.validation import Fields

MAX_POOL = 1000
"""Started sandboxes cost memory while they wait: more than this is a slip of the keyboard on one machine."""


class NewPool(msgspec.Struct, frozen=True):
    """A pool to be made."""

    snapshot: str
    """Name or id."""
    size: int


def read_new_pool(body: object, *, region: str) -> NewPool:
    """The body of a create. Raises `BadRequest`, and `NotFound` for another region."""
    fields = Fields(body)
    snapshot, target = fields.string("snapshot"), fields.string("target")
    if not snapshot:
        fields.complain("snapshot should not be empty")
    size = _read_size(fields, minimum=1)
    fields.check()
    if target and target != region:
        raise NotFound("Region not found")
    return NewPool(snapshot or "", size)


def read_size(body: object) -> int:
    """The body of a change; 0 drains the pool. Raises `BadRequest`."""
    fields = Fields(body)
    size = _read_size(fields, minimum=0)
    fields.check()
    return size


def _read_size(fields: Fields, *, minimum: int) -> int:
    size = fields.integer("pool", minimum=minimum)
    if fields.raw("pool") is None:
        fields.complain("pool must be a number conforming to the specified constraints")
    elif size is not None and size > MAX_POOL:
        fields.complain(f"pool must not be greater than {MAX_POOL}")
    return size or 0
