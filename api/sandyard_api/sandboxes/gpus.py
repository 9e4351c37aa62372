"""GPUs: what a request may say of them, and why there are none here. *Source:* control-plane.md 4.1."""

from sandyard_api.errors import BadRequest
from sandyard_api.validation import Fields

TYPES = ("H100", "H200", "RTX-PRO-6000", "RTX-4090", "RTX-5090")
WHY = "no runtime of Sandyard hands GPUs to sandboxes"
FROM_SNAPSHOT = "Cannot specify GPU type when creating sandbox from snapshot. GPU type is inherited from snapshot."
NOT_EPHEMERAL = "GPU sandboxes must be ephemeral - set autoDeleteInterval to 0"


def read_gpu(fields: Fields) -> tuple[str, ...] | None:
    """The types of GPU asked for, none where any would do; `None` where no GPU is. Complaints are left in `fields`."""
    count, given = fields.integer("gpu", minimum=0), fields.raw("gpuType")
    if count is not None and count > 1:
        fields.complain("gpu must not be greater than 1")
    types = [given] if isinstance(given, str) else [] if given is None else given
    if not isinstance(types, list) or any(value not in TYPES for value in types):
        fields.complain(f"each value in gpuType must be one of the following values: {', '.join(TYPES)}")
        return None
    if given is not None and not types:
        fields.complain("gpuType should not be empty")
    return tuple(types) if count or types else None


def refuse_gpu(types: tuple[str, ...] | None) -> None:
    """Raise `BadRequest`, as where no runner has one, for a request that wants a GPU."""
    if types is not None:
        raise BadRequest(f"No available runners for GPU type {', '.join(types) or 'any'}: {WHY}")
