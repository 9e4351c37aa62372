"""The test bench of a Sandyard as Python objects. Standard library only: tests import it into their own process."""

import base64
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen

ASK_SECONDS = 120.0
SESSION_COMMAND = "SessionExecuteCommand"
END_SECONDS = 1.0
MAX_LOG_BYTES = 4096


class BenchError(Exception):
    """The Sandyard refused; the message is its own."""


@dataclass(frozen=True, slots=True)
class Door:
    """Where a Sandyard is, and a key of it."""

    origin: str
    """Without a path."""
    api_key: str

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """One request; the decoded answer. Raises `BenchError`."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self.api_key}", "Content-Type": "application/json"}
        request = Request(self.origin + path, data, headers, method=method)  # noqa: S310  http or https
        try:
            with urlopen(request, timeout=ASK_SECONDS) as answer:  # noqa: S310
                told = answer.read()
                return json.loads(told) if answer.headers.get_content_type() == "application/json" else told.decode()
        except HTTPError as error:
            raise BenchError(_words(error)) from error


@dataclass(frozen=True, slots=True)
class ClockHandle:
    """The clock of the whole Sandyard: give a test that moves it a server of its own."""

    door: Door

    def now(self) -> datetime:
        """Virtual time."""
        return _time(self.door.ask("GET", "/_sandyard/clock"))

    def freeze(self, at: datetime | None = None) -> datetime:
        """Stand still, now or at that later moment."""
        return self._move("freeze", **({"at": at.isoformat()} if at else {}))

    def set(self, at: datetime) -> datetime:
        """Go to that moment through everything that is due before it."""
        return self._move("set", at=at.isoformat())

    def advance(self, seconds: float = 0, *, minutes: float = 0, hours: float = 0, days: float = 0) -> datetime:
        """Go on by that much."""
        return self._move("advance", seconds=seconds + 60 * minutes + 3600 * hours + 86400 * days)

    def run_until_idle(self) -> datetime:
        """Go on until no timer is left."""
        return self._move("run-until-idle")

    def release(self) -> datetime:
        """Be real time again."""
        return self._move("release")

    def _move(self, action: str, **values: Any) -> datetime:
        return _time(self.door.ask("POST", "/_sandyard/clock", {"action": action, **values}))


@dataclass(frozen=True, slots=True)
class FaultsHandle:
    """Failures on order for one organization."""

    door: Door

    def add(self, kind: str, *, on: Mapping[str, Any], **action: Any) -> str:
        """Order one: `add("status", on={"operation": "ExecuteCommand"}, status=503)`. Its id."""
        rule = {**on, "action": {"kind": kind, **action}}
        return str(self.door.ask("POST", "/_sandyard/faults", rule)["id"])

    def all(self) -> list[dict[str, Any]]:
        """All, with how often each was met and fired."""
        found: list[dict[str, Any]] = self.door.ask("GET", "/_sandyard/faults")["faults"]
        return found

    def clear(self) -> list[dict[str, Any]]:
        """Take all back; those that never fired."""
        unused: list[dict[str, Any]] = self.door.ask("DELETE", "/_sandyard/faults")["neverFired"]
        return unused


@dataclass(frozen=True, slots=True)
class Yard:
    """One organization of a Sandyard, with its only key."""

    door: Door
    organization_id: str

    @property
    def api_url(self) -> str:
        """What SDKs take as `DAYTONA_API_URL`."""
        return f"{self.door.origin}/api"

    @property
    def api_key(self) -> str:
        """What SDKs take as `DAYTONA_API_KEY`."""
        return self.door.api_key

    @property
    def environment(self) -> dict[str, str]:
        """The variables that every SDK and `sandyard` itself read."""
        return {"DAYTONA_API_URL": self.api_url, "DAYTONA_API_KEY": self.api_key}

    @property
    def clock(self) -> ClockHandle:
        """The server's clock."""
        return ClockHandle(self.door)

    @property
    def faults(self) -> FaultsHandle:
        """This organization's faults."""
        return FaultsHandle(self.door)

    def quirk(self, name: str, *, on: bool = True) -> None:
        """Let this organization meet a behaviour of the real service that bites clients; see `/_sandyard/quirks`."""
        self.door.ask("POST", "/_sandyard/quirks", {"name": name, "on": on})

    def reset(self) -> None:
        """Remove this organization's sandboxes and records, its faults and its journal."""
        self.door.ask("POST", "/_sandyard/reset", {})

    def journal(self, **search: Any) -> list[dict[str, Any]]:
        """What was asked with this organization's key; search by `operation`, `status`, `sandbox`, `path`, `text`."""
        query = f"?{urlencode(search)}" if search else ""
        records: list[dict[str, Any]] = self.door.ask("GET", f"/_sandyard/journal{query}")["records"]
        return records

    def command_logs(self) -> list[tuple[str, str]]:
        """Title and last lines of every session command of every sandbox that is still known.

        What was asked for and what has ended is told a moment after its answer: for that there is a second.
        """
        journal = self.journal()
        ids = dict.fromkeys(record["sandbox"] for record in journal if record["sandbox"])
        asked = sum(one["operation"] == SESSION_COMMAND and one["status"] in (200, 202) for one in journal)
        listed = self.door.ask("GET", "/api/sandbox?limit=200")["items"]
        ids |= dict.fromkeys(item["id"] for item in listed)
        deadline = time.monotonic() + END_SECONDS
        while True:
            found = [command for sandbox_id in ids for command in self._commands_of(sandbox_id)]
            is_whole = len(found) >= asked and all(command.has_ended for command in found)
            if is_whole or time.monotonic() > deadline:
                return [(command.title, command.last_lines) for command in found]
            time.sleep(0.05)

    def _commands_of(self, sandbox_id: str) -> list["_Command"]:
        base = f"/_sandyard/sandboxes/{quote(sandbox_id, safe='')}/sessions"
        try:
            sessions = self.door.ask("GET", base)["sessions"]
            details = [self.door.ask("GET", f"{base}/{quote(one['id'], safe='')}") for one in sessions]
        except BenchError:
            return []  # deleted meanwhile
        return [_Command(sandbox_id, detail["id"], command) for detail in details for command in detail["commands"]]


