"""Listing sandboxes: filters, both kinds of pages, and the query strings in all the forms that clients send."""

import base64
import binascii
import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Select, and_, func, literal, or_, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute

from sandyard_api.database import UNSTORABLE, Database
from sandyard_api.errors import BadRequest
from sandyard_api.queries import Query
from sandyard_api.sandboxes.models import Sandbox
from sandyard_api.sandboxes.states import SHOWN, Desired, Observed, Shown
from sandyard_api.validation import MAX_INTEGER

MAX_LIMIT = 200
DEFAULT_LIMIT = 100
MAX_UNPAGED = 1000
UNQUOTABLE = re.compile(r'["\\]')
"""What no JSON path of SQLite can hold."""
CURSOR_KINDS: Mapping[str, type] = {"name": str, "lastActivityAt": datetime, "createdAt": datetime}
"""What a cursor holds by sort; the others are whole numbers."""

SORTS: Mapping[str, InstrumentedAttribute[Any]] = {
    "name": Sandbox.name,
    "cpu": Sandbox.cpu,
    "memoryGib": Sandbox.memory_gib,
    "diskGib": Sandbox.disk_gib,
    "lastActivityAt": Sandbox.last_activity_at,
    "createdAt": Sandbox.created_at,
}
NUMBERED_SORTS: Mapping[str, InstrumentedAttribute[Any]] = {
    "id": Sandbox.id,
    "name": Sandbox.name,
    "state": Sandbox.observed,
    "snapshot": Sandbox.snapshot,
    "region": Sandbox.region,
    "updatedAt": Sandbox.updated_at,
    "createdAt": Sandbox.created_at,
    "lastActivityAt": Sandbox.last_activity_at,
}


class CursorRows(msgspec.Struct, frozen=True):
    """A page and what asks for the next one."""

    rows: Sequence[Sandbox]
    next_cursor: str | None


class NumberedRows(msgspec.Struct, frozen=True):
    """A page by number."""

    rows: Sequence[Sandbox]
    total: int
    page: int
    total_pages: int


