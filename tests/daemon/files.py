"""What tests of files ask of answers, and multipart bodies written by hand."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]

from tests.daemon.conftest import Answer

OPENAPI = Path(__file__).parents[3] / "shared" / "contract" / "openapi" / "toolbox.json"
BOUNDARY = "the-boundary"
FORM = f"multipart/form-data; boundary={BOUNDARY}"


def conforms(operation_id: str, answer: Answer) -> None:
    """Check the body by the schema that the description has for this status, where the description is at hand."""
    if not OPENAPI.exists():
        return
    description, operation = _description()[0], _description()[1][operation_id]
    assert str(answer.status) in operation["responses"], (operation_id, answer.status, answer.body[:300])
    schema = operation["responses"][str(answer.status)].get("schema")
    if schema is not None and schema.get("type") != "file":
        whole = {"definitions": description["definitions"], **schema}
        jsonschema.Draft4Validator(whole).validate(answer.json)


def error_of(answer: Answer, *, is_modelled: bool = True) -> tuple[int, str]:
    """Status and code of an error that has the envelope; parts of a bulk answer have codes that no schema lists."""
    body = answer.json
    assert {"statusCode", "message", "timestamp", "path", "code", "method", "source"} <= set(body), body
    assert body["statusCode"] == answer.status
    assert body["source"] == "DAYTONA_DAEMON"
    if is_modelled and OPENAPI.exists():
        definitions = _description()[0]["definitions"]
        whole = {"definitions": definitions, "$ref": "#/definitions/ErrorResponse"}
        jsonschema.Draft4Validator(whole).validate(body)
    return answer.status, body["code"]


def form(*parts: tuple[str, bytes], closed: bool = True) -> bytes:
    """A multipart body; a part whose name ends in `file` has a file name."""
    body = b""
    for name, content in parts:
        more = '; filename="whatever.bin"' if name.endswith("file") else ""
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'
        body += head.encode() + content + b"\r\n"
    return body + (f"--{BOUNDARY}--\r\n".encode() if closed else b"")


@cache
def _description() -> tuple[dict[str, Any], dict[str, Any]]:
    description = json.loads(OPENAPI.read_text())
    operations = {
        operation["operationId"]: operation
        for methods in description["paths"].values()
        for operation in methods.values()
    }
    return description, operations
