"""Pictures as SVG text: a few elements, two scales, axes. Equal input gives equal bytes.

Colours and strokes are classes of `chart.css`, so that one picture fits a light and a dark page.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape

from privbench_leaderboard.text import plain

TEXT = 11.0
"""Font size of all text in a picture."""

LONGEST = 2000
"""Longer text is cut."""


def element(name: str, *inside: str, text: str = "", **attributes: str | float) -> str:
    """An element; text and attributes are escaped, `inside` is SVG already.

    In names of attributes a trailing underscore is dropped, others become hyphens: `class_`.

    >>> element("text", text="a<b", class_="tick", x=1.26)
    '<text class="tick" x="1.3">a&lt;b</text>'
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_value(value))}"'
        for key, value in attributes.items()
    )
    content = "".join(inside) + escape(plain(text, LONGEST))
    return f"<{name}{written}>{content}</{name}>" if content else f"<{name}{written}/>"


def picture(width: float, height: float, name: str, title: str, about: str, *inside: str) -> str:
    """A whole picture with its text alternative; `name` is unique on its page."""
    return element(
        "svg",
        element("title", text=title, id=f"{name}-title"),
        element("desc", text=about, id=f"{name}-about"),
        *inside,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {_value(width)} {_value(height)}",
        role="img",
        aria_labelledby=f"{name}-title {name}-about",
        class_="chart",
    )


@dataclass(frozen=True, slots=True)
class Scale:
    """Values to places along an axis.

    Attributes:
        low: value at `start`.
        high: value at `stop`.
        start: place, in units of the picture.
        stop: may be smaller than `start`: up is less.
        log: logarithmic; `low` is above 0.
    """

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Place of a value; beyond the ends, the end."""
        return self.places((value,))[0]

    def places(self, values: Iterable[float]) -> list[float]:
        """The same for many."""
        low, high = self._bent((self.low, self.high))
        step = (self.stop - self.start) / (high - low) if high > low else 0.0
        return [self.start + (min(max(at, low), high) - low) * step for at in self._bent(values)]

    def _bent(self, values: Iterable[float]) -> list[float]:
        if not self.log:
            return list(values)
        return [math.log10(max(value, self.low)) for value in values]


@dataclass(frozen=True, slots=True)
class Frame:
    """Where a chart draws, and its two scales."""

    width: float
    height: float
    x: Scale
    y: Scale


def frame(
    width: float,
    height: float,
    x: tuple[float, float],
    y: tuple[float, float] = (0.0, 1.0),
    log: bool = False,
) -> Frame:
    """A frame with room for the names of axes and ticks."""
    left, right, top, bottom = 34.0, 16.0, 36.0, 38.0
    return Frame(
        width,
        height,
        Scale(*x, left, width - right, log),
        Scale(*y, height - bottom, top),
    )


def axes(
    box: Frame,
    x_name: str,
    y_name: str,
    x_ticks: Sequence[float],
    y_ticks: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0),
    written: Callable[[float], str] = lambda value: f"{value:g}",
) -> str:
    """Grid lines, ticks and names. The name of y stands above its axis, to be read upright."""
    x, y = box.x, box.y
    parts = []
    for tick in y_ticks:
        at = y(tick)
        parts += [
            element("line", class_="grid", x1=x.start, x2=x.stop, y1=at, y2=at),
            element("text", text=f"{tick:g}", class_="tick", x=x.start - 6, y=at + 4,
                    text_anchor="end"),
        ]  # fmt: skip
    for tick in x_ticks:
        at = x(tick)
        parts += [
            element("line", class_="grid", x1=at, x2=at, y1=y.start, y2=y.stop),
            element("text", text=written(tick), class_="tick", x=at, y=y.start + 15,
                    text_anchor="middle"),
        ]  # fmt: skip
    middle = (x.start + x.stop) / 2
    parts += [
        element("text", text=y_name, class_="axis", x=4, y=12),
        element("text", text=x_name, class_="axis", x=middle, y=box.height - 5,
                text_anchor="middle"),
    ]  # fmt: skip
    return "".join(parts)


def path(points: Iterable[tuple[float, float]], closed: bool = False) -> str:
    """The `d` of straight lines through places."""
    line = "L".join([f"{x:.1f} {y:.1f}" for x, y in points])
    return f"M{line}{'Z' if closed else ''}" if line else ""


def powers(low: float, high: float) -> tuple[float, ...]:
    """Powers of ten from low to high, both included where they are some."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    return tuple(10.0**power for power in range(first, last + 1))


def width_of(text: str) -> float:
    """About how wide a text is in the fonts of most systems."""
    return 0.56 * TEXT * len(text)


def _value(value: str | float) -> str:
    if isinstance(value, str):
        return value
    return f"{round(value, 1) + 0.0:.1f}".removesuffix(".0")  # + 0.0: no minus zero
