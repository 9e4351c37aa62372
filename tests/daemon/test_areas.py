"""Areas: loaded by their first request, once, and closed at the end."""

from pathlib import Path
from typing import cast

from sandyard_daemon.areas import Areas, Context
from sandyard_daemon.http.messages import Answer, Handler, Request, Response
from sandyard_daemon.wire.operations import Operation


class Recorder:
    """An area that counts what happens to it."""

    def __init__(self, name: str, history: list[str]) -> None:
        self.name = name
        self.history = history
        history.append(f"{name} loaded")

    def handlers(self) -> dict[str, Handler]:
        return {"First": self.answer, "Second": self.answer}

    async def answer(self, request: Request) -> Answer:
        return Response(200, self.name.encode())

    async def close(self) -> None:
        self.history.append(f"{self.name} closed")


class NoBody:
    """The body of a request that has none."""


def request(path: str) -> Request:
    return Request("GET", path, [], cast("object", NoBody()))  # type: ignore[arg-type]


async def test_an_area_is_loaded_by_its_first_request_and_closed_once(tmp_path: Path) -> None:
    history: list[str] = []
    loaders = {
        "/process/pty": lambda context: Recorder("pty", history),
        "/files": lambda context: Recorder("files", history),
    }
    areas = Areas(cast(Context, None), loaders)
    first = areas.handler(Operation("GET", "/files", "First", True))
    second = areas.handler(Operation("GET", "/files/info", "Second", True))
    assert first is not None
    assert second is not None
    assert areas.handler(Operation("GET", "/filesystem", "Third", True)) is None
    assert history == []
    for handler in (first, second, first):
        assert (await handler(request("/files"))) == Response(200, b"files")
    await areas.close()
    await areas.close()
    assert history == ["files loaded", "files closed"]


async def test_the_longest_prefix_names_the_area() -> None:
    history: list[str] = []
    loaders = {
        "/process": lambda context: Recorder("all", history),
        "/process/pty": lambda context: Recorder("pty", history),
    }
    handler = Areas(cast(Context, None), loaders).handler(Operation("GET", "/process/pty/{id}", "First", True))
    assert handler is not None
    assert await handler(request("/process/pty/x")) == Response(200, b"pty")
