"""A stand-in for a container registry: the pull half of the Docker Registry HTTP API v2, with basic authentication.

*Source:* the distribution project's specification. It serves one image, made here from files.
"""

import base64
import gzip
import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


@dataclass
class Registry:
    """Blobs and manifests by digest, and what was asked."""

    username: str = "robot"
    password: str = "let-me-in"
    address: str = ""
    blobs: dict[str, bytes] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    """`{repository:tag: digest of the manifest}`"""
    refused: int = 0
    served: list[str] = field(default_factory=list)

    def add(self, name: str, layer: bytes, *, arch: str, config: Mapping[str, Any]) -> str:
        """Put up an image of one layer (a tar) under `repository:tag`; gives its reference."""
        packed = gzip.compress(layer, mtime=0)
        diff = f"sha256:{hashlib.sha256(layer).hexdigest()}"
        image = {
            "architecture": arch,
            "os": "linux",
            "config": dict(config),
            "rootfs": {"type": "layers", "diff_ids": [diff]},
            "history": [{"created_by": "test"}],
        }
        described = json.dumps(image).encode()
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "size": len(described), "digest": self._keep(described)},
            "layers": [{"mediaType": LAYER, "size": len(packed), "digest": self._keep(packed)}],
        }
        self.tags[name] = self._keep(json.dumps(manifest).encode())
        return f"{self.address}/{name}"

    def _keep(self, content: bytes) -> str:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self.blobs[digest] = content
        return digest

    def lets_in(self, authorization: str | None) -> bool:
        """Whether those are the credentials."""
        expected = base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
        return authorization == f"Basic {expected}"


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD; `registry` is set by a subclass."""

    registry: Registry

    def do_GET(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def log_message(self, format: str, *args: Any) -> None:
        self.registry.served.append(self.path)

    def _serve(self) -> None:
        if not self.registry.lets_in(self.headers.get("Authorization")):
            self.registry.refused += 1
            challenge = {"WWW-Authenticate": 'Basic realm="test"'}
            self._answer(401, b'{"errors":[{"code":"UNAUTHORIZED"}]}', "application/json", challenge)
            return
        parts = self.path.strip("/").split("/")
        if parts == ["v2"]:
            self._answer(200, b"{}", "application/json", {})
            return
        repository, kind, name = "/".join(parts[1:-2]), parts[-2], parts[-1]
        digest = self.registry.tags.get(f"{repository}:{name}", name) if kind == "manifests" else name
        content = self.registry.blobs.get(digest)
        if content is None:
            self._answer(404, b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}', "application/json", {})
            return
        media = MANIFEST if kind == "manifests" else "application/octet-stream"
        self._answer(200, content, media, {"Docker-Content-Digest": digest})

    def _answer(self, status: int, body: bytes, media: str, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Type", media)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@contextmanager
def serving() -> Iterator[Registry]:
    """A registry on a free port of this machine's loopback, which every engine takes without TLS."""
    registry = Registry()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"registry": registry}))
    registry.address = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, name="registry", daemon=True)
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def layer_of(files: Mapping[str, bytes]) -> bytes:
    """A tar of those files."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()
