"""The asynchronous client: two contexts at once, callbacks, a timeout, code; prints what it saw as one JSON object."""

import asyncio
import json
import sys
from typing import Any

from daytona import AsyncDaytona, DaytonaTimeoutError

LOUD = "import sys\nfor n in range(3):\n    print(name, n)\n    print(name, 'err', n, file=sys.stderr)"


async def use(sandbox: Any, name: str) -> dict[str, Any]:
    """One context from its making to its end."""
    interpreter = sandbox.code_interpreter
    context = await interpreter.create_context()
    await interpreter.run_code(f"name = {name!r}", context=context)
    seen: dict[str, list[str]] = {"out": [], "err": [], "errors": []}
    result = await interpreter.run_code(
        LOUD + "\nraise ValueError(name)",
        context=context,
        on_stdout=lambda message: seen["out"].append(message.output),
        on_stderr=lambda message: seen["err"].append(message.output),
        on_error=lambda error: seen["errors"].append(error.name),
    )
    await interpreter.delete_context(context)
    return {"seen": seen, "stdout": result.stdout, "error": [result.error.name, result.error.value]}


async def main() -> None:
    """Use the sandbox named on the command line."""
    saw: dict[str, Any] = {}
    async with AsyncDaytona() as daytona:
        sandbox = await daytona.get(sys.argv[1])
        saw["contexts"] = await asyncio.gather(use(sandbox, "apple"), use(sandbox, "pear"))
        try:
            await sandbox.code_interpreter.run_code("import time; time.sleep(60)", timeout=1)
        except DaytonaTimeoutError as error:
            saw["timeout"] = str(error)
        done = await sandbox.process.code_run("print(6 * 7)")
        saw["code"] = [done.exit_code, done.result]
        saw["left"] = len(await sandbox.code_interpreter.list_contexts())
    json.dump(saw, sys.stdout)


if __name__ == "__main__":
    asyncio.run(main())
