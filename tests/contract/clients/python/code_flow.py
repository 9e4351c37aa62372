"""`code_run` by any release of the Python SDK, in a sandbox that can plot; prints what it saw as one JSON object."""

import json
import sys
from importlib.metadata import version
from typing import Any

from daytona import Daytona

CHARTS = """
import matplotlib.pyplot as plt
print('before')
plt.plot([1, 2, 3], [4, 5, 6], label='line')
plt.title('A line')
plt.show()
plt.scatter([1, 2], [3, 4])
plt.show()
print('after')
"""


def shown(chart: Any) -> list[Any]:
    """What every release tells of a chart."""
    kind = getattr(chart.type, "value", chart.type)
    return [kind, chart.title, (chart.png or "")[:8], len(chart.elements)]


def main() -> None:
    """Use the sandbox named on the command line."""
    sandbox: Any = Daytona().get(sys.argv[1])
    saw: dict[str, Any] = {"version": version("daytona")}
    done = sandbox.process.code_run("print(6 * 7)")
    saw["code"] = [done.exit_code, done.result.strip()]
    done = sandbox.process.code_run("import sys\nprint('out')\nraise ValueError('wrong')")
    saw["error"] = [done.exit_code, done.result]
    done = sandbox.process.code_run(CHARTS)
    saw["plot"] = [done.exit_code, done.artifacts.stdout.split(), [shown(chart) for chart in done.artifacts.charts]]
    json.dump(saw, sys.stdout)


if __name__ == "__main__":
    main()
