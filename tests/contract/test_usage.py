"""What a sandbox used, by `get_metrics` of the Python SDK."""

import asyncio
from datetime import datetime

import pytest
from daytona import AsyncDaytona, DaytonaConfig

from tests.contract.python_client import client
from tests.contract.running import Instance
from tests.contract.toolbox import Toolbox

pytestmark = pytest.mark.sdk


async def test_what_a_sandbox_used_comes_soon_and_is_cut_to_the_range(
    sandyard: Instance, shared_toolbox: Toolbox
) -> None:
    config = DaytonaConfig(api_key=sandyard.api_key, api_url=sandyard.api_url)
    async with AsyncDaytona(config) as daytona, asyncio.timeout(60):
        sandbox = await daytona.get(shared_toolbox.id)
        while not (seen := await sandbox.get_metrics()):  # noqa: ASYNC110  what takes it is another process
            await asyncio.sleep(0.5)
        first, now = seen[0], await sandbox.get_metrics_latest()
        limits = (first.cpu_count, first.mem_total, first.disk_total)
        assert limits == (now.cpu_count, now.mem_total, now.disk_total)
        assert 0 < first.mem_used <= first.mem_total
        assert first.cpu_used_pct >= 0
        end = first.timestamp if isinstance(first.timestamp, datetime) else datetime.fromisoformat(first.timestamp)
        assert await sandbox.get_metrics(end=end) == [first]
    with client(sandyard, sandyard.api_key) as opened:
        assert opened.get(shared_toolbox.id).get_metrics()[0] == first
