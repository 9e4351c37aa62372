"""Behaviour of the real service that bites clients, by name, as rules. Off by default.

*Source:* the public threads that control-plane.md 27 and toolbox-daemon.md 17 list; each quirk names its own.
"""

import msgspec

from sandyard.faults.rules import Close, Rewrite, Rule, RunnerGone, Slice, Status, Uncounted

MARK = "quirk:"


class Quirk(msgspec.Struct, frozen=True):
    """One of them."""

    name: str
    what: str
    source: str
    rule: Rule


def _rule(name: str, action: object, **conditions: object) -> Rule:
    return Rule(name=f"{MARK}{name}", action=action, **conditions)  # type: ignore[arg-type]


_ALL = (
    Quirk(
        "create-answers-creating",
        "A create answers `creating` although the sandbox runs: clients that do not wait use it too early.",
        "control-plane.md 27 and 28.2; daytonaio/daytona#2474",
        _rule("create-answers-creating", Rewrite(how="creating"), operation="createSandbox", count=0),
    ),
    Quirk(
        "list-lags",
        "A list does not show sandboxes of the last five seconds.",
        "issue 4 of this project; the list is served from a search index, control-plane.md 9",
        _rule("list-lags", Rewrite(how="hide-young", seconds=5.0), operation="listSandboxes", count=0),
    ),
    Quirk(
        "first-command-502",
        "The first command after a good create fails with 502.",
        "control-plane.md 27; daytonaio/daytona#4000, #3425, #3035",
        _rule(
            "first-command-502",
            Status(status=502, message="bad gateway: the sandbox's daemon does not answer"),
            operation="ExecuteCommand",
        ),
    ),
    Quirk(
        "follow-502",
        "A follow stream is refused with 502 once.",
        "control-plane.md 27; daytonaio/daytona#2085",
        _rule("follow-502", Status(status=502, message="bad gateway"), operation="GetSessionCommandLogs"),
    ),
    Quirk(
        "follow-ends-early",
        "A follow ends with a clean close after a part of the log.",
        "toolbox-daemon.md D9; managoat/fountain#691, daytonaio/daytona#3678",
        _rule("follow-ends-early", Close(code=1000, bytes=1024), operation="GetSessionCommandLogs", count=0),
    ),
    Quirk(
        "marker-cut",
        "Log messages are cut at 1 KiB, inside and right after the markers of the streams.",
        "toolbox-daemon.md D6; daytonaio/daytona#2606",
        _rule("marker-cut", Slice(bytes=1024), operation="GetSessionCommandLogs", count=0),
    ),
    Quirk(
        "use-is-no-activity",
        "What is done in a sandbox does not put its auto-stop off.",
        "control-plane.md 27; daytonaio/daytona#2007, #3193, #5154",
        _rule("use-is-no-activity", Uncounted(), path="/toolbox/*", count=0),
    ),
    Quirk(
        "empty-error-bodies",
        "Errors of the toolbox have no body.",
        "toolbox-daemon.md D13, D30",
        _rule("empty-error-bodies", Rewrite(how="empty-errors"), path="/toolbox/*", count=0),
    ),
    Quirk(
        "no-runner-once",
        "A create is refused because no runner is free; the next one works.",
        "control-plane.md 27; daytonaio/daytona#2855, #2523",
        _rule("no-runner-once", RunnerGone(), operation="createSandbox"),
    ),
)

QUIRKS = {quirk.name: quirk for quirk in _ALL}
"""All, by name."""
