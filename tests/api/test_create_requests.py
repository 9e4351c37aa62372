"""What a create request may say, and the words that refuse the rest."""

from typing import Any

import pytest

from sandyard_api.errors import BadRequest
from sandyard_api.snapshots.images import check_dockerfile, plain_image
from tests.api.conftest import World

BUILD = {"dockerfileContent": "FROM debian:12\n"}

REFUSED: list[tuple[dict[str, Any], int, str]] = [
    ({"cpu": -1}, 400, "cpu must not be less than 0"),
    ({"cpu": "2"}, 400, "cpu must be a number conforming to the specified constraints"),
    ({"env": [], "public": "yes"}, 400, "env must be an object, public must be a boolean value"),
    ({"name": 5}, 400, "name must be a string"),
    ({"name": "<b>x</b>"}, 400, "name must not contain HTML tags, URLs, or control characters"),
    ({"name": "see https://x"}, 400, "name must not contain HTML tags, URLs, or control characters"),
    ({"name": "a\u0007b"}, 400, "name must not contain HTML tags, URLs, or control characters"),
    ({"labels": "x"}, 400, "labels must be an object"),
    (
        {"snapshot": "mine"},
        400,
        "Snapshot mine not found. Did you add it through the Daytona Dashboard?",
    ),
    ({"snapshot": "mine", "buildInfo": BUILD}, 400, "Cannot specify a snapshot when using a build info entry"),
    ({"cpu": 2}, 400, "Cannot specify Sandbox resources when using a snapshot"),
    ({"otelEndpointOverride": "collector:4318"}, 400, "otelEndpointOverride must be an http or https URL"),
    ({"otelEndpointOverride": "https:///v1"}, 400, "otelEndpointOverride must be an http or https URL"),
    ({"otelEndpointOverride": "http://c?q=1"}, 400, "otelEndpointOverride must be an http or https URL"),
    ({"otelEndpointOverride": 4318}, 400, "otelEndpointOverride must be a string"),
    ({"target": "mars"}, 404, "Region not found"),
    ({"autoStopInterval": -1}, 400, "Auto-stop interval must be non-negative"),
    ({"autoArchiveInterval": -1}, 400, "Auto-archive interval must be non-negative"),
    ({"buildInfo": {}}, 400, "buildInfo.dockerfileContent must be a string"),
    ({"buildInfo": {"dockerfileContent": "# nothing\n"}}, 400, "buildInfo.dockerfileContent must not be empty"),
    ({"buildInfo": BUILD, "kvm": True}, 501, "KVM are not supported yet (kvm)"),
]


async def test_what_cannot_be_is_refused_in_the_platforms_words(world: World) -> None:
    for body, status, message in REFUSED:
        answer = await world.client.call("POST", "/sandbox", body)
        assert (answer.status, answer.json["message"]) == (status, message), body


async def test_a_collector_of_its_own_is_a_variable_of_the_sandbox_and_told_on_single_reads(world: World) -> None:
    endpoint = "https://collector.example.com:4318/base"
    made = await world.create(otelEndpointOverride=endpoint, env={"MINE": "1"})
    read = (await world.client.call("GET", f"/sandbox/{made['id']}")).json
    for answer in (made, read):
        assert answer["otelEndpointOverride"] == endpoint
        assert answer["env"] == {"MINE": "1", "DAYTONA_OTEL_ENDPOINT": endpoint}
    listed = (await world.client.call("GET", "/sandbox")).json
    assert "otelEndpointOverride" not in str(listed)
    other = await world.create()
    assert "otelEndpointOverride" not in other


def test_a_dockerfile_starts_with_an_image() -> None:
    for text in ("RUN true", "FROM", "FROMdebian", "FROM\nRUN x", "RUN true\nFROM debian"):
        with pytest.raises(BadRequest, match="must start with FROM and an image"):
            check_dockerfile(text)
    for text in ("FROM x", "# syntax=x\nARG BASE=debian\nFROM ${BASE}", "from x AS y\nFROM z\nCOPY --from=y a b"):
        check_dockerfile(text)


