"""`python -m benchmarks [--quick] [--only NAME ...]`: print the table; a whole run writes RESULTS.md, too."""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from benchmarks import (
    bench_powers,
    creation,
    daemon,
    execution,
    files,
    following,
    git,
    interpreter,
    latency,
    log_capture,
    pools,
    report,
    starting,
    terminal,
)
from benchmarks.bench import Bench
from benchmarks.figures import Row
from benchmarks.machine import describe, describe_load

FAMILIES: Mapping[str, Callable[[Bench], Iterator[Row]]] = {
    "capture": log_capture.measure,
    "follow": following.measure,
    "follow-redis": following.measure_redis,
    "crowd": following.measure_crowd,
    "latency": latency.measure,
    "latency-redis": latency.measure_redis,
    "execute": execution.measure,
    "git": git.measure,
    "interpreter": interpreter.measure,
    "files": files.measure,
    "create": creation.measure,
    "ready": starting.measure_ready,
    "idle": starting.measure_idle,
    "daemon": daemon.measure,
    "daemon-used": daemon.measure_after_use,
    "terminal": terminal.measure,
    "pools": pools.measure,
    "many": pools.measure_many,
    "powers": bench_powers.measure,
}
"""What can be asked for, in the table's order."""


def main() -> int:
    """Exit with 1 when a target was missed."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and less data; writes no document")
    parser.add_argument("--only", action="append", choices=list(FAMILIES), help="one family; may be repeated")
    arguments = parser.parse_args()
    before = os.getloadavg()[0]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="sandyard-bench-") as folder:
        bench = Bench(Path(folder), is_quick=arguments.quick)
        for name in arguments.only or FAMILIES:
            print(f"measuring: {name}", file=sys.stderr, flush=True)
            os.sync()  # what the last family wrote, a hundred thousand files, would be measured on its way to the disk
            rows += FAMILIES[name](bench)
    machine = [*describe(), describe_load(before)]
    print(*machine, sep="\n")
    report.show(rows)
    if not arguments.quick and not arguments.only:
        report.write(rows, machine)
    return 1 if any(getattr(row, "is_met", None) is False for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
