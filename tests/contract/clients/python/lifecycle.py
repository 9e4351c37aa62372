"""The asynchronous client: pause, resize, fork, archive, restore; prints what it saw as one JSON object."""

import asyncio
import json
import sys
from typing import Any

from daytona import AsyncDaytona, DaytonaError, Resources


async def message(work: Any) -> str:
    """What the client raised, or nothing."""
    try:
        await work
    except DaytonaError as error:
        return str(error)
    return ""


async def main() -> None:
    """Every operation once."""
    saw: dict[str, Any] = {}
    async with AsyncDaytona() as daytona:
        sandbox = await daytona.create()
        saw["id"] = sandbox.id
        try:
            await sandbox.process.exec('echo kept > "$HOME/note"')
            await sandbox.pause()
            saw["paused"] = sandbox.state
            await sandbox.start()
            saw["resumed"] = sandbox.state
            refused = await message(sandbox.resize(Resources(cpu=2)))
            saw["resize"] = "refused" if "not supported" in refused else "resized" if not refused else refused
            saw["recover"] = await message(sandbox.recover())
            fork = await sandbox.fork()
            try:
                saw["fork"] = [fork.state, (await fork.process.exec('cat "$HOME/note"')).result]
            finally:
                await fork.delete()
            await sandbox.stop()
            await sandbox.archive()
            while sandbox.state == "archiving":
                await sandbox.refresh_data()
            saw["archived"] = sandbox.state
            await sandbox.start()
            saw["restored"] = [sandbox.state, (await sandbox.process.exec('cat "$HOME/note"')).result]
        finally:
            await sandbox.delete()
    json.dump(saw, sys.stdout)


if __name__ == "__main__":
    asyncio.run(main())
