"""Every example of docs/testing.md, run as it stands there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.running import Combination, start
from tests.sandyard.command import COMPILED, clean_environment
from tests.sandyard.test_pytest_plugin import run_pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "testing.md"


def blocks(language: str) -> list[str]:
    """The code blocks of that language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.sdk
def test_the_tests_of_the_page_pass(tmp_path: Path) -> None:
    pytest.importorskip("daytona")
    examples = blocks("python")
    done = run_pytest(tmp_path / "run", "\n\n".join(examples), "-q", "-W", "ignore")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(examples) >= 6


def test_the_commands_of_the_page_work(tmp_path: Path) -> None:
    instance = start(Combination("page", "local", isolation="none"), tmp_path, environment=COMPILED)
    try:
        environment = clean_environment(
            DAYTONA_API_URL=instance.api_url,
            DAYTONA_API_KEY=instance.api_key,
            PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        )
        for block in blocks("sh"):
            done = subprocess.run(
                ["sh", "-e", "-c", block], capture_output=True, text=True, timeout=60, env=environment, check=False
            )
            assert done.returncode == 0, f"{block}\n{done.stdout}{done.stderr}"
    finally:
        instance.stop()
