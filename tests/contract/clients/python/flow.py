"""One pass through what every release of the Python SDK from 0.27 on can do; prints what it saw as one JSON object."""

import asyncio
import json
import sys
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any

from daytona import CreateSandboxFromSnapshotParams, Daytona, DaytonaError, SessionExecuteRequest

TWO_STREAMS = (
    "echo out1; echo err1 >&2; for n in $(seq 400); do [ -e {heard} ] && break; sleep 0.05; done; "
    "for i in 2 3; do echo out$i; echo err$i >&2; done; [ -e {heard} ]"
)
"""Goes on when somebody has heard its first lines, and ends with 1 where nobody did while it ran."""


def listed(daytona: Any, labels: dict[str, str]) -> list[str]:
    """Ids in the list with these labels; what `list` returns changed its shape twice."""
    if version("daytona").startswith(("0.27.", "0.103.")):
        return [one.id for one in daytona.list(labels)]
    try:
        from daytona import ListSandboxesQuery
    except ImportError:
        return [one.id for one in daytona.list(labels).items]
    return [one.id for one in daytona.list(ListSandboxesQuery(labels=labels))]


def attempted(call: Callable[[], object]) -> object:
    """What the call gave, or the error's text, so that the rest of the flow is seen all the same."""
    try:
        return call()
    except DaytonaError as error:
        return str(error)


def refused(call: Callable[[], object]) -> list[str]:
    """The name of the error's class and its text."""
    try:
        call()
    except DaytonaError as error:
        return [type(error).__name__, str(error)]
    return ["nothing was raised", ""]


def follow(sandbox: Any, session: str, command_id: str, hear: Callable[[], object] = lambda: None) -> list[list[str]]:
    """What the callbacks got; `hear` is called with the first of it."""
    seen: list[list[str]] = []

    def keep(stream: str) -> Callable[[str], None]:
        def add(chunk: str) -> None:
            seen.append([stream, chunk])
            if len(seen) == 1:
                hear()

        return add

    asyncio.run(sandbox.process.get_session_command_logs_async(session, command_id, keep("out"), keep("err")))
    return seen


def main() -> None:
    """Create, use, delete."""
    daytona = Daytona()
    saw: dict[str, Any] = {"version": version("daytona")}
    labels = {"flow": f"python-{saw['version']}"}
    sandbox = daytona.create(CreateSandboxFromSnapshotParams(labels=labels, env_vars={"GREETING": "hi there"}))
    try:
        saw["id"] = sandbox.id
        saw["state"] = str(getattr(sandbox.state, "value", sandbox.state))
        saw["listed"] = attempted(lambda: listed(daytona, labels))
        saw["got"] = daytona.get(sandbox.id).id
        saw["root"] = sandbox.get_user_root_dir()
        use(sandbox, saw)
        saw["unknown"] = refused(lambda: daytona.get("no-such-sandbox"))
        sandbox.stop()
        saw["stopped"] = str(getattr(sandbox.state, "value", sandbox.state))
        sandbox.start()
        saw["after restart"] = sandbox.process.exec("cat kept.txt").result
        saw["preview"] = sandbox.get_preview_link(3000).url
    finally:
        sandbox.delete()
    json.dump(saw, sys.stdout)


def use(sandbox: Any, saw: dict[str, Any]) -> None:
    """Processes and sessions."""
    done = sandbox.process.exec("echo one; echo two >&2; echo kept > kept.txt; echo $GREETING; exit 3")
    saw["exec"] = [done.exit_code, done.result]
    saw["exec env"] = sandbox.process.exec("echo $X$(basename $PWD)", cwd="/usr/bin", env={"X": "y"}).result
    if saw["version"] < "0.167":  # from then on it is an operation of its own; before, a shell line through execute
        saw["code"] = sandbox.process.code_run("print(6 * 7)").result
    process = sandbox.process
    process.create_session("work")
    saw["duplicate"] = refused(lambda: process.create_session("work"))
    done = process.execute_session_command("work", SessionExecuteRequest(command="cd /tmp; X=5; echo so; echo no >&2"))
    saw["sync"] = [done.exit_code, done.stdout, done.stderr]
    done = process.execute_session_command("work", SessionExecuteRequest(command="echo $X $PWD; false"))
    saw["kept state"] = [done.exit_code, done.stdout]
    for spelling in ("run_async", "var_async"):
        asked: dict[str, Any] = {spelling: True}
        heard = f"~/heard-{spelling}"
        tell = partial(process.exec, f"touch {heard}")
        request = SessionExecuteRequest(command=TWO_STREAMS.format(heard=heard), **asked)
        started = process.execute_session_command("work", request)
        saw[spelling] = follow(sandbox, "work", started.cmd_id, tell)
        saw[f"{spelling} exit"] = process.get_session_command("work", started.cmd_id).exit_code
        logs = process.get_session_command_logs("work", started.cmd_id)
        saw[f"{spelling} logs"] = [logs.stdout, logs.stderr]
        saw[f"{spelling} again"] = follow(sandbox, "work", started.cmd_id)
    saw["sessions"] = [[one.session_id, len(one.commands)] for one in process.list_sessions()]
    saw["unknown session"] = refused(lambda: process.get_session("nowhere"))
    saw["unknown command"] = refused(lambda: process.get_session_command("work", "nothing"))
    process.delete_session("work")
    saw["deleted session"] = refused(lambda: process.get_session("work"))


if __name__ == "__main__":
    main()
