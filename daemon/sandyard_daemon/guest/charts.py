"""Turns the figures a program shows into data: compiled by `run` after `matplotlib.pyplot` was imported.

Whatever goes wrong here costs parts of a chart, never the program. Nothing is imported of matplotlib: it is there.
"""

import atexit
import base64
import functools
import io
import json
import math
import os
import sys
import warnings
import weakref

MAX_CHART = 8 << 20
MAX_CHARTS = 32 << 20
"""Bytes: a chart that is larger loses its elements, and past the sum no further chart is kept."""


class Recorder:
    """Writes the figures a program shows to a descriptor, each once, as a line of JSON."""

    def __init__(self, pyplot, descriptor):
        self.pyplot = pyplot
        self.descriptor = descriptor
        self.boxes: "weakref.WeakKeyDictionary[object, list[object]]" = weakref.WeakKeyDictionary()
        self.seen = set()
        self.process = os.getpid()

    def show(self):
        """`pyplot.show`: all figures that are open, which are closed then, as by their windows' end."""
        for number in self.pyplot.get_fignums():
            self.record(self.pyplot.figure(number))
        self.pyplot.close("all")

    def show_rest(self):
        """At the program's end: what is still open."""
        if os.getpid() == self.process:
            try:
                self.show()
            except Exception:
                return

    def record(self, figure):
        """One figure."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                chart = chart_of(figure, self.boxes)
            if chart["png"] in self.seen:
                return
            self.seen.add(chart["png"])
            self.write(chart)
        except Exception:
            return

    def write(self, chart):
        """Append it, in one piece."""
        line = json.dumps(chart, allow_nan=False).encode() + b"\n"
        if len(line) > MAX_CHART:
            chart["elements"] = []
            line = json.dumps(chart, allow_nan=False).encode() + b"\n"
        if len(line) > MAX_CHART or os.fstat(self.descriptor).st_size + len(line) > MAX_CHARTS:
            return
        while line:
            line = line[os.write(self.descriptor, line) :]

    def watch_boxes(self, bxp):
        """`Axes.bxp` that notes the statistics it draws: the artists do not tell them."""

        @functools.wraps(bxp)
        def noting(axes, *arguments, **options):
            drawn = bxp(axes, *arguments, **options)
            try:
                stats = arguments[0] if arguments else options["bxpstats"]
                self.boxes.setdefault(axes, []).extend(dict(each) for each in stats)
            except Exception:
                return drawn
            return drawn

        return noting

    def watch_figure_show(self, figure_show):
        """`Figure.show`: that figure. A figure that `pyplot` does not know is left to matplotlib."""

        @functools.wraps(figure_show)
        def noting(figure, *arguments, **options):
            number = getattr(figure, "number", None)
            if number is None or not self.pyplot.fignum_exists(number):
                return figure_show(figure, *arguments, **options)
            self.record(figure)
            return self.pyplot.close(figure)

        return noting


def install(pyplot, descriptor, shows_rest):
    """Watch for figures; with `shows_rest` those open at the end, too: the program cannot name `show` itself."""
    recorder = Recorder(pyplot, descriptor)

    @functools.wraps(pyplot.show)
    def show(*arguments, **options):
        recorder.show()

    axes, figure = sys.modules["matplotlib.axes"].Axes, sys.modules["matplotlib.figure"].Figure
    pyplot.show = show
    axes.bxp = recorder.watch_boxes(axes.bxp)
    figure.show = recorder.watch_figure_show(figure.show)
    if shows_rest:
        atexit.register(recorder.show_rest)


def chart_of(figure, boxes):
    """The figure's picture and what is drawn in it."""
    png = picture(figure)  # first: drawing gives ticks their labels
    shown = [axes for axes in figure.axes if axes.get_visible() and axes.get_label() != "<colorbar>"]
    title = figure._suptitle.get_text() if getattr(figure, "_suptitle", None) is not None else ""
    if len(shown) == 1:
        chart = safely({}, panel, shown[0], boxes)
        chart.setdefault("title", title)
    else:
        chart = {"type": "composite_chart" if shown else "unknown", "title": title}
        chart["elements"] = [safely({"type": "unknown"}, composite_part, each, boxes) for each in shown]
    chart["png"] = png
    chart.setdefault("type", "unknown")
    chart.setdefault("elements", [])
    return {key: value for key, value in chart.items() if value != ""}


