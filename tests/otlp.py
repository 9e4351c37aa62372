"""An OpenTelemetry collector for tests: OTLP over HTTP, in the clear or over TLS, kept as what was posted."""

import contextlib
import json
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

Post = tuple[str, str | None, Any]
"""Path, the sandbox's token, and the body: JSON as it was read, anything else as bytes."""


class RecordingCollector:
    """Keeps what it is sent; answers with the next of `statuses`, then 200."""

    def __init__(self, certificate: Path | None = None, address: str = "127.0.0.1", name: str = "127.0.0.1") -> None:
        """`certificate` is a PEM file with a key: the collector then speaks TLS. `name` is how its URL calls it."""
        self.posts: list[Post] = []
        self.statuses: list[int] = []
        self.connections = 0
        self.is_hasty = False
        """Whether a connection is closed behind each answer, without a word before."""
        self._name = name
        self._is_secure = certificate is not None
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 30

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = collector.statuses.pop(0) if collector.statuses else 200
                if status == 200:
                    is_json = self.headers["Content-Type"] == "application/json"
                    token = self.headers["sandbox-auth-token"]
                    collector.posts.append((self.path, token, json.loads(body) if is_json else body))
                self.send_response(status)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")
                self.close_connection = collector.is_hasty

            def log_message(self, format: str, *arguments: object) -> None:
                """Quiet."""

        class Server(ThreadingHTTPServer):
            def finish_request(self, request: Any, client_address: Any) -> None:
                # In the connection's own thread: whoever does not accept the certificate keeps nobody waiting.
                collector.connections += 1
                request.settimeout(30)
                if context is None:
                    super().finish_request(request, client_address)
                    return
                with (
                    contextlib.suppress(OSError),
                    context.wrap_socket(request, server_side=True, do_handshake_on_connect=False) as secured,
                ):
                    secured.do_handshake()
                    super().finish_request(secured, client_address)

        context: ssl.SSLContext | None = None
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
        self.server = Server((address, 0), Handler)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"{'https' if self._is_secure else 'http'}://{self._name}:{self.server.server_port}/base/"

    def of(self, path: str) -> list[Post]:
        return [post for post in self.posts if post[0] == path]

    def lines(self) -> list[tuple[str, str]]:
        """Severity and text of every line of a log."""
        found = []
        for _, _, body in self.of("/base/v1/logs"):
            for record in body["resourceLogs"][0]["scopeLogs"][0]["logRecords"]:
                found.append((record["severityText"], record["body"]["stringValue"]))
        return found

    def spans(self, name: str = "") -> list[Any]:
        """Every span, or those of that name."""
        spans = [
            span
            for _, _, body in self.of("/base/v1/traces")
            for group in body["resourceSpans"]
            for scope in group["scopeSpans"]
            for span in scope["spans"]
        ]
        return [span for span in spans if name in ("", span["name"])]

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@contextlib.contextmanager
def running_collector(**options: Any) -> Iterator[RecordingCollector]:
    """One that is closed in the end."""
    made = RecordingCollector(**options)
    try:
        yield made
    finally:
        made.close()


def attributes(part: Any) -> dict[str, Any]:
    """The attributes of a resource or span, by name; whole numbers as such."""
    return {
        item["key"]: int(item["value"]["intValue"]) if "intValue" in item["value"] else item["value"]["stringValue"]
        for item in part["attributes"]
    }
