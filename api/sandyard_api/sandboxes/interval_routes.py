"""When a sandbox is stopped, paused, archived and deleted by itself; mounted by `routes`. Intervals are in minutes."""

from litestar import post
from litestar.di import NamedDependency as Given
from litestar.di import Provide
from litestar.params import FromPath

from sandyard_api.access import may
from sandyard_api.errors import BadRequest
from sandyard_api.jobs.wire import KeyGrant
from sandyard_api.sandboxes.presenting import Full, Presenter
from sandyard_api.sandboxes.requests import (
    AUTO_DELETE_OFF,
    archive_minutes,
    check_interval,
)
from sandyard_api.sandboxes.service import Sandboxes
from sandyard_api.validation import MAX_INTEGER


def provide_minutes(interval: FromPath[str]) -> int:
    """The number in a path. Raises `BadRequest`."""
    try:
        number = int(interval) if len(interval) <= 11 else MAX_INTEGER + 1
    except ValueError as error:
        raise BadRequest("Validation failed (numeric string is expected)") from error
    if abs(number) > MAX_INTEGER:
        raise BadRequest(f"an interval must not be greater than {MAX_INTEGER}")
    return number


def interval(name: str) -> post:
    """A handler of one interval, which is given its `minutes`."""
    minutes = Provide(provide_minutes, sync_to_thread=False)
    return post(
        f"/{{sandbox_ref:str}}/{name}/{{interval:str}}",
        status_code=200,
        guards=[may("write:sandboxes")],
        dependencies={"minutes": minutes},
    )


@interval("autostop")
async def set_auto_stop(
    sandboxes: Given[Sandboxes], grant: Given[KeyGrant], present: Given[Presenter], key: Given[str], minutes: Given[int]
) -> Full:
    """setAutostopInterval"""
    check_interval("Auto-stop", minutes)
    return present.full(await sandboxes.set_auto_stop(grant.organization_id, key, minutes))


@interval("autopause")
async def set_auto_pause(
    sandboxes: Given[Sandboxes], grant: Given[KeyGrant], present: Given[Presenter], key: Given[str], minutes: Given[int]
) -> Full:
    """setAutoPauseInterval"""
    check_interval("Auto-pause", minutes)
    return present.full(await sandboxes.set_auto_pause(grant.organization_id, key, minutes))


@interval("autoarchive")
async def set_auto_archive(
    sandboxes: Given[Sandboxes], grant: Given[KeyGrant], present: Given[Presenter], key: Given[str], minutes: Given[int]
) -> Full:
    """setAutoArchiveInterval"""
    check_interval("Auto-archive", minutes)
    stored = archive_minutes(minutes)
    return present.full(await sandboxes.change(grant.organization_id, key, auto_archive_minutes=stored))


@interval("autodelete")
async def set_auto_delete(
    sandboxes: Given[Sandboxes], grant: Given[KeyGrant], present: Given[Presenter], key: Given[str], minutes: Given[int]
) -> Full:
    """setAutoDeleteInterval"""
    stored = max(minutes, AUTO_DELETE_OFF)
    return present.full(await sandboxes.change(grant.organization_id, key, auto_delete_minutes=stored))


@interval("ttl")
async def set_ttl(
    sandboxes: Given[Sandboxes], grant: Given[KeyGrant], present: Given[Presenter], key: Given[str], minutes: Given[int]
) -> Full:
    """setTtl"""
    check_interval("TTL", minutes)
    return present.full(await sandboxes.set_ttl(grant.organization_id, key, minutes))


HANDLERS = (set_auto_stop, set_auto_pause, set_auto_archive, set_auto_delete, set_ttl)
