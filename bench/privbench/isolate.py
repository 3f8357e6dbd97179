"""Cells in a process of their own: what a plugin does to its process costs its own cell only.

One worker process runs cells one after another, so that they share what they can. When it dies,
takes too long or asks for too much, its cell has failed and the next one meets a new worker. What
was finished is in the store; `privbench.worker` is the far side.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, Final

from privbench import errors
from privbench.errors import ConfigError, PluginError, PrivbenchError
from privbench.progress import Reporter, Task

AVAILABLE: Final = hasattr(os, "fork")
"""Whether this system can isolate: Linux and macOS can."""

START: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from privbench.worker import main; main()"
)
GRACE: Final = 5.0
"""Seconds that a worker without work may take to end."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A cell, or one metric of it, that could not be finished."""

    label: str
    error: PrivbenchError


@dataclass(frozen=True, slots=True)
class Isolation:
    """Run each cell in a worker process, within limits.

    Attributes:
        timeout: seconds that one cell may take; None: for ever.
        memory: GiB that its process, and each child of it, may hold beyond what the program
            itself does; None: as much as there is. Linux only.
    """

    timeout: float | None = None
    memory: float | None = None

    def __post_init__(self) -> None:
        if not AVAILABLE:
            raise ConfigError("Cells can be isolated on Linux and macOS only.")
        for name, value in (("timeout", self.timeout), ("memory", self.memory)):
            if value is not None and not 0 < value < float("inf"):
                raise ConfigError(f"{name} must be more than 0; got {value:g}.")
        if self.memory is not None and sys.platform != "linux":
            raise ConfigError("memory can be limited on Linux only.")


def refuse_own_registry(registry: object, isolation: Isolation | None) -> None:
    """Make sure that a worker finds the plugins that are asked for.

    Raises:
        ConfigError: they are not the installed ones.
    """
    if registry is not None and isolation is not None:
        raise ConfigError(
            "A worker process knows installed plugins only. Leave out `registry`, or `isolate`."
        )


def isolated(
    opener: str, given: Mapping[str, Any], isolation: Isolation | None, reporter: Reporter
) -> AbstractContextManager[Worker | None]:
    """A `Worker`, or None where cells run in this process."""
    return nullcontext() if isolation is None else Worker(opener, given, isolation, reporter)


class Worker:
    """Runs what it is told in another process; starts one when needed, and anew after a death.

    Leave its context to end the process.
    """

    def __init__(
        self, opener: str, given: Mapping[str, Any], isolation: Isolation, reporter: Reporter
    ) -> None:
        """Start nothing yet.

        Args:
            opener: `module:function` of a `privbench.worker.Open`.
            given: what it is called with; only what JSON can hold.
            isolation: limits.
            reporter: hears all that the worker reports.
        """
        self._job = {"open": opener, "given": given, "memory": isolation.memory}
        self._isolation, self._reporter = isolation, reporter
        self._process: _Process | None = None
        self._tasks: dict[int, _Replayed] = {}

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._stop(grace=0.0 if kind else GRACE)

    def run(self, name: str) -> Any:
        """What the worker makes of a name.

        Raises:
            PrivbenchError: it raised that, or something else, or died, or took too long.
        """
        timeout = self._isolation.timeout
        for _ in range(2):  # the worker may have died of what an earlier cell left behind
            process = self._process or self._started()
            deadline = None if timeout is None else time.monotonic() + timeout
            process.order(name)
            try:
                event = self._next(process, deadline)
                if "ended" in event:
                    self._stop()
                    continue
                event = self._next(process, deadline)
            except TimeoutError:
                raise self._failed(f"exceeded --timeout {timeout:g} s{self._during()}") from None
            if "done" in event:
                self._close_tasks()
                return event["done"]
            if "failed" in event:
                self._close_tasks()
                raise self._failed(event["failed"], event["kind"], stop=event["last"])
            memory = self._isolation.memory
            raise self._failed(how_it_ended(event["ended"], self._during(), memory))
        raise PluginError("The worker process ends as soon as it has nothing to do.")

    def _started(self) -> _Process:
        """A new worker that is ready.

        Raises:
            PrivbenchError: it cannot make ready.
        """
        self._process = process = _Process(self._job)
        event = self._next(process, None)
        if "failed" in event:
            words = f"The worker process cannot start: {event['failed']}"
            raise self._failed(words, event["kind"])
        if "ended" in event:
            raise self._failed(
                f"The worker process cannot start: it {how_it_ended(event['ended'])}"
            )
        return process

    def _next(self, process: _Process, deadline: float | None) -> dict[str, Any]:
        """The next event that is not about progress; progress is replayed.

        Raises:
            TimeoutError: there was none in time.
        """
        while True:
            event = process.event(deadline)
            match event:
                case {"task": number, "label": label, "total": total, "unit": unit}:
                    self._tasks[number] = _Replayed(self._reporter, label, total, unit)
                case {"advance": number, "n": n}:
                    if number in self._tasks:  # a plugin may go on with a task that has ended
                        self._tasks[number].task.advance(n)
                case {"close": number, "whole": whole}:
                    if number in self._tasks:
                        self._tasks.pop(number).close(whole)
                case {"note": text}:
                    self._reporter.note(text)
                case _:
                    return event

    def _during(self) -> str:
        """What the worker was at."""
        labels = [replayed.label for replayed in self._tasks.values()]
        return f" during {labels[-1]}" if labels else ""

    def _failed(self, text: str, kind: str = "", *, stop: bool = True) -> PrivbenchError:
        """What happened, to be raised; the process is gone if it cannot go on."""
        if stop:
            self._stop()
        found = getattr(errors, kind, PluginError)
        ours = isinstance(found, type) and issubclass(found, PrivbenchError)
        return found(text) if ours else PluginError(text)

    def _stop(self, grace: float = 0.0) -> None:
        """End the process and everything below it."""
        process, self._process = self._process, None
        self._close_tasks()
        if process is not None:
            process.stop(grace)

    def _close_tasks(self) -> None:
        """End what was begun and not ended."""
        while self._tasks:
            self._tasks.popitem()[1].close(whole=False)


