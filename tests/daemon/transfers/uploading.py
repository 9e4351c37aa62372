"""Uploads by each of the three ways, and what they leave."""

import hashlib
import os
from pathlib import Path

from tests.daemon.conftest import Answer, Daemon
from tests.daemon.files import FORM, form
from tests.daemon.test_files import path

UPLOADS = ("/upload-v2", "/upload", "/bulk-upload")


def upload(daemon: Daemon, kind: str, name: str, content: bytes) -> Answer:
    """By each of the three ways."""
    if kind == "/bulk-upload":
        body = form(("files[0].path", name.encode()), ("files[0].file", content))
        return daemon.ask("POST", "/files/bulk-upload", body, {"Content-Type": FORM})
    return daemon.ask("POST", path(kind, path=name), form(("file", content)), {"Content-Type": FORM})


def noise(size: int) -> bytes:
    """Bytes without a pattern, the same at every run."""
    return hashlib.shake_128(b"noise").digest(size)


def left_behind(home: Path) -> list[str]:
    return [name for _, _, names in os.walk(home) for name in names if name.startswith(".sandyard-upload-")]
