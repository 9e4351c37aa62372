"""From what language servers answer to what SDKs parse; what does not fit is left out, never passed on.

*Source:* Language Server Protocol 3.17 (`DocumentSymbol`, `SymbolInformation`, `CompletionItem`).
"""

from collections.abc import Iterator
from typing import Any

from sandyard_daemon.errors import Internal

_TEXTS = ("detail", "sortText", "filterText", "insertText")


def symbols(answer: Any, uri: str) -> list[dict[str, Any]]:
    """Either form as a flat list, parents before their children. `uri` is the document's own. Raises `Internal`."""
    if answer is None:
        return []
    if not isinstance(answer, list):
        raise Internal("the language server's answer is no list of symbols")
    return list(_flat(answer, uri))


def completions(answer: Any) -> dict[str, Any]:
    """A list or a `CompletionList`. Raises `Internal`."""
    incomplete = False
    if isinstance(answer, dict):
        incomplete, answer = answer.get("isIncomplete") is True, answer.get("items")
    if answer is None:
        answer = []
    if not isinstance(answer, list):
        raise Internal("the language server's answer is no list of completions")
    items = [_completion(item) for item in answer if isinstance(item, dict) and isinstance(item.get("label"), str)]
    return {"isIncomplete": incomplete, "items": items}


def _flat(answer: list[Any], uri: str) -> Iterator[dict[str, Any]]:
    """Without recursion: how deep it goes is the server's choice."""
    ahead = list(reversed(answer))
    while ahead:
        item = ahead.pop()
        if not isinstance(item, dict):
            continue
        children = item.get("children")
        if isinstance(children, list):
            ahead.extend(reversed(children))
        name, kind, location = item.get("name"), item.get("kind"), item.get("location")
        if not isinstance(name, str) or not _is_number(kind):
            continue
        place = location if isinstance(location, dict) else {"uri": uri, "range": item.get("range")}
        if isinstance(place.get("uri"), str):
            yield {
                "name": name,
                "kind": kind,
                "location": {"uri": place["uri"], "range": _range(place.get("range"))},
            }


def _completion(item: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {"label": item["label"]}
    if _is_number(item.get("kind")):
        made["kind"] = item["kind"]
    made |= {name: item[name] for name in _TEXTS if isinstance(item.get(name), str)}
    edit = item.get("textEdit")
    if "insertText" not in made and isinstance(edit, dict) and isinstance(edit.get("newText"), str):
        made["insertText"] = edit["newText"]
    documentation = item.get("documentation")
    if isinstance(documentation, str):
        made["documentation"] = {"kind": "plaintext", "value": documentation}  # the Python SDK wants an object
    elif isinstance(documentation, dict):
        made["documentation"] = documentation
    return made


def _range(value: Any) -> dict[str, Any]:
    """The start of the file where a server left the range to a later question."""
    value = value if isinstance(value, dict) else {}
    return {"start": _position(value.get("start")), "end": _position(value.get("end"))}


def _position(value: Any) -> dict[str, int]:
    value = value if isinstance(value, dict) else {}
    return {name: value[name] if _is_number(value.get(name)) else 0 for name in ("line", "character")}


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