def composite_part(axes, boxes):
    """One of several panels of a figure, with the part of the picture that is its own."""
    chart = panel(axes, boxes)
    box = safely(None, axes.get_tightbbox, axes.figure.canvas.get_renderer())
    if box is not None:
        chart["png"] = picture(axes.figure, box.transformed(axes.figure.dpi_scale_trans.inverted()))
    return {key: value for key, value in chart.items() if value != ""}


def picture(figure, box=None):
    """A PNG, base64."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches=box)
    return base64.b64encode(buffer.getvalue()).decode()


def panel(axes, boxes):
    """What one pair of axes shows."""
    x, y = Axis(axes, axes.xaxis), Axis(axes, axes.yaxis)
    chart = {"title": axes.get_title(), "x_label": axes.get_xlabel(), "y_label": axes.get_ylabel()}
    chart["type"], chart["elements"] = "unknown", []
    for kind, find in (
        ("pie", pie),
        ("box_and_whisker", functools.partial(box_and_whisker, stats=boxes.get(axes, []))),
        ("bar", bars),
        ("", points),
    ):
        elements = safely([], find, axes, x, y)
        if elements:
            chart["type"], chart["elements"] = kind or points_type(axes), elements
            break
    if chart["type"] != "pie":
        for name, axis in (("x", x), ("y", y)):
            chart.update(safely({}, axis.describe, name))
    return chart


class Axis:
    """One axis: its numbers as clients take them."""

    def __init__(self, axes, axis):
        self.axes = axes
        self.axis = axis
        converter = getattr(axis, "get_converter", lambda: getattr(axis, "converter", None))()
        self.converter = type(converter).__name__ if converter is not None else ""
        self.is_period = "Period" in self.converter or "TimeSeries" in self.converter
        formatter = type(axis.get_major_formatter()).__module__
        self.is_date = self.is_period or "Date" in self.converter or formatter == "matplotlib.dates"

    def number(self, value):
        """Finite, datetimes as seconds since 1970; `None` for what is no number."""
        try:
            value = float(value)
            if self.is_date:
                value = self.seconds(value)
        except (TypeError, ValueError, OverflowError):
            return None
        return value if math.isfinite(value) else None

    def seconds(self, value):
        """A date as this axis counts it."""
        if self.is_period:
            frequency = getattr(self.axes, "freq", None)
            if frequency is not None:
                return sys.modules["pandas"].Period(ordinal=int(value), freq=frequency).to_timestamp().timestamp()
        return round(sys.modules["matplotlib.dates"].num2date(value).timestamp(), 3)

    def describe(self, name):
        """Ticks and scale."""
        scale = "datetime" if self.is_date else "categorical" if "Category" in self.converter else self.axis.get_scale()
        pairs = list(zip(self.axis.get_majorticklocs(), self.labels()))
        ticks = [(self.number(place), text) for place, text in pairs]
        return {
            name + "_scale": scale,
            name + "_ticks": [place for place, _ in ticks if place is not None],
            name + "_tick_labels": [text for place, text in ticks if place is not None],
        }

    def labels(self):
        """The ticks' texts."""
        return [text.get_text() for text in self.axis.get_majorticklabels()]

    def name_at(self, place):
        """The label of the tick at a place, or the number."""
        for tick, text in zip(self.axis.get_majorticklocs(), self.labels()):
            if text and abs(float(tick) - float(place)) < 1e-9:
                return text
        return number_text(place)


