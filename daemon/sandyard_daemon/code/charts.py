"""The charts a program wrote down, checked: a user's program may write anything into that file, too."""

import json
import os
from typing import Any

MAX_CHARTS = 32 << 20
"""Bytes."""

_TEXTS = ("type", "title", "png", "x_label", "y_label", "x_scale", "y_scale", "label", "group", "value")
_NUMBERS = ("angle", "radius", "min", "first_quartile", "median", "third_quartile", "max")
_NUMBER_LISTS = ("x_ticks", "y_ticks", "outliers")
_TEXT_LISTS = ("x_tick_labels", "y_tick_labels")


def artifacts(descriptor: int) -> bytes:
    """`{"charts": [...]}` as JSON of the lines in a file, empty where there is none. Blocks; call it in a thread."""
    content = os.pread(descriptor, MAX_CHARTS, 0)
    charts = [line for line in content.splitlines() if _is_chart(line)]
    return b'{"charts": [%s]}' % b", ".join(charts) if charts else b""


def _is_chart(line: bytes) -> bool:
    try:
        value = json.loads(line.decode(), parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and isinstance(value.get("type"), str) and _fits(value)


def _refuse(text: str) -> None:
    raise ValueError(text)


def _fits(value: dict[str, Any]) -> bool:
    """Whether the strict models of the SDKs take it. *Source:* openapi/toolbox.json, Chart and ChartElement."""
    texts = all(isinstance(value.get(key, ""), str) for key in _TEXTS)
    numbers = all(_is_number(value.get(key, 0)) for key in _NUMBERS)
    lists = all(_is_list(value.get(key, []), _is_number) for key in _NUMBER_LISTS)
    labels = all(_is_list(value.get(key, []), lambda item: isinstance(item, str)) for key in _TEXT_LISTS)
    points = _is_list(value.get("points", []), lambda item: _is_list(item, _is_number))
    elements = _is_list(value.get("elements", []), lambda item: isinstance(item, dict) and _fits(item))
    return texts and numbers and lists and labels and points and elements


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_list(value: Any, check: Any) -> bool:
    return isinstance(value, list) and all(check(item) for item in value)
