"""A page of secrets: found, sorted and cut by a query."""

import base64
from collections.abc import Sequence

from sandyard_api.errors import BadRequest
from sandyard_api.queries import Query
from sandyard_api.secrets.models import Secret
from sandyard_api.secrets.schemas import SecretPage, secret_dto

SORTS = {"name": "name", "createdAt": "created_at", "updatedAt": "updated_at"}
MAX_LIMIT, DEFAULT_LIMIT = 200, 100


def page_of(rows: Sequence[Secret], query: Query) -> SecretPage:
    """The page that a query asks for. An organization has few enough for this to be done here. Raises `BadRequest`."""
    limit = query.whole("limit", DEFAULT_LIMIT, minimum=1, maximum=MAX_LIMIT)
    column = SORTS[query.choice("sort", tuple(SORTS), "createdAt")]
    is_descending = query.choice("order", ("asc", "desc"), "desc") == "desc"
    part = (query.text("name") or "").lower()
    found = [row for row in rows if part in row.name.lower()]
    found.sort(key=lambda row: (getattr(row, column), row.id), reverse=is_descending)
    start = _after(found, query.text("cursor"))
    page = found[start : start + limit]
    more = start + limit < len(found)
    cursor = base64.urlsafe_b64encode(page[-1].id.encode()).decode() if page and more else None
    return SecretPage([secret_dto(row) for row in page], len(found), cursor)


def _after(found: Sequence[Secret], cursor: str | None) -> int:
    if cursor is None:
        return 0
    try:
        last = base64.b64decode(cursor, altchars=b"-_", validate=True).decode()
    except ValueError as error:
        raise BadRequest(f"Invalid cursor provided: {cursor}") from error
    places = [number for number, row in enumerate(found) if row.id == last]
    if not places:
        raise BadRequest(f"Invalid cursor provided: {cursor}")
    return places[0] + 1