def pie(axes, x, y):
    """Slices."""
    wedges = [each for each in axes.patches if type(each).__name__ == "Wedge"]
    texts = [each.get_text() for each in axes.texts]
    found = []
    for index, wedge in enumerate(wedges):
        label = plain_label(wedge)
        if not label and len(texts) % len(wedges) == 0 and texts:
            label = texts[index * (len(texts) // len(wedges)) if "%" in texts[-1] and texts[0] else index]
        found.append({"label": label, "angle": abs(wedge.theta2 - wedge.theta1), "radius": float(wedge.r)})
    return [each for each in found if math.isfinite(each["angle"]) and math.isfinite(each["radius"])]


def box_and_whisker(axes, x, y, stats):
    """Boxes, as they were computed."""
    found = []
    names = [text for axis in (x, y) for text in axis.labels()]
    for index, each in enumerate(stats):
        label = each.get("label")
        if label is None or str(label) == "":
            label = names[index] if index < len(names) else str(index + 1)
        box: "dict[str, object]" = {"label": str(label)}
        for key, source in (
            ("min", "whislo"),
            ("first_quartile", "q1"),
            ("median", "med"),
            ("third_quartile", "q3"),
            ("max", "whishi"),
        ):
            value = float(each[source])
            if math.isfinite(value):
                box[key] = value
        outliers = [float(value) for value in each.get("fliers", ())]
        box["outliers"] = [value for value in outliers if math.isfinite(value)]
        found.append(box)
    return found


def bars(axes, x, y):
    """Bars, a group for each call that drew some."""
    found = []
    for container in axes.containers:
        if type(container).__name__ != "BarContainer":
            continue
        is_vertical = getattr(container, "orientation", "vertical") != "horizontal"
        group = plain_label(container)
        for patch in container.patches:
            place = patch.get_x() + patch.get_width() / 2 if is_vertical else patch.get_y() + patch.get_height() / 2
            value = patch.get_height() if is_vertical else patch.get_width()
            bar = {"label": (x if is_vertical else y).name_at(place), "value": number_text(value)}
            if group:
                bar["group"] = group
            found.append(bar)
    return found


def points(axes, x, y):
    """Lines and clouds of points."""
    found = []
    for line in data_lines(axes):
        found.append((plain_label(line), line.get_xdata(orig=False), line.get_ydata(orig=False)))
    for cloud in clouds(axes):
        offsets = cloud.get_offsets()
        found.append((plain_label(cloud), [each[0] for each in offsets], [each[1] for each in offsets]))
    elements = []
    for label, xs, ys in found:
        pairs = [[x.number(first), y.number(second)] for first, second in zip(xs, ys)]
        elements.append({"label": label, "points": [pair for pair in pairs if None not in pair]})
    return [each for each in elements if each["points"]]


def points_type(axes):
    """`line` where something is joined."""
    joined = [line for line in data_lines(axes) if str(line.get_linestyle()) not in ("None", "", " ")]
    return "line" if joined and not clouds(axes) else "scatter"


def data_lines(axes):
    """Lines through data: not those that span the axes."""
    return [line for line in axes.lines if all(line.get_transform().contains_branch_seperately(axes.transData))]


def clouds(axes):
    """What `scatter` draws."""
    return [each for each in axes.collections if type(each).__name__ == "PathCollection" and len(each.get_offsets())]


def plain_label(artist):
    """The label a user gave."""
    label = str(artist.get_label() or "")
    return "" if label.startswith("_") else label


def number_text(value):
    """`3` for 3.0."""
    value = float(value)
    return str(int(value)) if math.isfinite(value) and value == int(value) else repr(round(value, 12))


def safely(otherwise, function, *arguments):
    """What the function gives, or `otherwise` where matplotlib is not as we know it."""
    try:
        return function(*arguments)
    except Exception:
        return otherwise
