"""The command logs of a failed test's report."""

from collections.abc import Sequence
from typing import Any

import pytest

from sandyard.testing import client
from sandyard.testing.client import Door, Yard

JOURNAL = {"records": [{"sandbox": "box", "operation": "SessionExecuteCommand", "status": 200}]}
ENDED = {"command": "make", "exitCode": 3, "lastLines": "bm8K"}


class Recorded(Door):
    """A Sandyard whose record of one session goes on with each look; the last stays."""

    def __init__(self, *looks: Sequence[dict[str, Any]]) -> None:
        super().__init__("http://nowhere", "key")
        object.__setattr__(self, "looks", list(looks))

    looks: list[Sequence[dict[str, Any]]]

    def ask(self, method: str, path: str, body: object = None) -> Any:
        if path.startswith("/_sandyard/journal"):
            return JOURNAL
        if path.startswith("/api/sandbox"):
            return {"items": [{"id": "box"}]}
        if path.endswith("/sessions"):
            return {"sessions": [{"id": "s"}]}
        return {"id": "s", "commands": self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]}


@pytest.mark.parametrize("before", [[], [{"command": "make", "exitCode": None, "lastLines": None}]])
def test_the_last_command_is_waited_for(before: list[dict[str, Any]]) -> None:
    """It is the one that failed."""
    assert Yard(Recorded(before, before, [ENDED]), "").command_logs() == [("box s: make (exit code 3)", "no\n")]


def test_one_that_runs_on_is_shown_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "END_SECONDS", 0.1)
    runs = {"command": "serve", "exitCode": None, "lastLines": "b24K"}
    assert Yard(Recorded([runs]), "").command_logs() == [("box s: serve (running)", "on\n")]
