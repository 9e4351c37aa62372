"""The table of operations against the API description, the router, the page, and the clients' own models."""

import importlib
import json
import re
from pathlib import Path
from typing import Any

import daytona_api_client as client
import jsonschema  # type: ignore[import-untyped]
import pytest

from sandyard_api import app, coverage, tables
from sandyard_api.coverage.matching import OperationTable
from sandyard_api.coverage.operations import IMPLEMENTED, OPERATIONS, Operation
from sandyard_api.database import Base
from tests.api.conftest import World

ROOT = Path(__file__).resolve().parents[2]
DESCRIPTION = ROOT.parent / "shared" / "contract" / "openapi" / "api.json"
PACKAGE = Path(app.__file__).parent
METHODS = ("get", "post", "put", "patch", "delete", "head", "options")


@pytest.fixture(scope="module")
def description() -> dict[str, Any]:
    if not DESCRIPTION.exists():
        pytest.skip("the API description is not beside the repository")
    loaded: dict[str, Any] = json.loads(DESCRIPTION.read_text())
    return loaded


def test_the_table_is_complete(description: dict[str, Any]) -> None:
    described = {
        (method.upper(), path, operation["operationId"])
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
        if method in METHODS
    }
    assert {(one.method, one.path, one.id) for one in OPERATIONS} == described
    assert {one.id for one in OPERATIONS} >= IMPLEMENTED


def filled(operation: Operation) -> str:
    return re.sub(r"\{\w+\}", "x", operation.path)


async def test_every_operation_answers_as_the_table_says(world: World) -> None:
    wrong = {}
    async with world.runner.working():  # one of them creates a sandbox, and waits for it
        answers = [(each, await world.client.call(each.method, filled(each))) for each in OPERATIONS]
    for operation, answer in answers:
        if operation.is_implemented:
            said = answer.json if isinstance(answer.json, dict) else {}
            missing = answer.status == 501 or str(said.get("message", "")).startswith("Cannot ")
            if missing or answer.status == 405:
                wrong[operation.id] = answer.status
        elif answer.status != 501 or operation.id not in answer.json["message"]:
            wrong[operation.id] = answer.status
    assert wrong == {}


def test_implemented_operations_are_what_the_handlers_say() -> None:
    said = {
        handler.fn.__doc__ for each in app.PUBLIC_SLICES if each.path.startswith("/api") for handler in each.handlers
    }
    assert said == IMPLEMENTED


def test_a_literal_segment_wins_over_a_parameter() -> None:
    table = OperationTable(OPERATIONS)
    found = {
        path: operation.id if (operation := table.find("GET", path)) else None
        for path in ("/sandbox/paginated", "/sandbox/for-runner", "/sandbox/a%2Fb", "/jobs/poll", "/nothing", "/")
    }
    assert found == {
        "/sandbox/paginated": "listSandboxesPaginated_deprecated",
        "/sandbox/for-runner": "getSandboxesForRunner",
        "/sandbox/a%2Fb": "getSandbox",
        "/jobs/poll": "pollJobs",
        "/nothing": None,
        "/": None,
    }


def test_the_page_is_up_to_date() -> None:
    page = (ROOT / "docs" / "coverage.md").read_text()
    assert page.endswith(coverage.render()), "run `make docs`"


def test_every_slice_is_in_the_application() -> None:
    defined: dict[int, str] = {}
    for path in PACKAGE.glob("*/*.py"):
        if names := re.findall(r"^(\w+) = Slice\(", path.read_text(), re.MULTILINE):
            module = importlib.import_module(f"sandyard_api.{path.parent.name}.{path.stem}")
            defined |= {id(getattr(module, name)): f"{module.__name__}.{name}" for name in names}
    used = {id(each) for each in (*app.PUBLIC_SLICES, *app.INTERNAL_SLICES)}
    assert used == set(defined), defined


def test_every_table_is_known_to_the_migrations() -> None:
    models = {path for path in PACKAGE.glob("*/models.py")}
    defined = {name for path in models for name in re.findall(r'__tablename__ = "(\w+)"', path.read_text())}
    assert defined == set(tables.METADATA.tables) == {table.__tablename__ for table in tables.TABLES}
    assert tables.METADATA is Base.metadata


def check_schema(description: dict[str, Any], name: str, value: Any) -> None:
    schema = {"$ref": f"#/components/schemas/{name}", "components": description["components"]}
    jsonschema.Draft202012Validator(_nullable(schema)).validate(value)