@pytest.mark.parametrize(
    ("text", "image"),
    [
        ("FROM debian:12", "debian:12"),
        ("\n# syntax\nfrom  ghcr.io/a/b@sha256:" + "0" * 64 + "  \n", "ghcr.io/a/b@sha256:" + "0" * 64),
        ("FROM --platform=linux/amd64 alpine AS base\n", "alpine"),
        ("FROM localhost:5000/a/b:c", "localhost:5000/a/b:c"),
        ("FROM ${BASE}", None),
        ("FROM debian:12\nRUN true", None),
    ],
)
def test_a_single_from_line_is_an_image(text: str, image: str | None) -> None:
    assert plain_image(text) == image


async def test_an_image_may_come_with_resources(world: World) -> None:
    body = {"buildInfo": BUILD | {"contextHashes": []}, "cpu": 2, "memory": 4, "disk": 5}
    answer = await world.client.call("POST", "/sandbox", body)
    assert (answer.json["cpu"], answer.json["memory"], answer.json["disk"]) == (2, 4, 5)
    [job] = await world.runner.claim()
    assert (job.spec.image, job.spec.cpu, job.spec.memory_gib, job.spec.disk_gib) == ("debian:12", 2, 4, 5)


async def test_defaults_are_the_platforms(world: World) -> None:
    sandbox = await world.create()
    assert sandbox["name"] == sandbox["id"]
    given = {key: sandbox[key] for key in ("cpu", "gpu", "memory", "disk", "user", "env", "labels", "public")}
    assert given == {
        "cpu": 1,
        "gpu": 0,
        "memory": 1,
        "disk": 3,
        "user": "daytona",
        "env": {},
        "labels": {},
        "public": False,
    }
    intervals = (sandbox["autoStopInterval"], sandbox["autoArchiveInterval"], sandbox["autoDeleteInterval"])
    assert intervals == (15, 10080, -1)
    assert (sandbox["state"], sandbox["desiredState"], sandbox["kvm"]) == ("started", "started", False)
    assert all(type(sandbox[key]) is int for key in ("cpu", "gpu", "memory", "disk"))


async def test_auto_archive_of_zero_is_the_maximum_and_ttl_makes_an_end(world: World) -> None:
    sandbox = await world.create(autoArchiveInterval=0, ttlMinutes=5, autoDeleteInterval=-7)
    assert sandbox["autoArchiveInterval"] == 43200
    assert sandbox["autoDeleteInterval"] == -1
    assert sandbox["autoDestroyAt"] > sandbox["createdAt"]


async def test_unknown_fields_and_missing_content_types_do_not_matter(world: World) -> None:
    async with world.runner.working():
        answer = await world.client.call(
            "POST",
            "/sandbox",
            data=b'{"queueTimeout": 5, "volumes": [], "env": {"N": 1}}',
            headers={"Content-Type": ""},
        )
    assert answer.status == 200
    assert answer.json["env"] == {"N": "1"}


async def test_what_is_no_json_object_is_a_400(world: World) -> None:
    for body in (b"{bad", b'{"a": }', b"\xff\xfe", b"[" * 100_000, b'"text"', b"[1]"):
        answer = await world.client.call("POST", "/sandbox", data=body)
        assert answer.status == 400
        assert answer.json["message"] in ("Invalid JSON in request body", "body must be an object")


async def test_the_spec_carries_what_was_asked(world: World) -> None:
    sandbox = await world.create(
        name="spec", user="root", env={"A": "1"}, labels={"l": "v"}, networkBlockAll=True, snapshot="sandyard-default"
    )
    spec = world.runner.jobs[0].spec
    assert (spec.sandbox_id, spec.name, spec.user) == (sandbox["id"], "spec", "root")
    assert (spec.env, spec.labels, spec.network_block_all) == ({"A": "1"}, {"l": "v"}, True)
    assert (spec.image, spec.snapshot) == (None, "sandyard-default")
    assert len(spec.door_secret) == 48