class Listing:
    """Reads lists. Destroyed sandboxes are in none."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def by_cursor(self, organization_id: str, query: Query) -> CursorRows:
        """A page in the order asked for. Raises `BadRequest`."""
        limit = query.whole("limit", DEFAULT_LIMIT, minimum=1, maximum=MAX_LIMIT)
        sort = query.choice("sort", tuple(SORTS), "lastActivityAt")
        descending = query.choice("order", ("asc", "desc"), "desc") == "desc"
        column = SORTS[sort]
        warm = bool(query.flag("includeWarm"))
        statement = select(Sandbox).where(*conditions(organization_id, query, include_warm=warm))
        if cursor := query.text("cursor"):
            value, last_id = read_cursor(cursor, CURSOR_KINDS.get(sort, int))
            statement = statement.where(_after(column, value, last_id, descending=descending))
        statement = _ordered(statement, column, descending=descending).limit(limit + 1)
        async with self._database.reading() as db:
            rows = (await db.scalars(statement)).all()
        if len(rows) <= limit:
            return CursorRows(rows, None)
        last = rows[limit - 1]
        return CursorRows(rows[:limit], make_cursor(getattr(last, column.key), last.id))

    async def everything(self, organization_id: str, query: Query) -> Sequence[Sandbox]:
        """All that match, newest first: what the oldest clients ask for. Raises `BadRequest`."""
        where = conditions(organization_id, query)
        statement = _ordered(select(Sandbox).where(*where), Sandbox.created_at, descending=True)
        async with self._database.reading() as db:
            return (await db.scalars(statement.limit(MAX_UNPAGED))).all()

    async def by_number(self, organization_id: str, query: Query) -> NumberedRows:
        """A page of the older list. Raises `BadRequest`."""
        page = query.whole("page", 1, minimum=1, maximum=1_000_000)
        limit = query.whole("limit", DEFAULT_LIMIT, minimum=1, maximum=MAX_LIMIT)
        column = NUMBERED_SORTS[query.choice("sort", tuple(NUMBERED_SORTS), "createdAt")]
        descending = query.choice("order", ("asc", "desc"), "desc") == "desc"
        where = conditions(organization_id, query)
        statement = _ordered(select(Sandbox).where(*where), column, descending=descending)
        async with self._database.reading() as db:
            total = await db.scalar(select(func.count()).select_from(Sandbox).where(*where)) or 0
            rows = (await db.scalars(statement.limit(limit).offset((page - 1) * limit))).all()
        return NumberedRows(rows, total, page, max(1, math.ceil(total / limit)))


def conditions(organization_id: str, query: Query, *, include_warm: bool = False) -> list[ColumnElement[bool]]:
    """The filters of a query. Raises `BadRequest`."""
    unclaimed = Sandbox.claimed_at.is_(None) if include_warm else Sandbox.warm_pool_id.is_(None)
    found: list[ColumnElement[bool]] = [
        Sandbox.organization_id == organization_id,
        Sandbox.observed != Observed.DESTROYED,
        or_(Sandbox.warm_pool_id.is_(None), unclaimed),
    ]
    if not query.flag("includeErroredDeleted"):
        found.append(
            or_(Sandbox.desired != Desired.DESTROYED, Sandbox.observed.not_in((Observed.ERROR, Observed.BUILD_FAILED)))
        )
    found += _text_filters(query)
    found += _range_filters(query)
    if (public := query.flag("isPublic")) is not None:
        found.append(Sandbox.public == public)
    if (recoverable := query.flag("isRecoverable")) is not None:
        found.append(Sandbox.recoverable == recoverable)
    return found


def _text_filters(query: Query) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    for name, column in (("id", Sandbox.id), ("name", Sandbox.name)):
        if prefix := query.text(name):
            found.append(func.lower(column).startswith(prefix.lower(), autoescape=True))
    for key, value in read_labels(query.text("labels")).items():
        found.append(Sandbox.labels[key].as_string() == value)
    if states := query.texts("states"):
        found.append(_shown_in(states))
    if snapshots := query.texts("snapshots"):
        found.append(Sandbox.snapshot.in_(snapshots))
    if regions := query.texts("regionIds"):
        found.append(Sandbox.region.in_(regions))
    if classes := query.texts("sandboxClasses"):
        found.append(Sandbox.id.is_not(None) if "container" in classes else Sandbox.id.is_(None))
    return found


def _range_filters(query: Query) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    numbers = {"Cpu": Sandbox.cpu, "Gpu": Sandbox.gpu, "MemoryGiB": Sandbox.memory_gib, "DiskGiB": Sandbox.disk_gib}
    for name, column in numbers.items():
        if (least := query.number(f"min{name}")) is not None:
            found.append(column >= least)
        if (most := query.number(f"max{name}")) is not None:
            found.append(column <= most)
    times = {
        "createdAt": Sandbox.created_at,
        "lastEvent": Sandbox.last_activity_at,
        "autoDestroyAt": Sandbox.auto_destroy_at,
    }
    for name, moment in times.items():
        if (after := query.time(f"{name}After")) is not None:
            found.append(moment >= after)
        if (before := query.time(f"{name}Before")) is not None:
            found.append(moment <= before)
    return found


def read_labels(text: str | None) -> dict[str, str]:
    """The label filter. Raises `BadRequest`."""
    if text is None:
        return {}
    try:
        labels = msgspec.json.decode(text, type=dict[str, str])
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise BadRequest("Invalid labels JSON format") from error
    if any(UNSTORABLE.search(key + value) for key, value in labels.items()):
        raise BadRequest("labels must not contain NUL characters")
    if any(UNQUOTABLE.search(key) for key in labels):
        raise BadRequest("labels cannot be filtered by a key with quotes or backslashes")
    return labels


def make_cursor(value: Any, row_id: str) -> str:
    """Where a page ended."""
    return base64.urlsafe_b64encode(msgspec.json.encode({"sortValue": value, "id": row_id})).decode()


def read_cursor(cursor: str, kind: type) -> tuple[Any, str]:
    """What `make_cursor` wrote. Raises `BadRequest`."""
    try:
        content = msgspec.json.decode(base64.b64decode(cursor, altchars=b"-_", validate=True))
        value, row_id = content["sortValue"], content["id"]
        value = datetime.fromisoformat(value).astimezone(UTC) if kind is datetime else value
    except (
        binascii.Error,
        msgspec.MsgspecError,
        UnicodeError,
        ValueError,
        OverflowError,
        KeyError,
        TypeError,
    ) as error:
        raise BadRequest(f"Invalid cursor provided: {cursor}") from error
    if not isinstance(row_id, str) or UNSTORABLE.search(row_id) or not _is_cursor_value(value, kind):
        raise BadRequest(f"Invalid cursor provided: {cursor}")
    return value, row_id


def _is_cursor_value(value: object, kind: type) -> bool:
    if isinstance(value, str) and UNSTORABLE.search(value):
        return False
    in_range = not isinstance(value, int) or abs(value) <= MAX_INTEGER
    return type(value) is kind and in_range


def _shown_in(states: Sequence[str]) -> ColumnElement[bool]:
    known = [state.value for state in Shown]
    if not set(states) <= set(known):
        raise BadRequest(f"each value in states must be one of the following values: {', '.join(known)}")
    pairs = [pair for pair, shown in SHOWN.items() if shown in states]
    matching = [and_(Sandbox.observed == observed, Sandbox.desired == desired) for observed, desired in pairs]
    return or_(*matching) if matching else Sandbox.id.is_(None)


def _after(column: InstrumentedAttribute[Any], value: Any, last_id: str, *, descending: bool) -> ColumnElement[bool]:
    here, last = tuple_(column, Sandbox.id), tuple_(literal(value, column.type), literal(last_id))
    return here < last if descending else here > last


def _ordered(statement: Select[Sandbox], column: InstrumentedAttribute[Any], *, descending: bool) -> Select[Sandbox]:
    if descending:
        return statement.order_by(column.desc(), Sandbox.id.desc())
    return statement.order_by(column.asc(), Sandbox.id.asc())