def how_it_ended(code: int, during: str = "", memory: float | None = None) -> str:
    """What an exit code says of a process that nobody asked to end.

    >>> how_it_ended(3, " during training")
    'ended its process with exit code 3 during training'
    >>> how_it_ended(-9)
    'was killed by signal 9 (SIGKILL): the system may have run out of memory'
    """
    if code >= 0:
        return f"ended its process with exit code {code}{during}"
    known = {number.value: number.name for number in signal.Signals}
    words = f"was killed by signal {-code} ({known.get(-code, 'unknown')}){during}"
    if -code == signal.SIGKILL:
        return f"{words}: the system may have run out of memory"
    if -code not in (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS):
        return words
    want = "" if memory is None else f", perhaps for want of memory under --memory {memory:g} GiB"
    return f"{words}: it crashed in native code{want}"


class _Replayed:
    """A task of the worker, shown here."""

    def __init__(self, reporter: Reporter, label: str, total: int, unit: str) -> None:
        self.label = label
        self._context = reporter.task(label, total, unit)
        self.task: Task = self._context.__enter__()

    def close(self, whole: bool) -> None:
        """End it as it ended there."""
        if whole:
            self._context.__exit__(None, None, None)
            return
        error = PluginError(f"{self.label} was not finished.")
        with suppress(PluginError):
            self._context.__exit__(PluginError, error, None)


class _Process:
    """A warden with its worker, and the pipes to and from them."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        self._events, theirs = os.pipe()
        life, self._life = os.pipe()
        try:
            self._popen = subprocess.Popen(  # noqa: S603 - this very program
                [sys.executable, "-c", START, json.dumps(sys.path), str(theirs), str(life)],
                stdin=subprocess.PIPE,
                stdout=2,  # what a plugin prints is no result
                pass_fds=(theirs, life),
                start_new_session=True,  # Ctrl-C is for this process, which then ends that one
            )
        except OSError as error:
            os.close(self._events)
            os.close(self._life)
            raise PrivbenchError(f"Cannot start a worker process: {error}") from error
        finally:
            os.close(theirs)
            os.close(life)
        self._read = b""
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._events, selectors.EVENT_READ)
        self.order(job)

    def order(self, what: Any) -> None:
        """Write a line; one that has ended reads it no more."""
        if self._popen.stdin is not None:
            with suppress(BrokenPipeError):
                self._popen.stdin.write(f"{json.dumps(what)}\n".encode())
                self._popen.stdin.flush()

    def event(self, deadline: float | None) -> dict[str, Any]:
        """The next event; after the last one, how the process ended.

        Raises:
            TimeoutError: there was none before the deadline, in the time of `time.monotonic`.
        """
        while b"\n" not in self._read:
            left = 1.0 if deadline is None else min(1.0, deadline - time.monotonic())
            if left <= 0:
                raise TimeoutError
            data = os.read(self._events, 2**16) if self._selector.select(left) else None
            if data:
                self._read += data
            elif data == b"" or self._popen.poll() is not None:  # the warden itself was ended
                return {"ended": self._popen.wait()}
        line, _, self._read = self._read.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found

    def stop(self, grace: float) -> None:
        """End everything; with `grace` in seconds, after the worker had so long to end itself."""
        if self._popen.stdin is not None:
            with suppress(BrokenPipeError):
                self._popen.stdin.close()
        if grace:
            self._wait(grace)
        os.close(self._life)
        self._wait(GRACE)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()
        self._selector.close()
        os.close(self._events)

    def _wait(self, seconds: float) -> None:
        with suppress(subprocess.TimeoutExpired):
            self._popen.wait(seconds)
