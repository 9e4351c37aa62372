"""The rules in force in one process, and what each has seen and done."""

import fnmatch
import random
import re
from collections.abc import Mapping

import msgspec

from sandyard.bus import Bus
from sandyard.faults.rules import ON_RUNNER, Rule

MAX_RULES = 1000
SEEN, THROWN, FIRED = "seen", "thrown", "fired"
"""What is counted of a rule: requests that it met, throws of its dice, and how often it was to fire."""


class Facts(msgspec.Struct, frozen=True):
    """What is known of one request, or of one image to be fetched."""

    organization_id: str | None
    method: str = ""
    path: str = ""
    operation: str | None = None
    sandbox_id: str | None = None
    sandbox_name: str | None = None
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)


class Entry(msgspec.Struct):
    """A rule, whose it is, and how often it came to anything."""

    id: str
    organization_id: str
    rule: Rule
    seen: int = 0
    """Requests that met its conditions."""
    fired: int = 0
    path: re.Pattern[str] | None = None
    dice: random.Random | None = None
    throws: int = 0
    """How often the dice were thrown."""

    def matches(self, facts: Facts) -> bool:
        """Whether every condition holds."""
        rule = self.rule
        return (
            self.organization_id == facts.organization_id
            and rule.operation in (None, facts.operation)
            and (rule.method is None or rule.method.upper() == facts.method)
            and (self.path is None or self.path.match(facts.path) is not None)
            and (rule.sandbox is None or rule.sandbox in (facts.sandbox_id, facts.sandbox_name))
            and (rule.label is None or _has_label(facts.labels, rule.label))
            and not (rule.action.needs_sandbox and facts.sandbox_id is None)
        )

    async def counts(self, bus: Bus) -> bool:
        """Count one request that matches, together with all who have the rule; whether it fires on this one.

        Raises `BusError`.
        """
        self.seen = await bus.count(self.key, SEEN)
        if self.seen < self.rule.nth or (self.rule.count and self.fired >= self.rule.count):
            return False
        if self.rule.seed is not None and self._thrown(await bus.count(self.key, THROWN)) >= (self.rule.chance or 0):
            return False
        fired = await bus.count(self.key, FIRED)
        self.fired = min(fired, self.rule.count) if self.rule.count else fired
        return fired == self.fired

    async def refresh(self, bus: Bus) -> None:
        """Know what the others have counted. Raises `BusError`."""
        counted = await bus.counted(self.key)
        self.seen, fired = counted.get(SEEN, 0), counted.get(FIRED, 0)
        self.fired = min(fired, self.rule.count) if self.rule.count else fired

    @property
    def key(self) -> str:
        """Under what it is counted."""
        return f"faults:{self.id}"

    def _thrown(self, number: int) -> float:
        """What the dice show at that throw, the first of which is 1: the same for everybody with this seed."""
        if self.dice is None or number <= self.throws:
            self.dice, self.throws = random.Random(self.rule.seed), 0  # noqa: S311  repeatable on purpose
        while self.throws < number - 1:
            self.dice.random()
            self.throws += 1
        self.throws += 1
        return self.dice.random()


class FaultTable:
    """Rules in the order they were given. The first that fires wins; all that match have counted by then."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, entry_id: str) -> bool:
        return entry_id in self._entries

    def add(self, entry_id: str, organization_id: str, rule: Rule) -> Entry:
        """Put a rule in force."""
        pattern = None if rule.path is None else re.compile(fnmatch.translate(rule.path))
        entry = Entry(entry_id, organization_id, rule, path=pattern)
        self._entries[entry_id] = entry
        return entry

    def get(self, entry_id: str) -> Entry | None:
        """One, if it is in force."""
        return self._entries.get(entry_id)

    def of(self, organization_id: str | None) -> list[Entry]:
        """Those of an organization; of `None`, all."""
        return [one for one in self._entries.values() if organization_id in (None, one.organization_id)]

    def remove(self, entry_id: str) -> None:
        """Take a rule back; gone already is fine."""
        self._entries.pop(entry_id, None)

    def concern(self, organization_id: str | None) -> bool:
        """Whether any rule is of that organization."""
        return any(entry.organization_id == organization_id for entry in self._entries.values())

    async def strike(self, facts: Facts, bus: Bus, *, on_runner: bool = False) -> Entry | None:
        """Count a request in every rule that it meets; the first that fires, or `None`. Raises `BusError`."""
        firing: Entry | None = None
        for entry in sorted(self._entries.values(), key=_is_quirk):
            if isinstance(entry.rule.action, ON_RUNNER) is not on_runner or not entry.matches(facts):
                continue
            if firing is None:
                firing = entry if await entry.counts(bus) else None
            else:
                entry.seen = await bus.count(entry.key, SEEN)
        return firing


def _is_quirk(entry: Entry) -> bool:
    """Quirks come last: what a test orders itself goes before."""
    return (entry.rule.name or "").startswith("quirk:")


def _has_label(labels: Mapping[str, str], wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)
