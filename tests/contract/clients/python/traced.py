"""Traces its calls with the SDK's own switch; gives the trace of an exec, and what the sandbox's collector got."""

import asyncio
import os
import shlex
import sys

from daytona import AsyncDaytona, CreateSandboxFromSnapshotParams, DaytonaConfig, SessionExecuteRequest
from opentelemetry import trace

COLLECTOR = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/v1/traces":
            open("spans", "ab").write(body + b"\\n")
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
open("spans", "ab").close()
server.serve_forever()
"""


async def main() -> tuple[str, str, str]:
    """Trace id, sandbox id, and a JSON document for each post."""
    port = os.environ["COLLECTOR_PORT"]
    endpoint, variables = f"http://127.0.0.1:{port}", {"OTEL_BSP_SCHEDULE_DELAY": "100"}
    async with AsyncDaytona(DaytonaConfig(otel_enabled=True)) as daytona:
        sandbox = await daytona.create(
            CreateSandboxFromSnapshotParams(env_vars=variables, otel_endpoint_override=endpoint)
        )
        try:
            await sandbox.process.create_session("collector")
            command = f"python3 -c {shlex.quote(COLLECTOR)} {port}"
            await sandbox.process.execute_session_command(
                "collector", SessionExecuteRequest(command=command, run_async=True)
            )
            # It listens once its file is there; what is posted before is tried again only after seconds.
            await sandbox.process.exec("until [ -e spans ]; do sleep 0.05; done", timeout=60)
            with trace.get_tracer("program").start_as_current_span("the-program") as span:
                await sandbox.process.exec("echo traced")
                trace_id = f"{span.get_span_context().trace_id:032x}"
            found = ""
            for _ in range(600):
                answer = await sandbox.process.exec("cat spans")
                found = answer.result
                if trace_id in found and found.endswith("\n"):
                    break
                await asyncio.sleep(0.1)
            return trace_id, sandbox.id, found
        finally:
            await daytona.delete(sandbox)


sys.stdout.write("\n".join(asyncio.run(main())))
