"""Which operations an SDK calls: its own source is read for the methods of the generated clients that it names, and
theirs for the method and path behind each. Nothing is run.
"""

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

API, TOOLBOX = "api", "toolbox"
VARIANT = re.compile(r"^_?(.+?)(?:_with_http_info|_without_preload_content|_serialize)?$")
TYPESCRIPT_OPERATION = re.compile(
    r"^ {8}(\w+): async \(.*?const localVarPath = `([^`]*)`.*?localVarRequestOptions = \{ method: '(\w+)'",
    re.MULTILINE | re.DOTALL,
)
TYPESCRIPT_CALL = re.compile(r"\b\w*(?:[aA]pi|[cC]lient)\??\.(\w+)\b")


@dataclass(frozen=True, slots=True, order=True)
class Called:
    """A method on a path template of one of the two descriptions."""

    description: str
    """`API` or `TOOLBOX`."""
    method: str
    path: str


def python_calls(packages: Path) -> set[Called]:
    """Of the package `daytona` among installed packages, both its clients."""
    known = {
        API: dict(_python_operations(packages / "daytona_api_client" / "api")),
        TOOLBOX: dict(_python_operations(packages / "daytona_toolbox_api_client" / "api")),
    }
    named: set[str] = set()
    for source in (packages / "daytona").rglob("*.py"):
        named.update(_python_names(source))
    return _resolve(known, named)


def typescript_calls(package: Path) -> set[Called]:
    """Of an SDK package that was compiled to ECMAScript modules."""
    clients = package.parents[1] / "@daytona"
    known = {
        API: dict(_typescript_operations(clients / "api-client" / "src" / "api")),
        TOOLBOX: dict(_typescript_operations(clients / "toolbox-api-client" / "src" / "api")),
    }
    named: set[str] = set()
    for source in (package / "esm").glob("*.js"):
        named.update(TYPESCRIPT_CALL.findall(source.read_text()))
    return _resolve(known, named)


def _resolve(known: Mapping[str, Mapping[str, tuple[str, str]]], named: Iterable[str]) -> set[Called]:
    """A name that both clients have counts for both: each must be there."""
    return {
        Called(description, *operations[name])
        for description, operations in known.items()
        for name in named
        if name in operations
    }


def _python_operations(folder: Path) -> Iterator[tuple[str, tuple[str, str]]]:
    for source in folder.glob("*.py"):
        for node in ast.walk(ast.parse(source.read_text())):
            if not isinstance(node, ast.FunctionDef) or not node.name.endswith("_serialize"):
                continue
            texts = {
                keyword.arg: keyword.value.value
                for call in ast.walk(node)
                if isinstance(call, ast.Call)
                for keyword in call.keywords
                if isinstance(keyword.value, ast.Constant)
            }
            yield _plain(node.name), (str(texts["method"]), str(texts["resource_path"]))


def _python_names(source: Path) -> Iterator[str]:
    """What is asked of anything that is called an API or a client, whether it is called at once or handed on."""
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Attribute):
            owner = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
            if owner.lower().endswith(("api", "client")):
                yield _plain(node.attr)


def _typescript_operations(folder: Path) -> Iterator[tuple[str, tuple[str, str]]]:
    for source in folder.glob("*.js"):
        for name, path, method in TYPESCRIPT_OPERATION.findall(source.read_text()):
            yield name, (method, path)


def _plain(name: str) -> str:
    found = VARIANT.match(name)
    assert found is not None
    return found[1]
