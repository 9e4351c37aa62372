"""Git by the newest asynchronous client: SANDBOX URL FOLDER; prints what it saw as JSON."""

import asyncio
import json
import sys
from typing import Any

from daytona import AsyncDaytona, DaytonaError

USER: dict[str, Any] = {"username": "someone", "password": "secret"}


async def main() -> None:
    """Two clones at once, a commit from one to the other."""
    async with AsyncDaytona() as daytona:
        sandbox, url, folder = await daytona.get(sys.argv[1]), sys.argv[2], sys.argv[3]
        git, saw = sandbox.git, dict[str, Any]()
        one, two = f"{folder}/async-one", f"{folder}/async-two"
        await asyncio.gather(git.clone(url, one, **USER), git.clone(url, two, **USER))
        await git.create_branch(one, "async")
        await sandbox.process.exec(f"echo it >{one}/async.txt")
        await git.add(one, ["."])
        sha = (await git.commit(one, "by async", "Ann", "ann@example.com")).sha
        await git.push(one, set_upstream=True, **USER)
        await git.pull(two, branch="async", **USER)
        status = await git.status(one)
        saw["status"] = [status.current_branch, status.upstream, status.ahead]
        saw["branches"] = (await git.branches(one)).branches
        saw["pulled"] = (await sandbox.process.exec(f"git -C {two} rev-parse HEAD")).result.strip() == sha
        try:
            await git.push(one)
        except DaytonaError as error:
            saw["no password"] = type(error).__name__
        json.dump(saw, sys.stdout)


asyncio.run(main())
