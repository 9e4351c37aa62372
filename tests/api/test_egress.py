"""The way out of sandboxes as requests say it: allow lists, changes while they run, and secrets."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import text

from sandyard_api.jobs.wire import JobKind, JobResult
from sandyard_api.sandboxes.states import Observed
from tests.api.conftest import World, open_world
from tests.api.doubles import badly, well
from tests.api.test_coverage import check_schema, description

__all__ = ["description"]  # the fixture

SECRET = {"name": "prod-key", "value": "sk-very-secret", "hosts": ["api.example.com"]}
NETWORKS = [
    ("1.1.1.0/24," * 11, "Network allow list cannot contain more than 10 networks"),
    ("10.0.0.0", 'Invalid network format: "10.0.0.0". Missing CIDR prefix length (e.g., /24)'),
    ("10.0.0/8", 'Invalid IP address: "10.0.0" in network "10.0.0/8". Must be a valid IPv4 address'),
    ("fd00::/8", 'Invalid IP address: "fd00::" in network "fd00::/8". Must be a valid IPv4 address'),
    ("10.0.0.0/33", "Invalid CIDR prefix length: 33. Prefix must be between 0 and 32"),
    ("10.0.0.0/-1", "Invalid CIDR prefix length: -1. Prefix must be between 0 and 32"),
    ("10.0.0.0/x", "Invalid CIDR prefix length: x. Prefix must be between 0 and 32"),
]
DOMAINS = [
    (",".join(f"a{n}.example.com" for n in range(11)), "Domain allow list cannot contain more than 10 domains"),
    ("*.*.example.com", 'Invalid domain: "*.*.example.com". Must be a valid domain name'),
    ("example", 'Invalid domain: "example". Must be a valid domain name'),
    ("http://example.com", 'Invalid domain: "http://example.com". Must be a valid domain name'),
    ("10.0.0.1", 'Invalid domain: "10.0.0.1". Must be a valid domain name'),
]


@pytest.mark.parametrize(("value", "message"), NETWORKS)
async def test_a_bad_network_is_named_in_the_platforms_words(world: World, value: str, message: str) -> None:
    answer = await world.client.call("POST", "/sandbox", {"networkAllowList": value})
    assert (answer.status, answer.json["message"]) == (400, message)


@pytest.mark.parametrize(("value", "message"), DOMAINS)
async def test_a_bad_domain_is_named_in_the_platforms_words(world: World, value: str, message: str) -> None:
    answer = await world.client.call("POST", "/sandbox", {"domainAllowList": value})
    assert (answer.status, answer.json["message"]) == (400, message)


async def test_the_runner_gets_the_lists_and_clients_see_them_again(either_world: World) -> None:
    made = await either_world.create(networkAllowList="10.0.0.0/8, 1.2.3.4/32", domainAllowList="*.Example.com")
    assert (made["networkAllowList"], made["domainAllowList"]) == ("10.0.0.0/8,1.2.3.4/32", "*.example.com")
    spec = either_world.runner.jobs[-1].spec
    assert (spec.network_allow_list, spec.domain_allow_list) == (("10.0.0.0/8", "1.2.3.4/32"), ("*.example.com",))
    listed = (await either_world.client.call("GET", "/sandbox")).json["items"][0]
    assert (listed["networkAllowList"], listed["networkBlockAll"]) == ("10.0.0.0/8,1.2.3.4/32", False)


CHANGES: list[tuple[dict[str, Any], tuple[bool, str | None, str | None]]] = [
    ({"networkBlockAll": True}, (True, None, None)),
    ({"networkBlockAll": False}, (False, None, None)),
    ({"networkAllowList": "10.1.0.0/16"}, (False, "10.1.0.0/16", "example.com")),
    ({"networkAllowList": ""}, (False, None, "example.com")),
    ({"domainAllowList": ""}, (False, "10.0.0.0/8", None)),
    ({"networkBlockAll": False, "domainAllowList": "b.org"}, (False, None, "b.org")),
    ({"networkBlockAll": True, "networkAllowList": "10.1.0.0/16"}, (True, None, None)),
]


@pytest.mark.parametrize(("change", "expected"), CHANGES)
async def test_what_a_change_makes_of_the_settings(
    world: World, change: dict[str, Any], expected: tuple[bool, str | None, str | None]
) -> None:
    made = await world.create(networkAllowList="10.0.0.0/8", domainAllowList="example.com")
    async with world.runner.working():
        answer = await world.client.call("POST", f"/sandbox/{made['id']}/network-settings", change)
    seen = answer.json
    assert (seen["networkBlockAll"], seen.get("networkAllowList"), seen.get("domainAllowList")) == expected
    job = world.runner.jobs[-1]
    assert (job.kind, job.spec.network_block_all) == (JobKind.NETWORK, expected[0])


async def test_a_list_opens_what_was_blocked(world: World) -> None:
    made = await world.create(networkBlockAll=True)
    async with world.runner.working():
        path = f"/sandbox/{made['id']}/network-settings"
        answer = await world.client.call("POST", path, {"networkAllowList": "10.0.0.0/8"})
    assert (answer.json["networkBlockAll"], answer.json["networkAllowList"]) == (False, "10.0.0.0/8")


async def test_nothing_given_is_refused(world: World) -> None:
    made = await world.create()
    answer = await world.client.call("POST", f"/sandbox/{made['id']}/network-settings", {})
    message = "At least one of networkBlockAll, networkAllowList or domainAllowList must be provided"
    assert (answer.status, answer.json["message"]) == (400, message)


async def test_a_stopped_sandbox_gets_its_rules_at_the_start(either_world: World) -> None:
    world = either_world
    made = await world.create()
    async with world.runner.working():
        await world.client.call("POST", f"/sandbox/{made['id']}/stop")
        answer = await world.client.call(
            "POST", f"/sandbox/{made['id']}/network-settings", {"networkAllowList": "10.0.0.0/8"}
        )
        assert (answer.status, answer.json["state"]) == (200, "stopped")
        await world.client.call("POST", f"/sandbox/{made['id']}/start")
    assert world.runner.jobs[-1].kind is JobKind.START
    assert world.runner.jobs[-1].spec.network_allow_list == ("10.0.0.0/8",)


async def test_one_that_failed_is_refused(world: World) -> None:
    world.runner.play = badly
    made = await world.create()
    answer = await world.client.call("POST", f"/sandbox/{made['id']}/network-settings", {"networkBlockAll": True})
    assert (answer.status, answer.json["message"]) == (400, "Sandbox is in an errored state")


async def test_rules_that_cannot_be_held_are_told_and_taken_back(either_world: World) -> None:
    world = either_world
    made = await world.create(networkAllowList="10.0.0.0/8")
    world.runner.play = lambda job: [JobResult(job.lease, ok=False, observed=Observed.STARTED, reason="nft is missing")]
    async with world.runner.working():
        path = f"/sandbox/{made['id']}/network-settings"
        answer = await world.client.call("POST", path, {"networkBlockAll": True})
    assert (answer.status, answer.json["message"]) == (400, "nft is missing")
    seen = (await world.client.call("GET", f"/sandbox/{made['id']}")).json
    assert (seen["state"], seen["networkBlockAll"], seen["networkAllowList"]) == ("started", False, "10.0.0.0/8")


async def test_what_was_refused_once_is_nothing_to_a_stopped_sandbox(either_world: World) -> None:
    """It was told the outcome of the change before, and the settings were taken back."""
    world = either_world
    made = await world.create()
    path = f"/sandbox/{made['id']}/network-settings"
    async with world.runner.working():
        world.runner.play = lambda job: [JobResult(job.lease, ok=False, observed=Observed.STARTED, reason="no nft")]
        assert (await world.client.call("POST", path, {"networkAllowList": "10.0.0.0/8"})).status == 400
        world.runner.play = well
        await world.client.call("POST", f"/sandbox/{made['id']}/stop")
        answer = await world.client.call("POST", path, {"networkBlockAll": True})
    assert (answer.status, answer.json.get("networkBlockAll")) == (200, True)


async def test_rules_that_are_not_in_force_yet_are_no_success(database_url: str) -> None:
    """Somebody blocks a sandbox and then lets it run: an answer of 200 says that it is blocked."""
    async with open_world(database_url, wait_seconds=0.5) as world:
        made = await world.create()
        path = f"/sandbox/{made['id']}"
        async with world.runner.working(), asyncio.timeout(60):
            while (await world.client.call("GET", path)).json["state"] != "started":  # noqa: ASYNC110  it is asked
                await asyncio.sleep(0.05)
            world.runner.play = lambda _: []  # it takes the job and says nothing
            answer = await world.client.call("POST", f"{path}/network-settings", {"networkBlockAll": True})
        assert (answer.status, answer.json["code"]) == (503, "SERVICE_UNAVAILABLE")
        assert "not in force yet" in answer.json["message"]
        seen = (await world.client.call("GET", path)).json
        assert seen["networkBlockAll"], "they come into force when the runner is back"


async def test_another_request_does_not_wait_for_open_network_work(world: World) -> None:
    made = await world.create()
    world.runner.play = lambda _: []  # the runner takes it and says nothing
    async with world.runner.working():
        path = f"/sandbox/{made['id']}/network-settings"
        asking = asyncio.create_task(world.client.call("POST", path, {"networkBlockAll": True}))
        async with asyncio.timeout(60):
            while world.runner.jobs[-1].kind is not JobKind.NETWORK:  # noqa: ASYNC110  a list has no event
                await asyncio.sleep(0.01)
        world.runner.play = well
        assert (await world.client.call("POST", f"/sandbox/{made['id']}/stop")).json["state"] == "stopped"
        assert (await asking).status == 200


async def test_a_fork_has_the_rules_of_its_parent(world: World) -> None:
    made = await world.create(networkAllowList="10.0.0.0/8")
    async with world.runner.working():
        forked = await world.client.call("POST", f"/sandbox/{made['id']}/fork", {})
    assert forked.json["networkAllowList"] == "10.0.0.0/8"


async def test_the_life_of_a_secret(either_world: World) -> None:
    call = either_world.client.call
    made = await call("POST", "/secret", SECRET | {"description": "of the shop"})
    assert made.status == 201
    assert set(made.json) == {"id", "name", "description", "placeholder", "hosts", "createdAt", "updatedAt"}
    again = await call("POST", "/secret", SECRET)
    assert (again.status, again.json["message"]) == (409, "Secret with name prod-key already exists")
    changed = await call("PATCH", f"/secret/{made.json['id']}", {"hosts": ["*.example.com"]})
    assert (changed.json["hosts"], changed.json["placeholder"]) == (["*.example.com"], made.json["placeholder"])
    assert (await call("GET", "/secret")).json == [changed.json]
    assert (await call("DELETE", f"/secret/{made.json['id']}")).status == 204
    gone = await call("GET", f"/secret/{made.json['id']}")
    assert (gone.status, gone.json["message"]) == (404, f"Secret with ID {made.json['id']} not found")


async def test_the_value_of_a_secret_is_sealed_and_in_no_answer(either_world: World) -> None:
    call = either_world.client.call
    made = await call("POST", "/secret", SECRET)
    answers = [made, await call("GET", "/secret"), await call("GET", f"/secret/{made.json['id']}")]
    assert all(b"sk-very-secret" not in answer.body for answer in answers)
    async with either_world.plane.database.reading() as db:
        stored = (await db.execute(text("SELECT * FROM secrets"))).one()
    assert "sk-very-secret" not in repr(stored)


async def test_secrets_come_in_pages(world: World) -> None:
    call = world.client.call
    for name in ("b", "a", "c"):
        await call("POST", "/secret", {"name": name, "value": "x"})
    first = (await call("GET", "/secret/paginated?limit=2&sort=name&order=asc")).json
    assert ([item["name"] for item in first["items"]], first["total"]) == (["a", "b"], 3)
    rest = (await call("GET", f"/secret/paginated?limit=2&sort=name&order=asc&cursor={first['nextCursor']}")).json
    assert ([item["name"] for item in rest["items"]], rest["nextCursor"]) == (["c"], None)
    assert (await call("GET", "/secret/paginated?cursor=nonsense")).status == 400


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": "1a", "value": "x"},
        {"name": "a"},
        {"name": "a", "value": ""},
        {"name": "a", "value": "two\nlines"},
        {"name": "a", "value": "x", "hosts": ["http://a.b"]},
        {"name": "a", "value": "x", "hosts": "a.b"},
        {"name": "a", "value": "x", "hosts": [1]},
    ],
)
async def test_a_secret_that_cannot_be_is_refused(world: World, body: dict[str, Any]) -> None:
    assert (await world.client.call("POST", "/secret", body)).status == 400


async def test_the_runner_gets_the_secrets_of_a_sandbox_and_clients_do_not(either_world: World) -> None:
    world = either_world
    placeholder = (await world.client.call("POST", "/secret", SECRET)).json["placeholder"]
    made = await world.create(secrets=[{"API_KEY": "prod-key"}])
    [grant] = world.runner.jobs[-1].spec.secrets
    assert (grant.variable, grant.placeholder, grant.value) == ("API_KEY", placeholder, "sk-very-secret")
    assert grant.hosts == ("api.example.com",)
    assert "sk-very-secret" not in repr(grant)
    async with world.runner.working():
        emptied = await world.client.call("PUT", f"/sandbox/{made['id']}/secrets", {"secrets": []})
    assert emptied.status == 200
    assert world.runner.jobs[-1].spec.secrets == ()


async def test_an_unknown_secret_is_named(world: World) -> None:
    answer = await world.client.call("POST", "/sandbox", {"secrets": [{"A": "nobody"}]})
    assert (answer.status, answer.json["message"]) == (404, "Secret nobody not found")
    made = await world.create()
    for body, status in ((({"secrets": [{"A": "nobody"}]}), 404), ({}, 400), ({"secrets": [1]}, 400)):
        assert (await world.client.call("PUT", f"/sandbox/{made['id']}/secrets", body)).status == status


async def test_answers_fit_the_description(world: World, description: dict[str, Any]) -> None:
    call = world.client.call
    check_schema(description, "Secret", (await call("POST", "/secret", SECRET | {"description": "x"})).json)
    check_schema(description, "ListSecretsResponse", (await call("GET", "/secret/paginated")).json)
    made = await world.create(networkAllowList="10.0.0.0/8", domainAllowList="a.org", secrets=[{"KEY": "prod-key"}])
    check_schema(description, "Sandbox", made)
    async with world.runner.working():
        path = f"/sandbox/{made['id']}"
        changed = await call("POST", f"{path}/network-settings", {"networkBlockAll": True})
        check_schema(description, "Sandbox", changed.json)
        check_schema(description, "Sandbox", (await call("PUT", f"{path}/secrets", {"secrets": []})).json)


PROXY = "http://me:s3cret%40@proxy.example.com:3128"


async def test_the_runner_gets_the_whole_outbound_proxy_and_clients_see_it_without_credentials(
    either_world: World, description: dict[str, Any]
) -> None:
    world = either_world
    made = await world.create(outboundProxyUrl=PROXY)
    check_schema(description, "Sandbox", made)
    spec = world.runner.jobs[-1].spec
    assert (spec.outbound_proxy_url, "s3cret" in repr(spec)) == (PROXY, False)
    answers = [await world.client.call("GET", path) for path in (f"/sandbox/{made['id']}", "/sandbox")]
    assert answers[0].json["outboundProxyUrl"] == made["outboundProxyUrl"] == "http://proxy.example.com:3128"
    assert all(b"s3cret" not in answer.body for answer in answers)
    async with world.plane.database.reading() as db:
        stored = (await db.execute(text("SELECT * FROM sandboxes"))).one()
    assert "s3cret" not in repr(stored)


async def test_a_fork_has_its_parents_outbound_proxy(world: World) -> None:
    made = await world.create(outboundProxyUrl=PROXY)
    async with world.runner.working():
        answer = await world.client.call("POST", f"/sandbox/{made['id']}/fork", {"name": "child"})
    assert (answer.status, answer.json["outboundProxyUrl"]) == (200, "http://proxy.example.com:3128"), answer.body
    assert world.runner.jobs[-1].spec.outbound_proxy_url == PROXY


async def test_no_outbound_proxy_is_none(world: World) -> None:
    assert "outboundProxyUrl" not in await world.create(outboundProxyUrl="")


@pytest.mark.parametrize(
    "url",
    [
        *(
            "proxy.example.com:3128",
            "socks5://me:s3cret@a.b:1",
            "http://",
            "http://me:s3cret@",
            "http://a b",
            "http://a/b",
        ),
        *(
            "http://a?b",
            "http://a#b",
            "http://a:99999",
            "http://a:x",
            "http://a:0",
            "http://[::1]:1",
            "http://[",
            "http://ä",
        ),
        *("http://a\r\nX: y", "http://a" + "a" * 3000),
    ],
)
async def test_an_outbound_proxy_that_cannot_be_is_refused_without_repeating_it(world: World, url: str) -> None:
    answer = await world.client.call("POST", "/sandbox", {"outboundProxyUrl": url})
    assert (answer.status, b"s3cret" in answer.body) == (400, False)
    assert answer.json["message"].startswith("Invalid outbound proxy URL. Must be http://[user:password@]host[:port]")
