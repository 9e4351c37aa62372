"""Take a finished command's output, then look twice at the log of one that goes on."""

import time

from daytona import Daytona, SessionExecuteRequest

sandbox = Daytona().create()
try:
    sandbox.process.create_session("check")
    done = sandbox.process.execute_session_command(
        "check", SessionExecuteRequest(command="uname -s; ls /no-such-place")
    )
    print(f"exit code {done.exit_code}")
    print(f"said: {done.stdout}", end="")
    print(f"complained: {done.stderr}", end="")

    clock = sandbox.process.execute_session_command(
        "check", SessionExecuteRequest(command="while sleep 0.5; do date +tick-%s; done", run_async=True)
    )
    for _ in range(2):
        time.sleep(2)
        logs = sandbox.process.get_session_command_logs("check", clock.cmd_id)
        print(f"{len(logs.stdout.splitlines())} ticks so far")
finally:
    sandbox.delete()
