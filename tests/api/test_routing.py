"""From slices to routers."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
from litestar import get
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency as Given
from litestar.di import Provide
from litestar.handlers import BaseRouteHandler
from litestar.params import FromPath

from sandyard.virtual_clock import VirtualClock
from sandyard_api.asgi import App, Message
from sandyard_api.problems import Problems
from sandyard_api.routing import Routers, Slice, build_router
from tests.proxy.doubles import until


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


@get("/{name:str}")
async def named(name: FromPath[str]) -> str:
    """Whatever it is called."""
    return name


@get("/")
async def root() -> str:
    """Of the root."""
    return "root"


def test_two_handlers_for_the_same_are_refused() -> None:
    for slices in ([Slice("/s", [one]), Slice("/s/", [two])], [Slice("/s", [one, two])]):
        with pytest.raises(ValueError, match=r"more than one handler for GET /s/a/\{name:str\}"):
            build_router(slices, {}, Problems(VirtualClock()), guard=nobody, max_body_bytes=1)
    build_router([Slice("/s", [one]), Slice("/t", [two])], {}, Problems(VirtualClock()), guard=nobody, max_body_bytes=1)


def routers(slices: list[Slice], built: list[list[str]]) -> Routers:
    """Those of these slices; `built` is told of each that is made."""

    def build(part: Sequence[Slice]) -> App:
        built.append(sorted(path for each in part for handler in each.handlers for path in each.paths(handler)))
        return build_router(part, {}, Problems(VirtualClock()), guard=nobody, max_body_bytes=1)

    return Routers(slices, build)


async def get_path(app: App, path: str) -> tuple[int, bytes]:
    """Status and body."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    headers: list[tuple[bytes, bytes]] = []
    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": headers, "root_path": ""}
    await app(scope, receive, send)
    return sent[0]["status"], b"".join(each.get("body", b"") for each in sent)


async def test_a_router_is_built_when_the_first_request_for_it_comes() -> None:
    built: list[list[str]] = []
    app = routers([Slice("/s", [one]), Slice("/s/b", [two]), Slice("/t", [two])], built)
    assert built == []
    assert await get_path(app, "/s/a/x") == (200, b"x")
    assert await get_path(app, "//s//a/y") == (200, b"y")
    assert built == [["/s/a/{name:str}"]]
    assert await get_path(app, "/s/b/a/z") == (200, b"z")
    assert built[1:] == [["/s/b/a/{name:str}"]]


async def test_routers_are_built_in_quiet_before_anybody_asks() -> None:
    built: list[list[str]] = []
    app = routers([Slice("/s", [one]), Slice("/t", [two]), Slice("/u", [one])], built)
    await get_path(app, "/t/a/x")
    async with app.preparing():
        assert built == [["/t/a/{name:str}"]]
        await until(lambda: len(built) == 3)
    assert sorted(built) == [["/s/a/{name:str}"], ["/t/a/{name:str}"], ["/u/a/{name:str}"]]
    assert await get_path(app, "/u/a/y") == (200, b"y")
    assert len(built) == 3


async def test_preparing_ends_with_its_block() -> None:
    built: list[list[str]] = []
    async with routers([Slice("/s", [one]), Slice("/t", [two])], built).preparing():
        await asyncio.sleep(0)
    await asyncio.sleep(0.02)
    assert len(built) == 1
    assert len(asyncio.all_tasks()) == 1


async def test_paths_that_nobody_has_share_one_router() -> None:
    built: list[list[str]] = []
    app = routers([Slice("/s", [one])], built)
    for path in ("/", "/s", "/nothing", "/nothing/at/all"):
        status, body = await get_path(app, path)
        assert (status, b"Cannot GET" in body) == (404, True)
    assert built == [[]]


async def test_a_handler_of_the_root_is_found_whatever_was_asked_before() -> None:
    app = routers([Slice("/", [root])], [])
    assert [(await get_path(app, path))[0] for path in ("/nothing", "/", "/nothing")] == [404, 200, 404]


def test_paths_begin_with_names() -> None:
    with pytest.raises(ValueError, match=r"paths begin with \{name:str\}"):
        routers([Slice("/", [named])], [])
    with pytest.raises(ValueError, match="more than one handler"):
        routers([Slice("/s", [one, two])], [])


@get("/both")
async def both(upper: Given[str], other: Given[str]) -> list[str]:
    """What it asks for."""
    return [upper, other, str(id(asyncio.current_task()))]


async def test_what_a_handler_asks_for_is_made_in_turn_in_the_request_s_own_task() -> None:
    tasks: list[str] = []

    def make(value: str) -> str:
        tasks.append(str(id(asyncio.current_task())))
        return value

    given = {
        "lower": Provide(lambda: make("a"), sync_to_thread=False),
        "upper": Provide(raised, sync_to_thread=False),
        "other": Provide(lambda: make("b"), sync_to_thread=False),
    }
    app = build_router([Slice("/", [both])], given, Problems(VirtualClock()), guard=nobody, max_body_bytes=1)
    _, body = await get_path(app, "/both")
    upper, other, task = json.loads(body)
    assert (upper, other) == ("A", "b")
    assert tasks == [task, task]


def raised(lower: Given[str]) -> str:
    """Made of another."""
    return lower.upper()
