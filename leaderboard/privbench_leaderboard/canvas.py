"""Empty figures, and how they become files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from privbench_leaderboard.errors import LeaderboardError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, inches, that needs no screen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, out: Path) -> None:
    """Write a PNG that has the same bytes every time, with a palette: a third of the size.

    Raises:
        LeaderboardError: the file cannot be written.
    """
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", metadata={"Software": None})
    try:
        Image.open(drawn).convert("RGB").quantize(256).save(out, "PNG", optimize=True)
    except OSError as error:
        raise LeaderboardError(f"Cannot write {out}: {error}") from error
