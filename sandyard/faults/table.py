"""The rules in force in one process, and what each has seen and done."""

import fnmatch
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from sandyard.faults.rules import ON_RUNNER, Rule

MAX_RULES = 1000


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one request, or of one image to be fetched."""

    organization_id: str | None
    method: str = ""
    path: str = ""
    operation: str | None = None
    sandbox_id: str | None = None
    sandbox_name: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Entry:
    """A rule, whose it is, and how often it came to anything."""

    id: str
    organization_id: str
    rule: Rule
    seen: int = 0
    """Requests that met its conditions."""
    fired: int = 0
    path: re.Pattern[str] | None = None
    dice: random.Random | None = None

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

    def counts(self) -> bool:
        """Count one request that matches; whether the rule fires on it."""
        self.seen += 1
        if self.seen < self.rule.nth or (self.rule.count and self.fired >= self.rule.count):
            return False
        if self.dice is not None and self.dice.random() >= (self.rule.chance or 0):
            return False
        self.fired += 1
        return True


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
        dice = None if rule.seed is None else random.Random(rule.seed)  # noqa: S311  repeatable on purpose
        entry = Entry(entry_id, organization_id, rule, path=pattern, dice=dice)
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

    def strike(self, facts: Facts, *, on_runner: bool = False) -> Entry | None:
        """Count a request in every rule that it meets; the first that fires, or `None`."""
        firing: Entry | None = None
        for entry in sorted(self._entries.values(), key=_is_quirk):
            if isinstance(entry.rule.action, ON_RUNNER) is not on_runner or not entry.matches(facts):
                continue
            if firing is None:
                firing = entry if entry.counts() else None
            else:
                entry.seen += 1
        return firing


def _is_quirk(entry: Entry) -> bool:
    """Quirks come last: what a test orders itself goes before."""
    return (entry.rule.name or "").startswith("quirk:")


def _has_label(labels: Mapping[str, str], wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)
