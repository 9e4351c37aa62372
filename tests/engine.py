"""Tests that need a Docker engine: skipped where there is none, and never where there is one."""

import os
import time
from typing import NoReturn

import pytest

from sandyard_runner.runtime.docker import engine_answers

REQUIRED = "SANDYARD_TEST_ENGINE"
"""`required` in the environment: an engine is there, and a test that does not find it fails."""
PATIENCE_SECONDS = 60.0


def need_engine() -> None:
    """Skip the test where no engine answers, and fail it where one must."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while why := engine_answers():
        if os.environ.get(REQUIRED) != "required" or time.monotonic() > deadline:
            no_engine(why)
        time.sleep(1)


def no_engine(why: str) -> NoReturn:
    """Skip or fail with that reason."""
    if os.environ.get(REQUIRED) == "required":
        pytest.fail(f"{REQUIRED} says that an engine is there: {why}", pytrace=False)
    pytest.skip(why)
