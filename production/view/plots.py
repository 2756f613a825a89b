"""Draws what others have counted.  Imported only where matplotlib may be: the extra [plots]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

DAY = 86400.0  # seconds
WIDE = 48  # characters of a reason
FEW = 12  # reasons that have a bar of their own

Line = tuple[str, Sequence[float], Sequence[float]]  # name, seconds since 1970, values
_NOTHING = "nothing has been done yet"


def curves(
    title: str, what: str, lines: Sequence[Line], levels: Mapping[str, float] | None = None
) -> Figure:
    """Values over time.  ``levels``: what a line of that name comes to in the end, if any."""
    figure, axes = _empty(title)
    for name, moments, values in lines:
        (line,) = axes.plot(_days(moments), values, label=name)
        if name in (levels or {}):
            level = (levels or {})[name]
            axes.axhline(level, color=line.get_color(), linestyle="dashed", linewidth=1)
    _over_time(axes, what, len(lines))
    return figure


def bars(title: str, what: str, series: Sequence[Line], width: float) -> Figure:
    """Values in spans of ``width`` seconds, those of several series upon each other."""
    figure, axes = _empty(title)
    heights: dict[float, float] = {}
    for name, begins, values in series:
        bottoms = [heights.get(begin, 0.0) for begin in begins]
        axes.bar(
            _days(begins),
            values,
            width=width / DAY,
            align="edge",
            bottom=bottoms,
            label=name,
        )
        for begin, bottom, value in zip(begins, bottoms, values, strict=True):
            heights[begin] = bottom + value
    _over_time(axes, what, len(series))
    return figure


def reasons(title: str, what: str, counts: Sequence[tuple[str, int]]) -> Figure:
    """How often there was each reason, the most frequent at the top."""
    rest = counts[FEW:]
    shown = [(_short(reason), count) for reason, count in counts[:FEW]]
    if rest:
        shown.append((f"{len(rest)} other reasons", sum(count for _, count in rest)))
    figure, axes = _empty(title)
    drawn = axes.barh(range(len(shown)), [count for _, count in shown])
    axes.bar_label(drawn, padding=3)
    axes.set_yticks(range(len(shown)), [reason for reason, _ in shown])
    axes.invert_yaxis()
    axes.margins(x=0.1)
    _finish(axes, len(shown), x=what)
    return figure


def boxes(title: str, what: str, groups: Mapping[str, Sequence[float]]) -> Figure:
    """How values are spread: median, quartiles, and within 1.5 times their distance all others."""
    figure, axes = _empty(title)
    if groups:
        names = [f"{name} ({len(values)})" for name, values in groups.items()]
        axes.boxplot([*groups.values()], orientation="horizontal", showfliers=False)
        axes.set_yticks(range(1, len(names) + 1), names)
        axes.invert_yaxis()
    _finish(axes, len(groups), x=what)
    return figure


def save(figure: Figure, path: Path, form: str) -> None:
    """Write it as png or svg; the same figure gives the same bytes."""
    with mpl.rc_context({"svg.hashsalt": "production", "svg.fonttype": "none"}):
        figure.savefig(path, format=form, metadata={"Date": None} if form == "svg" else None)


# --------------------------------------------------------------------------- parts


def _empty(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(9, 5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(_plain(title))
    return figure, axes


def _days(seconds: Sequence[float]) -> list[float]:
    """Moments as matplotlib counts them: in days since 1970."""
    return [moment / DAY for moment in seconds]


def _over_time(axes: Axes, what: str, series: int) -> None:
    if series:
        with mpl.rc_context({"date.converter": "concise"}):
            axes.xaxis_date("UTC")
        axes.legend()
    axes.set_ylim(bottom=0)
    axes.grid(visible=True, alpha=0.3)
    _finish(axes, series, x="time (UTC)", y=what)


def _finish(axes: Axes, series: int, *, x: str, y: str = "") -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if not series:
        axes.text(0.5, 0.5, _NOTHING, transform=axes.transAxes, ha="center", va="center")


def _short(text: str) -> str:
    """On one line that leaves room for the picture."""
    line = " ".join(text.split()) or "no reason recorded"
    return _plain(line if len(line) <= WIDE else f"{line[: WIDE - 1]}…")


def _plain(text: str) -> str:
    """Without what matplotlib would take for a formula."""
    return text.replace("$", r"\$")
