"""Moving a sandbox's state: the only writer of `observed` and `desired`. Guarded by both, with the cause kept."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, update
from sqlalchemy.ext.asyncio import AsyncSession

from sandyard_api.errors import ApiError, BadRequest, Conflict, MovedMeanwhile, NotFound
from sandyard_api.sandboxes.models import Sandbox, StateChange
from sandyard_api.sandboxes.states import (
    REQUESTS,
    RESTING,
    SHOWN,
    SIGHTINGS,
    Desired,
    Observed,
    Pair,
    Refusal,
    Request,
    desired_after,
    refusal,
)

FAILED = (Observed.ERROR, Observed.BUILD_FAILED)
REFUSED: Mapping[Refusal, str] = {
    Refusal.ERRORED: "Sandbox is in an errored state",
    Refusal.NOT_STARTABLE: "Sandbox is not in valid state",
    Refusal.NOT_STOPPABLE: "Sandbox is not in a stoppable state",
    Refusal.NOT_STOPPED: "Sandbox is not stopped",
    Refusal.NOT_FAILED: "Sandbox must be in error state to recover",
}


class Move(msgspec.Struct, frozen=True):
    """A change that is in the transaction; to be announced after its commit."""

    row: Sandbox
    """After the move."""
    before: Pair | None
    """`None` for a new row."""


def refusal_error(row: Sandbox, asked: Request, why: Refusal) -> ApiError:
    """What clients are told when a request is not possible now. They match on these texts."""
    if why is Refusal.GONE:
        return not_found(row.name)
    if why is Refusal.CHANGING:
        return Conflict("Sandbox state change in progress")
    if why is Refusal.NOT_STARTED:
        return BadRequest(f"Sandbox must be in started state to {asked.value}")
    if why is Refusal.NOT_AT_REST:
        return BadRequest(f"Sandbox must be in started or stopped state to {asked.value}")
    return BadRequest(REFUSED[why])


def not_found(key: str) -> NotFound:
    """The answer for a sandbox that is not there, or not for this key."""
    return NotFound(f"Sandbox with ID or name {key} not found")


def record(db: AsyncSession, row: Sandbox, *, cause: str, at: datetime) -> None:
    """Keep why the row is as it is from now on."""
    shown = SHOWN[row.observed, row.desired].value
    db.add(StateChange(sandbox_id=row.id, at=at, observed=row.observed, desired=row.desired, shown=shown, cause=cause))


async def request(
    db: AsyncSession,
    row: Sandbox,
    asked: Request,
    *,
    cause: str,
    at: datetime,
    guard: ColumnElement[bool] | None = None,
    **values: Any,
) -> Move:
    """Apply a request to a row read in this transaction; `values` are written along with it.

    Raises what `refusal_error` says, and `MovedMeanwhile` when the row changed since it was read.
    """
    pair = REQUESTS.get((row.observed, row.desired, asked))
    if pair is None:
        raise refusal_error(row, asked, refusal(row.observed, row.desired, asked))
    return await _write(db, row, pair, cause=cause, at=at, guard=guard, **values)


async def sight(
    db: AsyncSession,
    row: Sandbox,
    seen: Observed,
    *,
    cause: str,
    at: datetime,
    asked_for: bool,
    **values: Any,
) -> Move | None:
    """Apply what a runner saw; `None` when it is no move. `asked_for`: a job led to it.

    Raises `MovedMeanwhile`.
    """
    desired = row.desired
    if seen is Observed.DESTROYED and desired is not Desired.DESTROYED:
        # Somebody else removed it: the user did not ask for that, so it must not vanish silently.
        seen, cause = Observed.ERROR, cause or "removed outside Sandyard"
    if not asked_for:
        desired = desired_after(seen, desired)
    if seen is not row.observed and seen not in SIGHTINGS[row.observed]:
        return None
    if (seen, desired) == (row.observed, row.desired):
        return None
    if seen in FAILED:
        values.setdefault("error_reason", cause)
    if seen is Observed.DESTROYED:
        values["destroyed_at"] = at
    return await _write(db, row, (seen, desired), cause=cause, at=at, guard=None, **values)


async def settle(db: AsyncSession, row: Sandbox, *, cause: str, at: datetime, **values: Any) -> Move | None:
    """After a job ended in the other resting state than the wanted one: want what is, so that nothing hangs."""
    resting = RESTING.get(row.observed)
    if resting is None or row.desired in (resting, Desired.DESTROYED):
        return None
    return await _write(db, row, (row.observed, resting), cause=cause, at=at, guard=None, **values)


async def _write(
    db: AsyncSession,
    row: Sandbox,
    pair: Pair,
    *,
    cause: str,
    at: datetime,
    guard: ColumnElement[bool] | None,
    **values: Any,
) -> Move:
    before = (row.observed, row.desired)
    if pair == before and not values:
        return Move(row, before)
    here = update(Sandbox).where(Sandbox.id == row.id, Sandbox.observed == row.observed, Sandbox.desired == row.desired)
    if guard is not None:
        here = here.where(guard)
    moved = await db.scalar(
        here.values(observed=pair[0], desired=pair[1], progressed_at=at, updated_at=at, last_activity_at=at, **values)
        .returning(Sandbox)
        .execution_options(synchronize_session=False, populate_existing=True)
    )
    if moved is None:
        raise MovedMeanwhile
    record(db, moved, cause=cause, at=at)
    return Move(moved, before)
