"""Arithmetic with moments inside the database, where SQLite and PostgreSQL have no words in common."""

from datetime import datetime
from typing import Any

from sqlalchemy import Boolean, literal
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import FunctionElement
from sqlalchemy.sql.roles import ExpressionElementRole

from sandyard_api.database import UtcDateTime


class is_due(FunctionElement[bool]):
    """Whether `minutes` after `since` it is `now` or later, to within a millisecond: look at the row again."""

    type = Boolean()
    inherit_cache = True

    def __init__(
        self, since: ExpressionElementRole[datetime], minutes: ExpressionElementRole[int], now: datetime
    ) -> None:
        super().__init__(since, minutes, literal(now, UtcDateTime()))


@compiles(is_due, "sqlite")
def _sqlite(element: is_due, compiler: Any, **how: Any) -> str:
    since, minutes, now = (compiler.process(each, **how) for each in element.clauses)
    # Days as a floating point number, good to some 50 microseconds.
    return f"julianday({since}) + {minutes} / 1440.0 <= julianday({now}) + 0.001 / 86400"


@compiles(is_due, "postgresql")
def _postgresql(element: is_due, compiler: Any, **how: Any) -> str:
    since, minutes, now = (compiler.process(each, **how) for each in element.clauses)
    return f"{since} + make_interval(mins => {minutes}) <= {now}"
