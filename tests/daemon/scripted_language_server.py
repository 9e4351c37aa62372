"""A language server that does what a script says, for the protocol's cases that no real server shows on demand.

It reads `script.json` in its working directory: answers by method, each an object with one of `result`, `error`, `exit`
(a status), `silent`, `raw` (bytes to write instead of a message), `many` (one `result` after the other). `asks` lists
requests it sends once it is initialized, `says` notifications. Everything it gets goes to `received.jsonl`.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

CAPABILITIES = {"capabilities": {"workspaceSymbolProvider": True}}


def main() -> None:
    """Serve until `exit` or the end of the input."""
    script = json.loads(Path("script.json").read_text()) if Path("script.json").exists() else {}
    with Path("starts").open("a") as file:
        file.write(f"{os.getpid()}\n")
    if script.get("helper"):
        subprocess.Popen(["sleep", "1000"])
    sys.stderr.write(script.get("complaint", ""))
    sys.stderr.flush()
    with Path("received.jsonl").open("a", buffering=1) as received:
        while (message := read()) is not None:
            received.write(json.dumps(message) + "\n")
            if message.get("method") == "exit":
                return
            if message.get("method") == "initialized":
                start_conversation(script)
            if "method" in message and "id" in message:
                answer(message, script)


def start_conversation(script: dict[str, Any]) -> None:
    """Ask and say what the script lists."""
    for number, asked in enumerate(script.get("asks", [])):
        write({"id": f"server-{number}", **asked})
    for said in script.get("says", []):
        write(said)


def answer(message: dict[str, Any], script: dict[str, Any]) -> None:
    """By the script, else with nothing."""
    method = message["method"]
    default = {"result": CAPABILITIES if method == "initialize" else None}
    told = script.get(method, default)
    if "exit" in told:
        os._exit(told["exit"])
    if "raw" in told:
        sys.stdout.buffer.write(told["raw"].encode())
        sys.stdout.buffer.flush()
    elif "many" in told:
        results = told["many"]
        write({"id": message["id"], "result": results.pop(0) if len(results) > 1 else results[0]})
    elif not told.get("silent"):
        write({"id": message["id"], **told})


def read() -> Any:
    """The next message; `None` at the end."""
    length = 0
    while line := sys.stdin.buffer.readline():
        if not line.strip():
            return json.loads(sys.stdin.buffer.read(length))
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    return None


def write(message: dict[str, Any]) -> None:
    """One message."""
    body = json.dumps({"jsonrpc": "2.0", **message}).encode()
    sys.stdout.buffer.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