@dataclass(frozen=True, slots=True)
class _Command:
    """One command as the record of its session has it."""

    sandbox_id: str
    session_id: str
    record: Mapping[str, Any]

    @property
    def has_ended(self) -> bool:
        return self.record.get("exitCode") is not None

    @property
    def title(self) -> str:
        ended = f"exit code {self.record['exitCode']}" if self.has_ended else "running"
        return f"{self.sandbox_id} {self.session_id}: {self.record['command']} ({ended})"

    @property
    def last_lines(self) -> str:
        text = self.record.get("lastLines") or ""
        try:
            return base64.b64decode(text, validate=True)[-MAX_LOG_BYTES:].decode(errors="replace")
        except ValueError:
            return str(text)[-MAX_LOG_BYTES:]


def new_yard(owner: Door) -> Yard:
    """An organization of its own, made with the owner's key. Raises `BenchError`."""
    made = owner.ask("POST", "/_sandyard/organizations", {})
    return Yard(Door(owner.origin, made["apiKey"]), made["id"])


def remove_yard(owner: Door, yard: Yard) -> None:
    """Remove it with all that it has; removed already is fine."""
    try:
        owner.ask("DELETE", f"/_sandyard/organizations/{yard.organization_id}")
    except BenchError as error:
        if "not found" not in str(error):
            raise


def journal_line(record: Mapping[str, Any]) -> str:
    """One record for a test report: what was asked, and of an error what was answered."""
    told = record["status"] or "no answer"
    line = f"{record['method']} {record['path']} -> {told} ({record['seconds'] * 1000:.1f} ms)"
    if record["closeCode"] is not None:
        line += f", closed with {record['closeCode']}"
    if not record["status"] or record["status"] >= 400:
        line += f"\n    {record['responseBody'][:500]}"
    elif record["operation"] in ("ExecuteCommand", SESSION_COMMAND, "CodeRun"):
        line += f"\n    asked: {record['requestBody'][:500]}\n    told:  {record['responseBody'][:500]}"
    return line


def _time(view: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(str(view["now"]))


def _words(error: HTTPError) -> str:
    with error:  # its answer is open; since Python 3.14 one that is forgotten is a ResourceWarning
        try:
            return str(json.load(error)["message"])
        except (ValueError, KeyError, TypeError):
            return f"{error.code} {error.reason}"
