"""The machine the figures are from: they mean nothing without it."""

import os
import platform
import re
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path


def describe() -> list[str]:
    """A line for each thing that matters."""
    return [
        f"Date: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        f"Processor: {_processor()}, {os.cpu_count()} cores usable: {len(os.sched_getaffinity(0))}",
        f"Memory: {os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:.0f} GB",
        f"Kernel: {platform.system()} {platform.release()}",
        f"Python: {platform.python_implementation()} {sys.version.split()[0]}, SQLite {sqlite3.sqlite_version}",
        f"Docker engine: {_docker()}",
    ]


def describe_load(before: float) -> str:
    """Other work on the machine makes everything slower, and is told. `before` is `os.getloadavg()[0]` at the start."""
    return f"Load average: {before:.1f} at the start, {os.getloadavg()[0]:.1f} at the end, these benchmarks included"


def _processor() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    return found[1] if found else platform.machine()


def _docker() -> str:
    try:
        asked = subprocess.run(
            ["docker", "version", "--format", "{{.Server.Version}}"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except OSError:
        return "none"
    return asked.stdout.strip() or "none"
