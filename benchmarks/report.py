"""The table, on the terminal and as a document."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.figures import Figure, NotMeasured, Row

HEADINGS = ("figure", "value", "baseline", "ratio", "target", "met", "remarks")
WIDTH = 200
"""Columns, where the output is no terminal."""
DOCUMENT = Path(__file__).with_name("RESULTS.md")
INTRODUCTION = """# Figures

Written by `make bench`; do not edit. Values are medians. A baseline is measured in turns with its value, in the same
run on the same machine, and the ratio is value by baseline. Targets are the project's own; a target that is not met
says so.
"""


def show(rows: Iterable[Row]) -> None:
    """Print the table."""
    table = Table(*HEADINGS, show_lines=False)
    for row in rows:
        table.add_row(*_cells(row))
    console = Console()
    (console if console.is_terminal else Console(width=WIDTH)).print(table)


def write(rows: Sequence[Row], machine: Sequence[str]) -> None:
    """Write `RESULTS.md`."""
    lines = [INTRODUCTION, *(f"- {line}" for line in machine), "", _line(HEADINGS), _line(["---"] * len(HEADINGS))]
    lines += [_line(_cells(row)) for row in rows]
    DOCUMENT.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cells(row: Row) -> tuple[str, ...]:
    if isinstance(row, NotMeasured):
        return row.name, "not measured", "", "", "", "", row.reason
    return (
        row.name,
        _amount(row.value, row.unit),
        f"{_amount(row.baseline, row.unit)} ({row.baseline_name})" if row.baseline is not None else "",
        f"{row.ratio:.2f}" if row.ratio is not None else "",
        _target(row),
        {True: "yes", False: "**no**", None: ""}[row.is_met],
        row.note,
    )


def _target(row: Figure) -> str:
    if row.target is None:
        return ""
    return str(row.target) if row.target.of_ratio else f"{row.target} {row.unit}"


def _amount(value: float, unit: str) -> str:
    return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f} {unit}"
