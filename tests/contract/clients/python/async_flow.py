"""The asynchronous client: create, follow two commands at once, delete; prints what it saw as one JSON object."""

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any

from daytona import AsyncDaytona, SessionExecuteRequest

LOUD = "for i in 1 2 3; do echo {name}$i; echo {name}-err$i >&2; sleep 0.3; done"


async def follow(sandbox: Any, session: str, name: str) -> dict[str, Any]:
    """What the callbacks got of a command that runs in a session of its own."""
    process = sandbox.process
    await process.create_session(session)
    request = SessionExecuteRequest(command=LOUD.format(name=name), run_async=True)
    started = await process.execute_session_command(session, request)
    seen: dict[str, Any] = {"out": "", "err": ""}

    def keep(stream: str) -> Callable[[str], None]:
        def add(chunk: str) -> None:
            seen[stream] += chunk

        return add

    await process.get_session_command_logs_async(session, started.cmd_id, keep("out"), keep("err"))
    seen["exit"] = (await process.get_session_command(session, started.cmd_id)).exit_code
    return seen


async def main() -> None:
    """Create, use, delete."""
    async with AsyncDaytona() as daytona:
        sandbox = await daytona.create()
        try:
            followed = await asyncio.gather(follow(sandbox, "a", "apple"), follow(sandbox, "b", "pear"))
            done = await sandbox.process.exec("exit 7")
        finally:
            await sandbox.delete()
    json.dump({"followed": followed, "exit": done.exit_code}, sys.stdout)


if __name__ == "__main__":
    asyncio.run(main())
