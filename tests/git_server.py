"""Git's smart HTTP with basic authentication: `git http-backend` behind `http.server`, over loopback.

A module for tests, and by itself a program that runs inside a sandbox: `git_server.py ROOT USER PASSWORD [PORT]`.
The path decides the behaviour: a repository of the root asks for the password; below `/open/` nothing is asked;
`/forbidden/`, `/broken/`, `/missing/` answer 403, 500, 404; `/elsewhere/HOST:PORT/...` redirects;
`/silent/` never answers.
"""

import base64
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

STATUSES = {"forbidden": 403, "broken": 500, "missing": 404}


class GitServer(ThreadingHTTPServer):
    """Serves the bare repositories below a folder."""

    daemon_threads = True

    def __init__(self, root: str, username: str, password: str, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.root = root
        self.expected = "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()
        self.seen: list[str] = []
        """The `Authorization` headers of all requests, empty where there was none."""
        self.waiting = threading.Event()
        """Set when a request that is never answered came."""
        self.released = threading.Event()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def start(self) -> None:
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self.released.set()
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    """One request of git's."""

    server: GitServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        given = self.headers.get("Authorization", "")
        self.server.seen.append(given)
        first, _, rest = path.strip("/").partition("/")
        if first in STATUSES:
            self.refuse(STATUSES[first])
        elif first == "silent":
            self.server.waiting.set()
            self.server.released.wait(60)
            self.close_connection = True
        elif first == "elsewhere":
            self.refuse(302, ("Location", f"http://{rest}?{query}"))
        elif first == "open":
            self.backend("/" + rest, query, "somebody")
        elif given != self.server.expected:
            self.refuse(401, ("WWW-Authenticate", 'Basic realm="tests"'))
        else:
            self.backend(path, query, "somebody")

    do_POST = do_GET

    def refuse(self, status: int, *headers: tuple[str, str]) -> None:
        """A body-less answer; the connection ends, so that a body that was not read confuses nobody."""
        self.send_response(status)
        for name, value in (*headers, ("Content-Length", "0"), ("Connection", "close")):
            self.send_header(name, value)
        self.end_headers()
        self.close_connection = True

    def backend(self, path: str, query: str, user: str) -> None:
        """Run the CGI program for it."""
        variables = {
            **os.environ,
            "GIT_PROJECT_ROOT": self.server.root,
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": unquote(path),
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "REMOTE_USER": user,
            "REMOTE_ADDR": "127.0.0.1",
        }
        body = self.body()
        variables["CONTENT_LENGTH"] = str(len(body))
        done = subprocess.run(["git", "http-backend"], input=body, env=variables, capture_output=True, timeout=60)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        fields = [tuple(line.split(": ", 1)) for line in head.decode().split("\r\n") if ": " in line]
        status = next((int(value.split()[0]) for name, value in fields if name.lower() == "status"), 200)
        self.send_response(status)
        for name, value in fields:
            if name.lower() != "status":
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def body(self) -> bytes:
        """What came with the request, in one piece or in many."""
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        whole = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            whole += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return whole


if __name__ == "__main__":
    root, username, password, *port = sys.argv[1:]
    server = GitServer(root, username, password, int(port[0]) if port else 0)
    sys.stdout.write(server.url + "\n")
    sys.stdout.flush()
    server.serve_forever()
