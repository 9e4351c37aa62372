"""Charts of `code-run`: what matplotlib draws becomes data that the SDK's strict models take, and never an outcome."""

import ast
import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sandyard_daemon import guest
from tests.daemon.conftest import Daemon, Starter
from tests.daemon.test_code_run import run

pytest.importorskip("seaborn", reason="the plotting libraries are a development dependency")
client = pytest.importorskip("daytona_toolbox_api_client", reason="the newest Python SDK is a development dependency")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What matplotlib keeps of the fonts: making it takes long, and beyond five seconds it says so in the output."""
    made = str(tmp_path_factory.mktemp("matplotlib"))
    importing = [sys.executable, "-c", "import matplotlib.pyplot"]
    subprocess.run(importing, env={**os.environ, "MPLCONFIGDIR": made}, check=True)
    return made


@pytest.fixture
def daemon(start_daemon: Starter, cache: str) -> Daemon:
    """A daemon whose python3 has the plotting libraries."""
    return start_daemon(PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}", MPLCONFIGDIR=cache)


PLOT = "import matplotlib.pyplot as plt\n"


def charts(daemon: Daemon, code: str) -> list[dict[str, Any]]:
    """The charts of a program that must end well, each a picture and fit for the SDK."""
    body = run(daemon, code)
    assert body["exitCode"] == 0, body
    found: list[dict[str, Any]] = body.get("artifacts", {}).get("charts", [])
    for chart in found:
        assert base64.b64decode(chart["png"]).startswith(b"\x89PNG")
        assert "null" not in json.dumps(chart)
    parsed = client.CodeRunResponse.from_dict(body)
    assert [chart.type for chart in (parsed.artifacts.charts if parsed.artifacts else [])] == [c["type"] for c in found]
    return found


def one(daemon: Daemon, code: str) -> dict[str, Any]:
    """The only chart."""
    found = charts(daemon, PLOT + code + "\nplt.show()\n")
    assert len(found) == 1
    return found[0]


def test_a_line_has_its_points_labels_ticks_and_scales(daemon: Daemon) -> None:
    code = "plt.plot([1, 2, 4], [10, 100, 1000], label='growth'); plt.yscale('log')\n"
    chart = one(daemon, code + "plt.title('T'); plt.xlabel('X'); plt.ylabel('Y')")
    assert (chart["type"], chart["title"], chart["x_label"], chart["y_label"]) == ("line", "T", "X", "Y")
    assert chart["elements"] == [{"label": "growth", "points": [[1, 10], [2, 100], [4, 1000]]}]
    assert (chart["x_scale"], chart["y_scale"]) == ("linear", "log")
    assert len(chart["x_ticks"]) == len(chart["x_tick_labels"]) > 2


def test_scattered_points_are_a_scatter_chart(daemon: Daemon) -> None:
    chart = one(daemon, "plt.scatter([1, 2], [3, 4], label='s'); plt.plot([5], [6], 'o', label='p')")
    assert chart["type"] == "scatter"
    assert chart["elements"] == [{"label": "p", "points": [[5, 6]]}, {"label": "s", "points": [[1, 3], [2, 4]]}]


def test_d22_a_bars_value_is_a_string_and_its_label_the_category(daemon: Daemon) -> None:
    chart = one(daemon, "plt.bar(['a', 'b'], [3, 4.5], label='one'); plt.bar(['a', 'b'], [1, 2], label='two')")
    assert chart["type"] == "bar"
    assert chart["x_scale"] == "categorical"
    assert chart["elements"] == [
        {"label": "a", "group": "one", "value": "3"},
        {"label": "b", "group": "one", "value": "4.5"},
        {"label": "a", "group": "two", "value": "1"},
        {"label": "b", "group": "two", "value": "2"},
    ]


def test_d22_horizontal_bars_are_read_along_their_axis(daemon: Daemon) -> None:
    chart = one(daemon, "plt.barh(['a', 'b'], [3, 4])")
    assert chart["elements"] == [{"label": "a", "value": "3"}, {"label": "b", "value": "4"}]


@pytest.mark.parametrize("more", ["", ", autopct='%1.0f%%'", ", labeldistance=None"])
def test_d22_slices_of_a_pie_keep_their_labels(daemon: Daemon, more: str) -> None:
    chart = one(daemon, f"plt.pie([1, 2, 3], labels=['p', 'q', 'r']{more})")
    assert chart["type"] == "pie"
    assert [each["label"] for each in chart["elements"]] == ["p", "q", "r"]
    assert [each["angle"] for each in chart["elements"]] == pytest.approx([60, 120, 180], abs=0.001)
    assert {each["radius"] for each in chart["elements"]} == {1}


@pytest.mark.parametrize("more", ["", ", patch_artist=True", ", showfliers=False"])
def test_d22_boxes_are_no_lines(daemon: Daemon, more: str) -> None:
    chart = one(daemon, f"plt.boxplot([[1, 2, 3, 10], [4, 5, 6]], tick_labels=['one', 'two']{more})")
    assert chart["type"] == "box_and_whisker"
    first, second = chart["elements"]
    quartiles = {"first_quartile": 1.75, "median": 2.5, "third_quartile": 4.75}
    assert first == {"label": "one", "min": 1, "max": 4.75, "outliers": [10], **quartiles}
    assert (second["label"], second["outliers"]) == ("two", [])


def test_d22_dates_are_seconds_with_readable_ticks(daemon: Daemon) -> None:
    code = "import datetime as d\nplt.plot([d.datetime(2024, 1, 1), d.datetime(2024, 1, 2)], [1, 2])"
    chart = one(daemon, code)
    assert chart["x_scale"] == "datetime"
    assert chart["elements"][0]["points"] == [[1704067200, 1], [1704153600, 2]]
    assert chart["x_ticks"][0] == pytest.approx(1704067200, abs=86400)
    assert any("01" in label for label in chart["x_tick_labels"])


def test_d22_what_is_no_number_costs_its_point_only(daemon: Daemon) -> None:
    chart = one(daemon, "plt.plot([1, 2, 3], [float('nan'), 5, float('inf')])")
    assert chart["elements"] == [{"label": "", "points": [[2, 5]]}]


def test_d22_panels_of_one_figure_keep_their_elements_and_pictures(daemon: Daemon) -> None:
    code = "f, a = plt.subplots(1, 2); f.suptitle('Both'); a[0].plot([1, 2]); a[0].set_title('L'); a[1].bar(['q'], [3])"
    chart = one(daemon, code)
    assert (chart["type"], chart["title"]) == ("composite_chart", "Both")
    left, right = chart["elements"]
    assert (left["type"], left["title"], right["type"]) == ("line", "L", "bar")
    assert left["elements"][0]["points"] == [[0, 1], [1, 2]]
    assert right["elements"] == [{"label": "q", "value": "3"}]
    assert base64.b64decode(left["png"]).startswith(b"\x89PNG")


def test_an_image_is_a_chart_of_unknown_type(daemon: Daemon) -> None:
    chart = one(daemon, "plt.imshow([[1, 2], [3, 4]]); plt.colorbar()")
    assert (chart["type"], chart["elements"]) == ("unknown", [])


def test_d22_pandas_and_seaborn_are_seen_though_the_program_never_names_their_library(daemon: Daemon) -> None:
    frame = "import pandas as pd\ndf = pd.DataFrame({'g': ['a', 'b'], 'v': [1, 2]})\n"
    (pandas,) = charts(daemon, frame + "df.plot.bar(x='g', y='v')")
    assert pandas["elements"] == [
        {"label": "a", "group": "v", "value": "1"},
        {"label": "b", "group": "v", "value": "2"},
    ]
    (seaborn,) = charts(daemon, frame + "import seaborn\nseaborn.lineplot(df, x='v', y='v').figure.show()")
    assert seaborn["type"] == "line"
    dates = "df = pd.DataFrame({'v': [1, 2, 4]}, index=pd.date_range('2024-01-01', periods=3))\ndf.plot()"
    (series,) = charts(daemon, "import pandas as pd\n" + dates)
    assert series["elements"][0]["points"] == [[1704067200, 1], [1704153600, 2], [1704240000, 4]]


def test_only_what_is_shown_is_a_chart_each_figure_once(daemon: Daemon) -> None:
    code = PLOT + "plt.plot([1, 2]); plt.show(); plt.show(); plt.plot([3, 1]); plt.show(); plt.plot([9])"
    assert len(charts(daemon, code)) == 2
    assert charts(daemon, "print('no picture')") == []


def test_the_output_holds_nothing_of_the_charts_and_the_exit_code_stays(daemon: Daemon) -> None:
    code = PLOT + "print('before'); plt.plot([1]); plt.show(); print('after'); raise SystemExit(7)"
    body = run(daemon, code)
    assert (body["exitCode"], body["result"]) == (7, "before\nafter\n")
    assert len(body["artifacts"]["charts"]) == 1


@pytest.mark.parametrize(
    "trouble",
    [
        "import os; os.closerange(3, 200); plt.plot([1]); plt.show()",
        "plt.savefig = None; plt.Figure.savefig = None; plt.plot([1]); plt.show()",
        "import warnings; warnings.simplefilter('error'); plt.title('\\u4e2d'); plt.show()",
        "plt.gca().get_title = None; plt.plot([1]); plt.show()",
        "import json; json.dumps = None; plt.plot([1]); plt.show()",
        "import os; os.write = None; plt.plot([1]); plt.show()",
    ],
)
def test_d22_extraction_never_changes_what_a_program_does(daemon: Daemon, trouble: str) -> None:
    body = run(daemon, PLOT + trouble + "\nprint('still here')")
    assert (body["exitCode"], body["result"]) == (0, "still here\n")


def test_what_a_program_writes_among_the_charts_breaks_no_answer(daemon: Daemon) -> None:
    forged = [
        b"not json\n",
        b'{"type": 5}\n',
        b'{"type": "line", "x_ticks": [NaN]}\n',
        b'{"type": "bar", "title": "t"}\n',
    ]
    code = (
        f"import os\nforged = {forged!r}\n"
        "for name in sorted(os.listdir('/proc/self/fd'), key=int)[3:]:\n"
        "    place = '/proc/self/fd/' + name\n"
        "    if os.path.lexists(place) and '(deleted)' in os.readlink(place):\n"
        "        [os.write(int(name), line) for line in forged]\n"
    )
    body = run(daemon, code)
    assert body == {"exitCode": 0, "result": "", "artifacts": {"charts": [{"type": "bar", "title": "t"}]}}


def test_our_programs_are_carried_as_text_an_old_python_can_read() -> None:
    for name in ("run", "charts", "worker"):
        ast.parse(guest.source(name), feature_version=(3, 6))
    assert (Path(guest.__file__).parent / "argv.cjs").is_file()
