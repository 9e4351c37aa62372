"""Watch a build while it runs: each line goes to the stream it was written to, as soon as it is there."""

import asyncio
import sys

from daytona import AsyncDaytona, SessionExecuteRequest

BUILD = """
for part in parser planner runtime; do
  echo "compiling $part"
  sleep 1
  echo "warning: $part has no tests" >&2
done
exit 3
"""


async def main() -> int:
    async with AsyncDaytona() as daytona:
        sandbox = await daytona.create()
        try:
            await sandbox.process.create_session("build")
            # In a subshell: `exit` in the session's own shell would end the session.
            request = SessionExecuteRequest(command=f"({BUILD})", run_async=True)
            build = await sandbox.process.execute_session_command("build", request)
            await sandbox.process.get_session_command_logs_async(
                "build", build.cmd_id, sys.stdout.write, sys.stderr.write
            )
            finished = await sandbox.process.get_session_command("build", build.cmd_id)
            print(f"the build ended with {finished.exit_code}")
            return 0 if finished.exit_code == 3 else 1
        finally:
            await sandbox.delete()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
