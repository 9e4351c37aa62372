"""Fixtures of the warm pools' tests."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.api.test_coverage import description
from tests.api.warm_pools.pools import Pools, open_pools

__all__ = ["description"]


@pytest.fixture
async def pools(database_url: str, tmp_path: Path) -> AsyncIterator[Pools]:
    async with open_pools(database_url, tmp_path) as opened:
        yield opened
