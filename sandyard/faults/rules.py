"""A fault rule: a condition, when it fires, and what happens then. Nothing is random without a seed."""

from typing import Any, ClassVar, Literal

import msgspec

MAX_SECONDS = 3600.0
MAX_BYTES = 1 << 40
MAX_COUNT = 1_000_000


class InvalidRule(ValueError):
    """A rule that cannot be; the message says why and is fit for the user's eyes."""


class Action(msgspec.Struct, frozen=True, tag_field="kind", forbid_unknown_fields=True):
    """What a rule does. Base of all."""

    needs_sandbox: ClassVar[bool] = False
    """Whether there must be a sandbox that the request is for."""

    def problem(self) -> str | None:
        """Why this cannot be; `None` when it can."""
        return None


class Status(Action, frozen=True, tag="status"):
    """An error answer in the dialect of whoever was asked; the work is not done."""

    status: int
    message: str = "a fault that was ordered"
    code: str | None = None

    def problem(self) -> str | None:
        return None if 400 <= self.status <= 599 else f"status is {self.status}; it takes 400 to 599"


class Delay(Action, frozen=True, tag="delay"):
    """Wait, then do as always."""

    seconds: float

    def problem(self) -> str | None:
        return _span(self.seconds)


class Drop(Action, frozen=True, tag="drop"):
    """Close the connection instead of doing the work."""


class DropAfter(Action, frozen=True, tag="drop-after"):
    """Do the work, and close the connection instead of answering."""


class Cut(Action, frozen=True, tag="cut"):
    """Close the connection, without a goodbye, after that many bytes of the answer's body."""

    bytes: int = 0

    def problem(self) -> str | None:
        return _size(self.bytes, 0)


class Stall(Action, frozen=True, tag="stall"):
    """Say nothing for a while after that many bytes of the answer's body, then go on."""

    seconds: float
    bytes: int = 0

    def problem(self) -> str | None:
        return _span(self.seconds) or _size(self.bytes, 0)


class Slice(Action, frozen=True, tag="slice"):
    """Give the answer's body in pieces of that many bytes; on a WebSocket each is a message."""

    bytes: int
    pause_seconds: float = 0.0

    def problem(self) -> str | None:
        return _span(self.pause_seconds) or _size(self.bytes, 1)


class Close(Action, frozen=True, tag="close"):
    """Close a WebSocket with that code, after that many bytes."""

    code: int
    reason: str = ""
    bytes: int = 0

    def problem(self) -> str | None:
        if not (self.code in (1000, 1001, 1002, 1003, *range(1007, 1015)) or 3000 <= self.code <= 4999):
            return f"code is {self.code}; it takes 1000 to 1003, 1007 to 1014 and 3000 to 4999"
        if len(self.reason.encode()) > 123:
            return "reason is longer than 123 bytes, which no close frame can carry"
        return _size(self.bytes, 0)


class Die(Action, frozen=True, tag="die"):
    """The sandbox's first process is killed; then the request goes on."""

    needs_sandbox: ClassVar[bool] = True


class OutOfMemory(Action, frozen=True, tag="out-of-memory"):
    """The same, as the kernel does it when memory is used up."""

    needs_sandbox: ClassVar[bool] = True


class Hang(Action, frozen=True, tag="hang"):
    """No answer until the client goes, the rule is removed or the time is over."""

    seconds: float = MAX_SECONDS

    def problem(self) -> str | None:
        return _span(self.seconds)


class RunnerGone(Action, frozen=True, tag="runner-gone"):
    """What clients get when no runner answers."""


class PullFails(Action, frozen=True, tag="pull-fails"):
    """The image of a new sandbox cannot be fetched."""

    message: str = "the image could not be pulled: the registry refused"


class Rewrite(Action, frozen=True, tag="rewrite"):
    """The answer is changed: a create that is still `creating`, a list without the young, errors without a body."""

    how: Literal["creating", "hide-young", "empty-errors"]
    seconds: float = 5.0
    """For `hide-young`."""

    def problem(self) -> str | None:
        return _span(self.seconds)


class Uncounted(Action, frozen=True, tag="uncounted"):
    """The request does not count as use of its sandbox."""


AnyAction = (
    Status
    | Delay
    | Drop
    | DropAfter
    | Cut
    | Stall
    | Slice
    | Close
    | Die
    | OutOfMemory
    | Hang
    | RunnerGone
    | PullFails
    | Rewrite
    | Uncounted
)
ON_RUNNER = PullFails
"""What runners do; everything else is done by the proxy."""


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Every condition that is given must hold. Fires from the `nth` such request on, `count` times; 0 is always."""

    action: AnyAction
    name: str | None = None
    operation: str | None = None
    """Operation id of the API's or the toolbox's description."""
    method: str | None = None
    path: str | None = None
    """As the client writes it, without the query; `*` stands for anything, slashes too."""
    sandbox: str | None = None
    """Id or name."""
    label: str | None = None
    """`key` or `key=value` among the sandbox's labels."""
    nth: int = 1
    count: int = 1
    chance: float | None = None
    """Of those that would fire, how many do: 0 to 1. Needs `seed`."""
    seed: int | None = None


def read_rule(body: bytes) -> Rule:
    """A rule from JSON. Raises `InvalidRule`."""
    try:
        rule = msgspec.json.decode(body, type=Rule)
    except msgspec.MsgspecError as error:
        raise InvalidRule(str(error)) from error
    problem = rule.action.problem() or _problem(rule)
    if problem:
        raise InvalidRule(problem)
    return rule


def as_json(rule: Rule) -> dict[str, Any]:
    """The rule as it was given, without what was left out."""
    told: dict[str, Any] = msgspec.to_builtins(rule)
    return {name: value for name, value in told.items() if value is not None}


def _problem(rule: Rule) -> str | None:
    if (rule.operation, rule.method, rule.path, rule.sandbox, rule.label) == (None,) * 5:
        return "a rule needs a condition: operation, method, path, sandbox or label"
    if rule.path is not None and not rule.path.startswith(("/", "*")):
        return f"path is {rule.path!r}; it begins with / or *"
    if not 1 <= rule.nth <= MAX_COUNT:
        return f"nth is {rule.nth}; it takes 1 or more"
    if not 0 <= rule.count <= MAX_COUNT:
        return f"count is {rule.count}; it takes 0, for always, or more"
    if (rule.chance is None) != (rule.seed is None):
        return "chance and seed go together: nothing is random without a seed"
    if rule.chance is not None and not 0 < rule.chance < 1:
        return f"chance is {rule.chance}; it takes more than 0 and less than 1"
    if isinstance(rule.action, ON_RUNNER) and (rule.operation, rule.method, rule.path) != (None,) * 3:
        return "pull-fails is about a sandbox, not a request: it takes sandbox and label"
    return None


def _span(seconds: float) -> str | None:
    return None if 0 <= seconds <= MAX_SECONDS else f"seconds must be from 0 to {MAX_SECONDS:.0f}"


def _size(number: int, least: int) -> str | None:
    return None if least <= number <= MAX_BYTES else f"bytes must be {least} or more"
