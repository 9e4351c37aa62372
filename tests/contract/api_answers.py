"""Whether an answer of the API is one that clients can read: by the API description, and by the generated models."""

import json
import re
from functools import cache
from http import HTTPStatus
from typing import Any

import daytona_api_client as client
import jsonschema  # type: ignore[import-untyped]

REFUSALS = frozenset({400, 401, 403, 404, 405, 409, 410, 413, 414, 422, 501})
"""What the protocol says when it does not do something (control-plane.md 1.2)."""
PLAIN_TEXT = frozenset({"getSandboxSigningKey", "rotateSigningKey", "getSigningKey"})
"""Described as a JSON string, which clients would not read as one (sdk-wire.md 3.7)."""
ENVELOPE = frozenset({"statusCode", "message", "code", "source", "error", "path", "method", "timestamp"})


class Answers:
    """Checks answers by what the description says of the operation that was asked."""

    def __init__(self, description: dict[str, Any]) -> None:
        self._components = nullable(description["components"])
        self._validator = cache(self._validator_of)

    def check(self, operation: dict[str, Any], status: int, content_type: str, body: bytes) -> None:
        """Raises `AssertionError`, and what the validators raise."""
        operation_id = operation["operationId"]
        described = operation["responses"].get(str(status))
        if status >= HTTPStatus.BAD_REQUEST:
            assert status in REFUSALS or (described and status != HTTPStatus.INTERNAL_SERVER_ERROR), status
        else:
            assert described, f"{status} is in no description of {operation_id}"
        if status >= HTTPStatus.BAD_REQUEST and "json" not in json.dumps(described or {}):
            check_envelope(status, content_type, body)
            return
        if operation_id in PLAIN_TEXT:
            assert content_type.startswith("text/plain"), content_type
            return
        schema = described.get("content", {}).get("application/json", {}).get("schema")
        if schema is not None:
            assert content_type.startswith("application/json"), content_type
            self._validator(json.dumps(schema)).validate(json.loads(body))
            check_model(schema, body)

    def _validator_of(self, schema: str) -> Any:
        whole = {**nullable(json.loads(schema)), "components": self._components}
        return jsonschema.Draft202012Validator(whole)


def check_envelope(status: int, content_type: str, body: bytes) -> None:
    """The one form of an error."""
    assert content_type.startswith("application/json"), content_type
    told = json.loads(body)
    assert set(told) >= ENVELOPE, told
    assert told["statusCode"] == status, told
    assert isinstance(told["message"], str), told
    assert told["message"], told
    assert told["source"] == "DAYTONA_API", told


def check_model(schema: dict[str, Any], body: bytes) -> None:
    """The newest generated client makes its model of it."""
    kind = model_name(schema)
    if kind is not None:
        made = client.ApiClient().deserialize(body.decode(), kind, "application/json")
        assert made is not None


def model_name(schema: dict[str, Any]) -> str | None:
    """The model in the words of the generated client; `None` where it has none."""
    if (reference := schema.get("$ref")) is not None:
        name = re.sub(r"\W|_", "", reference.rsplit("/", 1)[-1])
        return name if hasattr(client, name) else None
    if schema.get("type") == "array" and (item := model_name(schema["items"])) is not None:
        return f"List[{item}]"
    return None


def nullable(schema: Any) -> Any:
    """The description is OpenAPI 3.0: `nullable` is not JSON Schema."""
    if isinstance(schema, list):
        return [nullable(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {key: nullable(value) for key, value in schema.items()}
    return {"anyOf": [plain, {"type": "null"}]} if schema.get("nullable") is True else plain
