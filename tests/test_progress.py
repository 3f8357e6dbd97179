"""Progress as lines and as bars."""

from __future__ import annotations

import io
import re

import pytest

from privbench.progress import PlainLines, RichBars, Silent


def test_plain_lines_tell_rate_and_time_left() -> None:
    """A log gets a line now and then with done, total, rate and time left, and one at the end."""
    now = [0.0]
    stream = io.StringIO()
    lines = PlainLines(stream, every=10, clock=lambda: now[0])
    with lines.task("probes", 100) as task:
        for _ in range(10):
            now[0] += 4
            task.advance(10)
    assert stream.getvalue().splitlines() == [
        "probes: 30/100 images, 2.5/s, 28 s left",
        "probes: 60/100 images, 2.5/s, 16 s left",
        "probes: 90/100 images, 2.5/s, 4 s left",
        "probes: 100 images in 40.0 s",
    ]


def test_bars_show_rate_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """Bars go to stderr, so that results on stdout can be piped."""
    with RichBars() as bars, bars.task("probes", 3) as task:
        task.advance(3)
    out, err = capsys.readouterr()
    assert out == ""
    assert re.search(r"probes.*3/3.*images/s", err)


def test_silent_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    """The library prints nothing unless it is asked to."""
    silent = Silent()
    silent.note("x")
    with silent.task("probes", 1) as task:
        task.advance()
    assert capsys.readouterr() == ("", "")
