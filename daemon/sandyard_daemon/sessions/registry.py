"""All sessions of the sandbox by their ids, the entrypoint's among them."""

import shlex
from collections.abc import Callable, Sequence

from sandyard_daemon.children import Children
from sandyard_daemon.environment import Environment
from sandyard_daemon.errors import BadRequest, Conflict, InvalidBody, NotFound
from sandyard_daemon.events import EventLog
from sandyard_daemon.sessions.command import Command, Status
from sandyard_daemon.sessions.log import DEFAULT_CAP
from sandyard_daemon.sessions.session import Session, delete_all, new_command_id
from sandyard_daemon.sessions.shell import Shell
from sandyard_daemon.state import StateDirectory

ENTRYPOINT = "entrypoint"
ENTRYPOINT_COMMAND = "entrypoint_command"
NO_ENTRYPOINT = "sleep infinity"
"""What the entrypoint's command shows in a sandbox without one; nothing runs then."""
MAX_ID = 255
"""Bytes of a session id."""


class Sessions:
    """Creates, finds, lists and deletes. Ids are names in a table, never parts of a path or of shell text."""

    def __init__(
        self,
        environment: Environment,
        children: Children,
        state: StateDirectory,
        events: EventLog,
        *,
        log_cap: int = DEFAULT_CAP,
    ) -> None:
        self._environment = environment
        self._children = children
        self._state = state
        self._events = events
        self._log_cap = log_cap
        self._sessions: dict[str, Session] = {}
        self._deleting: set[str] = set()

    def start_entrypoint(self, arguments: Sequence[str]) -> Callable[[], None]:
        """Make the entrypoint's session at once; what is returned runs its command, and may be called again."""
        session = Session(ENTRYPOINT, self._shell_starter(self._environment.work_dir), self._events)
        self._sessions[ENTRYPOINT] = session
        text = " ".join(shlex.quote(argument) for argument in arguments) or NO_ENTRYPOINT
        command = self._command(text, command_id=ENTRYPOINT_COMMAND, is_async=True, echo=False)
        session.commands[ENTRYPOINT_COMMAND] = command
        if not arguments:
            command.status = Status.RUNNING
        waiting = [command] if arguments else []

        def run() -> None:
            if waiting:
                session.submit(waiting.pop())

        return run

    def create(self, session_id: object, *, at_home: bool) -> None:
        """Make a session; its shell comes with its first command. Raises `InvalidBody`, `BadRequest`, `Conflict`."""
        name = _checked_id(session_id)
        if name in self._sessions:
            raise Conflict(f"session already exists: {name}")
        directory = self._environment.home if at_home else self._environment.work_dir
        self._sessions[name] = Session(name, self._shell_starter(directory), self._events)

    def listed(self) -> list[Session]:
        """All but the entrypoint's, oldest first."""
        return [session for name, session in self._sessions.items() if name != ENTRYPOINT]

    def get(self, session_id: str) -> Session:
        """Raises `NotFound`."""
        try:
            return self._sessions[session_id]
        except KeyError:
            raise NotFound(f"session not found: {session_id}") from None

    def writable(self, session_id: str) -> Session:
        """As `get`, for what the entrypoint's session does not take. Raises `BadRequest` too."""
        if session_id == ENTRYPOINT:
            raise BadRequest("the entrypoint session takes neither commands nor input and cannot be deleted")
        return self.get(session_id)

    def execute(self, session_id: str, text: str, *, is_async: bool, echo: bool) -> Command:
        """Put a command into a session's queue. Raises `NotFound`, `BadRequest`, `SessionEnded`, `Internal`."""
        session = self.writable(session_id)
        command = self._command(text, command_id=new_command_id(), is_async=is_async, echo=echo)
        session.submit(command)
        return command

    async def delete(self, session_id: str) -> None:
        """End everything in it and forget it. Raises `NotFound`, `BadRequest`."""
        session = self.writable(session_id)
        if session_id in self._deleting:
            raise NotFound(f"session not found: {session_id}")
        self._deleting.add(session_id)
        try:
            await session.delete()
        finally:
            self._deleting.discard(session_id)
            self._sessions.pop(session_id, None)

    async def close(self, deadline_seconds: float) -> None:
        """End them all side by side."""
        await delete_all(list(self._sessions.values()), deadline_seconds)

    def counts(self) -> dict[str, int]:
        """Figures for the health answer."""
        commands = [command for session in self._sessions.values() for command in session.commands.values()]
        return {
            "sessions": len(self._sessions),
            "commands": len(commands),
            "running": sum(command.status is Status.RUNNING for command in commands),
            "log_bytes": sum(command.log.size for command in commands),
            "dropped_bytes": sum(command.log.dropped for command in commands),
        }

    def _command(self, text: str, *, command_id: str, is_async: bool, echo: bool) -> Command:
        name = self._state.next_name()
        return Command(command_id, text, name, log_cap=self._log_cap, is_async=is_async, echo=echo)

    def _shell_starter(self, directory: str) -> Callable[[Callable[[int], None], Callable[[int], None]], Shell]:
        def start(finished: Callable[[int], None], died: Callable[[int], None]) -> Shell:
            return Shell.start(self._environment, self._children, directory=directory, finished=finished, died=died)

        return start


def _checked_id(value: object) -> str:
    """A client's session id. Raises `InvalidBody`, `BadRequest`."""
    if not isinstance(value, str) or not value:
        raise InvalidBody("sessionId must be a non-empty string")
    if value == ENTRYPOINT:
        raise BadRequest(f"the session id {ENTRYPOINT} is reserved")
    if value in (".", "..") or "/" in value or "\\" in value or not value.isprintable():
        raise BadRequest("a session id holds no slashes and no control characters and is not a dot")
    if len(value.encode("utf-8", "surrogatepass")) > MAX_ID:
        raise BadRequest(f"a session id has at the most {MAX_ID} bytes")
    return value
