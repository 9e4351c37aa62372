"""What `/_sandyard/` shows of a sandbox beyond the protocol: what is observed and wanted, and why."""

from datetime import datetime

import msgspec
from litestar import get
from litestar.di import NamedDependency as Given

from sandyard_api.jobs.wire import KeyGrant
from sandyard_api.origins import Origin
from sandyard_api.routing import Slice
from sandyard_api.sandboxes.schemas import SandboxDto, full
from sandyard_api.sandboxes.service import Sandboxes
from sandyard_api.sandboxes.states import Desired, Observed


class ChangeView(msgspec.Struct, rename="camel"):
    """One change of state and its cause."""

    at: datetime
    observed: Observed
    desired: Desired
    state: str
    """What clients saw from then on."""
    cause: str


class Inspection(msgspec.Struct, rename="camel"):
    """A sandbox and how it came to be what it is, oldest change first."""

    sandbox: SandboxDto
    observed: Observed
    desired: Desired
    image: str | None
    history: list[ChangeView]


@get("/{sandbox_ref:str}")
async def inspect(
    sandboxes: Given[Sandboxes],
    grant: Given[KeyGrant],
    origin: Given[Origin],
    key: Given[str],
) -> Inspection:
    """A sandbox with its history."""
    row, changes = await sandboxes.history(grant.organization_id, key)
    history = [ChangeView(c.at, c.observed, c.desired, c.shown, c.cause) for c in changes]
    return Inspection(full(row, origin.toolbox_url), row.observed, row.desired, row.image, history)


SLICE = Slice("/_sandyard/sandboxes", [inspect])
