"""Bodies against the toolbox description, where the contract is beside this checkout."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft4Validator  # type: ignore[import-untyped]

OPENAPI = Path(__file__).parents[3] / "shared" / "contract" / "openapi" / "toolbox.json"


@cache
def _description() -> dict[str, Any] | None:
    return json.loads(OPENAPI.read_text()) if OPENAPI.is_file() else None


def check_body(method: str, path: str, status: int, body: Any) -> None:
    """Fail unless `body` is what the description has for this answer; `path` as it is written there."""
    description = _description()
    if description is None:
        return
    schema = description["paths"][path][method.lower()]["responses"][str(status)].get("schema")
    if schema is None:
        assert body in (None, b"", ""), f"{method} {path} has no body, and got {body!r}"
        return
    Draft4Validator({**schema, "definitions": description["definitions"]}).validate(body)