def _nullable(schema: Any) -> Any:
    """The description is OpenAPI 3.0: `nullable` is not JSON Schema."""
    if isinstance(schema, list):
        return [_nullable(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {key: _nullable(value) for key, value in schema.items()}
    return {"anyOf": [plain, {"type": "null"}]} if schema.get("nullable") is True else plain


async def test_answers_fit_the_description(world: World, description: dict[str, Any]) -> None:
    sandbox = await world.create(labels={"a": "b"}, ttlMinutes=5)
    built = await world.client.call("POST", "/sandbox", {"buildInfo": {"dockerfileContent": "FROM x"}})
    for value in (sandbox, built.json):
        check_schema(description, "Sandbox", value)
    check_schema(description, "ListSandboxesResponse", (await world.client.call("GET", "/sandbox")).json)
    check_schema(description, "DaytonaConfiguration", (await world.client.call("GET", "/config")).json)
    check_schema(description, "ApiKeyList", (await world.client.call("GET", "/api-keys/current")).json)
    path = f"/sandbox/{sandbox['id']}"
    preview = await world.client.call("GET", f"{path}/ports/80/preview-url")
    check_schema(description, "PortPreviewUrl", preview.json)
    signed = await world.client.call("GET", f"{path}/ports/80/signed-preview-url")
    check_schema(description, "SignedPortPreviewUrl", signed.json)
    await _check_account(world, description)


async def _check_account(world: World, description: dict[str, Any]) -> None:
    made = await world.client.call("POST", "/api-keys", {"name": "ci", "permissions": []})
    check_schema(description, "ApiKeyResponse", made.json)
    (organization,) = (await world.client.call("GET", "/organizations")).json
    for path, schema in {
        "": "Organization",
        "/users": "OrganizationUser",
        "/usage": "OrganizationUsageOverview",
        "/available-sandbox-classes": "AvailableSandboxClass",
    }.items():
        answer = (await world.client.call("GET", f"/organizations/{organization['id']}{path}")).json
        check_schema(description, schema, answer[0] if isinstance(answer, list) else answer)
    sandbox = (await world.client.call("GET", "/sandbox")).json["items"][0]["id"]
    check_schema(description, "RegionQuota", (await world.client.call("GET", f"/sandbox/{sandbox}/region-quota")).json)
    assert (await world.client.call("GET", f"/sandbox/{sandbox}/organization")).json == organization
    check_schema(description, "User", (await world.client.call("GET", "/users/me")).json)
    check_schema(description, "Region", (await world.client.call("GET", "/regions")).json[0])


async def test_answers_fit_the_clients_models(world: World) -> None:
    sandbox = await world.create(labels={"a": "b"}, ttlMinutes=5)
    assert client.Sandbox.from_dict(sandbox) is not None
    built = await world.client.call("POST", "/sandbox", {"buildInfo": {"dockerfileContent": "FROM x"}})
    assert client.Sandbox.from_dict(built.json) is not None
    assert client.ListSandboxesResponse.from_dict((await world.client.call("GET", "/sandbox")).json) is not None
    assert client.DaytonaConfiguration.from_dict((await world.client.call("GET", "/config")).json) is not None
    assert client.ApiKeyList.from_dict((await world.client.call("GET", "/api-keys/current")).json) is not None
    (organization,) = (await world.client.call("GET", "/organizations")).json
    assert client.Organization.from_dict(organization) is not None
    usage = await world.client.call("GET", f"/organizations/{organization['id']}/usage")
    assert client.OrganizationUsageOverview.from_dict(usage.json) is not None
    assert client.User.from_dict((await world.client.call("GET", "/users/me")).json) is not None
    assert client.Region.from_dict((await world.client.call("GET", "/regions")).json[0]) is not None
    ready = (await world.client.call("GET", "/health/ready")).json
    assert client.HealthControllerCheck200Response.from_dict(ready) is not None


async def test_answers_of_the_lifecycle_fit_the_description_and_the_models(
    world: World, description: dict[str, Any]
) -> None:
    sandbox = await world.create(autoPauseInterval=30)
    answers = []
    fork = await world.client.call("POST", f"/sandbox/{sandbox['id']}/fork", {"name": "branch"})
    await world.runner.work_once()
    for relation in ("parent", "ancestors", "forks"):
        key = sandbox["id"] if relation == "forks" else "branch"
        told = (await world.client.call("GET", f"/sandbox/{key}/{relation}")).json
        answers += told if isinstance(told, list) else [told]
    for step in ("backup", "pause", "start", "stop", "archive", "start", "autopause/5"):
        async with world.runner.working():
            answers.append((await world.client.call("POST", f"/sandbox/branch/{step}")).json)
            answers.append((await world.client.call("GET", "/sandbox/branch")).json)
            while answers[-1]["state"].endswith("ing"):
                answers[-1] = (await world.client.call("GET", "/sandbox/branch")).json
    answers.append((await world.client.call("POST", "/sandbox/branch/resize", {"cpu": 3})).json)
    assert [answer["message"] for answer in answers if "state" not in answer] == []
    assert {"pausing", "archiving", "resizing", "started", "stopped"} <= {answer["state"] for answer in answers}
    for answer in [fork.json, *answers]:
        check_schema(description, "Sandbox", answer)
        assert client.Sandbox.from_dict(answer) is not None
