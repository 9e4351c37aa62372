"""A refusal of the API, as the command line and the test bench's client tell it."""

import io
from collections.abc import Callable
from email.message import Message
from urllib.error import HTTPError

import click
import pytest

from sandyard.cli.client import Client
from sandyard.testing.client import BenchError, Door


@pytest.mark.parametrize(
    ("module", "ask", "failure"),
    [
        ("sandyard.cli.client", lambda: Client("http://sandyard", "key").get("/api"), click.ClickException),
        ("sandyard.testing.client", lambda: Door("http://sandyard", "key").ask("GET", "/api"), BenchError),
    ],
)
@pytest.mark.parametrize(
    ("body", "words"), [(b'{"message": "not now"}', "not now"), (b"<html>", "503 Service Unavailable")]
)
def test_it_is_told_in_words_and_its_answer_closed(
    module: str,
    ask: Callable[[], object],
    failure: type[Exception],
    body: bytes,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer = io.BytesIO(body)

    def refuse(*_: object, **__: object) -> None:
        raise HTTPError("http://sandyard/api", 503, "Service Unavailable", Message(), answer)

    monkeypatch.setattr(f"{module}.urlopen", refuse)
    with pytest.raises(failure, match=words) as told:  # keeps the refusal: going away would close its answer, too
        ask()
    assert answer.closed
    assert told.value.__cause__ is not None
