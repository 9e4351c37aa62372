"""From slices to one router."""

from typing import Any

import pytest
from litestar import get
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.params import FromPath

from sandyard.virtual_clock import VirtualClock
from sandyard_api.problems import Problems
from sandyard_api.routing import Slice, build_router


async def nobody(_connection: ASGIConnection[Any, Any, Any, Any], _handler: BaseRouteHandler) -> None:
    """Lets everybody in."""


@get("/a/{name:str}")
async def one(name: FromPath[str]) -> str:
    """An operation."""
    return name


@get("/a/{name:str}")
async def two(name: FromPath[str]) -> str:
    """Another for the same."""
    return name


def test_two_handlers_for_the_same_are_refused() -> None:
    for slices in ([Slice("/s", [one]), Slice("/s/", [two])], [Slice("/s", [one, two])]):
        with pytest.raises(ValueError, match=r"more than one handler for GET /s/a/\{name:str\}"):
            build_router(slices, {}, Problems(VirtualClock()), guard=nobody, max_body_bytes=1)
    build_router([Slice("/s", [one]), Slice("/t", [two])], {}, Problems(VirtualClock()), guard=nobody, max_body_bytes=1)
