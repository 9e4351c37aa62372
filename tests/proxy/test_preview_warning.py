"""The page that warns browsers before a preview, where the owner asked for it."""

from typing import Any

import pytest
from yarl import URL

from tests.proxy.conftest import Yard, open_yard
from tests.proxy.doubles import SANDBOX, TOKEN

BROWSER = {"User-Agent": "Mozilla/5.0", "Accept": "text/html", "X-Daytona-Preview-Token": TOKEN}


def ask(yard: Yard, path: str, method: str = "GET", port: int = 3000, **headers: str) -> Any:
    """A request of the preview's host by a browser."""
    sent = BROWSER | headers | {"Host": f"{port}-{SANDBOX}.localhost:{yard.port}"}
    return yard.client.request(method, URL(yard.origin + path, encoded=True), headers=sent, allow_redirects=False)


async def test_a_browser_is_warned_once_and_led_back() -> None:
    async with open_yard(preview_warning=True) as yard:
        async with ask(yard, "/page?a=1&b=2") as answer:
            page = await answer.text()
            assert (answer.status, answer.content_type) == (200, "text/html")
            assert "belongs to a sandbox" in page
            assert "/accept-daytona-preview-warning?redirect=%2Fpage%3Fa%3D1%26b%3D2" in page
        async with ask(yard, "/accept-daytona-preview-warning?redirect=%2Fpage%3Fa%3D1", "POST") as answer:
            assert (answer.status, answer.headers["location"]) == (303, "/page?a=1")
            cookie = answer.headers["set-cookie"].partition(";")[0]
        async with ask(yard, "/page?a=1", Cookie=cookie) as answer:
            assert (await answer.json())["path"] == "/proxy/3000/page"


async def test_programs_and_the_sandboxes_own_ports_are_not_warned() -> None:
    async with open_yard(preview_warning=True) as yard:
        for name, value in (
            ("User-Agent", "curl/8"),
            ("Accept", "application/json"),
            ("X-Daytona-Skip-Preview-Warning", "true"),
        ):
            async with ask(yard, "/page", "GET", 3000, **{name: value}) as answer:
                assert (await answer.json())["path"] == "/proxy/3000/page", name
        for port in (2280, 22222):
            async with ask(yard, "/page", port=port) as answer:
                assert "belongs to a sandbox" not in await answer.text(), port


@pytest.mark.parametrize(
    "elsewhere", ["//evil.test/", "https://evil.test/", "/%5Cevil.test", "/a%0d%0ab", "javascript:x"]
)
async def test_accepting_leads_nowhere_else(elsewhere: str) -> None:
    async with open_yard(preview_warning=True) as yard:
        async with ask(yard, f"/accept-daytona-preview-warning?redirect={elsewhere}", "POST") as answer:
            assert answer.status == 400
            assert "location" not in answer.headers


async def test_without_the_setting_nobody_is_warned() -> None:
    async with open_yard() as yard, ask(yard, "/page") as answer:
        assert (await answer.json())["path"] == "/proxy/3000/page"
