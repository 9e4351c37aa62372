"""The test bench under `/_sandyard/`: clock, reset, isolated organizations."""

from typing import TypeVar

from litestar import delete, get, post
from litestar.di import NamedDependency as Given
from litestar.params import FromPath

from sandyard_api.access import AnyRequest
from sandyard_api.bench.bodies import (
    ClockMove,
    ClockView,
    NewOrganization,
    OrganizationView,
    Reset,
    ResetView,
    strict,
)
from sandyard_api.bench.clock import ClockControl, Moved
from sandyard_api.bench.resetting import Resetting
from sandyard_api.errors import BadRequest
from sandyard_api.jobs.wire import KeyGrant
from sandyard_api.routing import Slice

Value = TypeVar("Value")


@get("/clock")
async def read_clock(clock_control: Given[ClockControl]) -> ClockView:
    """Where virtual time stands."""
    return _view(clock_control, Moved(0))


@post("/clock", status_code=200)
async def move_clock(request: AnyRequest, clock_control: Given[ClockControl]) -> ClockView:
    """Freeze, set, advance, run until idle, release."""
    return _view(clock_control, await _moved(clock_control, await strict(request, ClockMove)))


@post("/reset", status_code=200)
async def reset(
    request: AnyRequest, resetting: Given[Resetting], clock_control: Given[ClockControl], grant: Given[KeyGrant]
) -> ResetView:
    """Remove an organization's sandboxes and records, or everybody's, and put the clock back in the second case."""
    wanted = await strict(request, Reset)
    if wanted.seed is not None and wanted.scope != "all":
        raise BadRequest("a seed begins anew only with scope `all`: other organizations hold its identifiers")
    if wanted.scope == "all":
        done = await resetting.everything(grant, wanted.seed)
        await clock_control.release()
        return done
    return await resetting.organization(grant.organization_id)


@post("/organizations", status_code=201)
async def make_organization(
    request: AnyRequest, resetting: Given[Resetting], grant: Given[KeyGrant]
) -> OrganizationView:
    """An isolated organization with a key of its own; the owner's key is needed."""
    return await resetting.new_organization(grant, (await strict(request, NewOrganization)).name)


@delete("/organizations/{organization_id:str}", status_code=200)
async def remove_organization(
    resetting: Given[Resetting], grant: Given[KeyGrant], organization_id: FromPath[str]
) -> ResetView:
    """Remove an isolated organization with all that it has."""
    return await resetting.remove_organization(grant, organization_id)


async def _moved(control: ClockControl, move: ClockMove) -> Moved:
    if move.at is not None and move.at.tzinfo is None:
        raise BadRequest("`at` needs a time zone, such as 2026-01-01T00:00:00Z")
    match move.action:
        case "freeze":
            return await control.freeze(move.at)
        case "set":
            return await control.set(_needed(move.at, "set", "at"))
        case "advance":
            return await control.advance(_needed(move.seconds, "advance", "seconds"))
        case "run-until-idle":
            return await control.run_until_idle()
        case "release":
            await control.release()
    return Moved(0)


def _needed(value: Value | None, action: str, name: str) -> Value:
    if value is None:
        raise BadRequest(f"`{action}` needs `{name}`")
    return value


def _view(control: ClockControl, moved: Moved) -> ClockView:
    now, machine = control.now()
    return ClockView(control.state.mode, now, machine, (now - machine).total_seconds(), moved.steps)


SLICE = Slice("/_sandyard", [read_clock, move_clock, reset, make_organization, remove_organization])
