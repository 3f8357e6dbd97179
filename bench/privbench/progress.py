"""Progress as an interface: the harness reports, the caller decides how it looks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TextIO


class Task(Protocol):
    """One piece of long work."""

    def advance(self, n: int = 1) -> None:
        """`n` more units are done."""
        ...


class Reporter(Protocol):
    """Where progress goes."""

    def task(self, label: str, total: int, unit: str = "images") -> AbstractContextManager[Task]:
        """Start a task; leave the context to end it."""
        ...

    def note(self, text: str) -> None:
        """One line of information."""
        ...


class _NoTask:
    def advance(self, n: int = 1) -> None:
        """Do nothing."""


class Silent:
    """Reports nothing."""

    @contextmanager
    def task(self, label: str, total: int, unit: str = "images") -> Iterator[Task]:
        """A task nobody watches."""
        yield _NoTask()

    def note(self, text: str) -> None:
        """Drop the line."""


class Prefixed:
    """Says whose work it is: an attack may be made of another that names itself."""

    def __init__(self, reporter: Reporter, owner: str) -> None:
        self._reporter, self._owner = reporter, owner

    def _named(self, text: str) -> str:
        return text if text.startswith(self._owner) else f"{self._owner}: {text}"

    def task(self, label: str, total: int, unit: str = "images") -> AbstractContextManager[Task]:
        """The same task under the owner's name."""
        return self._reporter.task(self._named(label), total, unit)

    def note(self, text: str) -> None:
        """The same line under the owner's name."""
        self._reporter.note(self._named(text))


class PlainLines:
    """A line now and then, for logs: label, done/total, rate, time left."""

    def __init__(
        self, stream: TextIO, every: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream, self._every, self._clock = stream, every, clock

    @contextmanager
    def task(self, label: str, total: int, unit: str = "images") -> Iterator[Task]:
        """Print at most one line per `every` seconds, and one at the end."""
        plain = _PlainTask(self, label, total, unit)
        yield plain
        plain.finish()

    def note(self, text: str) -> None:
        """Print the line."""
        print(text, file=self._stream, flush=True)


class _PlainTask:
    def __init__(self, out: PlainLines, label: str, total: int, unit: str) -> None:
        self._out, self._label, self._total, self._unit = out, label, total, unit
        self._done, self._start = 0, out._clock()
        self._last = self._start

    def advance(self, n: int = 1) -> None:
        """Count, and print if it is time to."""
        self._done += n
        if self._out._clock() - self._last >= self._out._every and self._done < self._total:
            self._last = self._out._clock()
            rate = self._done / (self._last - self._start)
            left = (self._total - self._done) / rate
            self._out.note(
                f"{self._label}: {self._done}/{self._total} {self._unit}, "
                f"{rate:.1f}/s, {left:.0f} s left"
            )

    def finish(self) -> None:
        """Print the closing line."""
        seconds = self._out._clock() - self._start
        self._out.note(f"{self._label}: {self._done} {self._unit} in {seconds:.1f} s")


class RichBars:
    """Live bars with rate and time left, for a terminal."""

    def __init__(self) -> None:
        from rich import progress as bars
        from rich.console import Console

        self._bars = bars.Progress(
            bars.TextColumn("{task.description:<38}"),
            bars.BarColumn(),
            bars.MofNCompleteColumn(),
            bars.TextColumn("{task.fields[rate]}"),
            bars.TimeRemainingColumn(),
            console=Console(stderr=True),
        )

    def __enter__(self) -> RichBars:
        self._bars.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._bars.stop()

    @contextmanager
    def task(self, label: str, total: int, unit: str = "images") -> Iterator[Task]:
        """One bar."""
        row = self._bars.add_task(label, total=total, rate="")
        bars, start = self._bars, time.monotonic()

        class _Bar:
            done = 0

            def advance(self, n: int = 1) -> None:
                self.done += n
                rate = self.done / max(time.monotonic() - start, 1e-9)
                bars.update(row, advance=n, rate=f"{rate:.1f} {unit}/s")

        yield _Bar()

    def note(self, text: str) -> None:
        """Print above the bars."""
        self._bars.console.print(text, markup=False, highlight=False)
