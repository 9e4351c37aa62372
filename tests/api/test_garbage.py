"""Requests that nobody means, where they once were taken for faults of ours."""

import asyncio

import structlog
from yarl import URL

from tests.api.conftest import API_KEY, World


async def test_a_query_of_a_thousand_and_one_parameters_is_refused(world: World) -> None:
    for path in ("/sandbox", "/secret/paginated", "/snapshots"):
        answer = await world.client.call("GET", f"{path}?{'&'.join(['a=1'] * 1_001)}")
        assert (answer.status, answer.json["message"]) == (400, "a query must not have more than 1000 parameters")


async def test_a_client_that_leaves_within_its_body_is_no_fault_of_ours(world: World) -> None:
    url = URL(world.client.url)
    head = (
        f"POST /api/sandbox HTTP/1.1\r\nHost: {url.host}\r\n"
        f"Authorization: Bearer {API_KEY}\r\nContent-Length: 9\r\n\r\n"
    )
    with structlog.testing.capture_logs() as said:
        _, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(head.encode() + b"{")
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        # Its handler has ended when the next request of that kind is answered.
        await asyncio.sleep(0.3)
        assert (await world.client.call("POST", "/sandbox", data=b"{")).status == 400
    assert [entry for entry in said if entry["log_level"] == "error"] == []


HUGE = b"1" + b"0" * 400
"""No floating-point number is so large; asked whether it is a finite one, Python raises."""


async def test_numbers_beyond_every_type_are_refused(world: World) -> None:
    sandbox = await world.create()
    for method, path, field in (
        ("POST", "/sandbox", b"cpu"),
        ("POST", "/sandbox", b"autoStopInterval"),
        ("POST", "/sandbox", b"ttlMinutes"),
        ("POST", f"/sandbox/{sandbox['id']}/resize", b"memory"),
        ("POST", "/warm-pools", b"pool"),
        ("POST", "/snapshots", b"disk"),
    ):
        for sign in (b"", b"-"):
            answer = await world.client.call(method, path, data=b'{"%s": %s%s}' % (field, sign, HUGE))
            assert (answer.status, answer.json["code"]) == (400, "BAD_REQUEST"), (path, field, sign)
