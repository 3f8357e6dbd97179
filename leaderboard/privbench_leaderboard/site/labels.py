"""Names beside points: where they hide neither a point nor each other, as far as it can be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot

from privbench_leaderboard.site.svg import TEXT, Frame, element, width_of

Place = tuple[float, float]

_OFFSETS = tuple(
    (dx * far, dy * far)
    for far in (1.0, 1.7, 2.6, 3.6)
    for dx, dy in ((8, 4), (-8, 4), (7, -5), (-7, -5), (7, 11), (-7, 11), (0, -9), (0, 17))
)
_FAR = 15.0
"""A name further from its point than this is tied to it by a line."""


@dataclass(frozen=True, slots=True)
class Area:
    """A box on the picture."""

    left: float
    top: float
    width: float
    height: float

    def shared(self, other: Area) -> float:
        """Area that both cover."""
        wide = min(self.left + self.width, other.left + other.width) - max(self.left, other.left)
        high = min(self.top + self.height, other.top + other.height) - max(self.top, other.top)
        return max(wide, 0.0) * max(high, 0.0)

    def nearest(self, place: Place) -> Place:
        """Its place that is nearest to another."""
        return (
            min(max(place[0], self.left), self.left + self.width),
            min(max(place[1], self.top), self.top + self.height),
        )

    def distance(self, place: Place) -> float:
        """How far away a place is."""
        x, y = self.nearest(place)
        return hypot(x - place[0], y - place[1])


@dataclass(frozen=True, slots=True)
class _Try:
    cost: float
    area: Area
    x: float
    anchor: str


def names(box: Frame, points: Sequence[Place], named: Sequence[tuple[str, Place]]) -> str:
    """The names as text elements; the first find the best places.

    Args:
        points: values of all points on both axes.
        named: names and the values of what they belong to.
    """
    places = [(box.x(x), box.y(y)) for x, y in points]
    taken = [Area(x - 5, y - 5, 10, 10) for x, y in places]
    taken.append(Area(box.x.stop - 40, box.y.start - 18, 40, 16))  # the word "chance"
    lines, texts = [], []
    for name, value in named:
        at = (box.x(value[0]), box.y(value[1]))
        best = _best(name, at, [p for p in places if p != at], taken, box)
        taken.append(best.area)
        if best.area.distance(at) > _FAR:
            x, y = best.area.nearest(at)
            lines.append(element("line", class_="leader", x1=at[0], y1=at[1], x2=x, y2=y))
        texts.append(
            element("text", text=name, class_="label", x=best.x, y=best.area.top + TEXT - 2,
                    text_anchor=best.anchor)
        )  # fmt: skip
    return "".join(lines + texts)


def _best(name: str, at: Place, others: Sequence[Place], taken: Sequence[Area], box: Frame) -> _Try:
    inside = Area(2, 17, box.width - 4, box.y.start - 17)
    wide = width_of(name)
    best: _Try | None = None
    for dx, dy in _OFFSETS:
        anchor = "middle" if not dx else "start" if dx > 0 else "end"
        left = at[0] + dx - {"start": 0.0, "middle": wide / 2, "end": wide}[anchor]
        area = Area(left, at[1] + dy - TEXT + 2, wide, TEXT)
        cost = sum(area.shared(other) for other in taken)
        cost += 4 * (wide * TEXT - area.shared(inside))
        near = area.distance(at) + 2  # nearer to another point, it would be taken for that one's
        cost += 200 * sum(area.distance(other) < near for other in others)
        if best is None or cost < best.cost - 1:
            best = _Try(cost, area, at[0] + dx, anchor)
        if cost < 1:
            break
    assert best is not None  # noqa: S101 - there are offsets
    return best
