"""The far side of `isolate`: a process that runs cells one after another and reports.

Two processes, in a session of their own. The *warden* is started; it imports nothing heavy and
runs no plugin. It forks the *worker*, which does. When the worker ends, or the process that asked
for it is gone, the warden ends everything below it and says how the worker ended.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Final

import psutil

from privbench.errors import PrivbenchError
from privbench.progress import Reporter, Task

Run = Callable[[str], Any]
"""Runs what is named and returns what JSON can hold."""

Open = Callable[[Any, Reporter], Run]
"""Makes ready, from facts that JSON could hold."""

EVERY: Final = 0.1
"""Seconds between two messages about one task."""

LONGEST: Final = 2000
"""Characters of a message that are told."""

SET_PDEATHSIG, SET_CHILD_SUBREAPER = 1, 36
"""Of prctl(2)."""


def main() -> None:
    """The warden; arguments: the path to import from, and the numbers of two pipes.

    It writes to the first; the second is closed when nobody waits any more.
    """
    events, life = (int(number) for number in sys.argv[2:])
    os.set_inheritable(events, False)
    _prctl(SET_CHILD_SUBREAPER, 1)  # whoever loses its parent below becomes the warden's child
    warden, worker = os.getpid(), os.fork()
    if worker == 0:
        os.close(life)
        _prctl(SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == warden:
            _work(_Channel(events))
        return
    os.close(0)  # orders are for the worker alone
    ended = threading.Event()
    threading.Thread(target=_watch, args=(life, worker, ended), daemon=True).start()
    status = os.waitpid(worker, 0)[1]
    ended.set()
    _end_descendants()
    _Channel(events).send(ended=os.waitstatus_to_exitcode(status))


def _watch(life: int, worker: int, ended: threading.Event) -> None:
    """Kill the worker as soon as nobody waits for it."""
    os.read(life, 1)
    if not ended.is_set():
        os.kill(worker, signal.SIGKILL)


def _end_descendants() -> None:
    """Kill and bury everything below this process."""
    while below := psutil.Process().children(recursive=True):
        for process in below:
            with suppress(psutil.Error):
                process.kill()
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.01)


def _prctl(option: int, value: int) -> None:
    """Ask Linux; elsewhere there is no such thing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


class _Channel:
    """Messages to whoever waits, one JSON object a line."""

    def __init__(self, pipe: int) -> None:
        self._pipe, self._owner, self._lock = pipe, os.getpid(), threading.Lock()

    @property
    def forked(self) -> bool:
        """Whether this is a copy of the worker that a plugin has made."""
        return os.getpid() != self._owner

    def send(self, **message: Any) -> None:
        """Write a message; a copy of the worker writes none."""
        if self.forked:
            return
        data = memoryview(f"{json.dumps(message)}\n".encode())
        with self._lock, suppress(BrokenPipeError):
            while data:
                data = data[os.write(self._pipe, data) :]


def _work(channel: _Channel) -> None:
    """The worker: make ready once, then run what is named, until there are no more orders."""
    with suppress(OSError):  # Linux: if memory runs out, take this process and spare the others
        Path("/proc/self/oom_score_adj").write_text("1000")
    orders = os.fdopen(os.dup(0), encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # a plugin that reads its input gets none
    try:
        job = json.loads(orders.readline())
        opener: Open = resolve_name(job["open"])
        run = opener(job["given"], Piped(channel))
        memory = job["memory"]
        if memory is not None:
            _limit(memory)
    except BaseException as error:  # whatever it is, somebody waits to hear of it
        channel.send(failed=_printable(in_words(error)), kind=type(error).__name__, last=True)
        return
    channel.send(ready=True)
    for line in orders:
        channel.send(begun=True)
        try:
            result = run(json.loads(line))
        except BaseException as error:
            _leave_if(channel.forked)
            short = memory is not None and lacks_memory(error)
            text = in_words(error)
            if short:
                text = f"asked for more memory than --memory {memory:g} GiB allows ({text})"
            channel.send(failed=_printable(text), kind=type(error).__name__, last=short)
            if short:
                return
        else:
            _leave_if(channel.forked)
            channel.send(done=result)


def _leave_if(forked: bool) -> None:
    """A copy that a plugin made and never ended must not go on as if it were the worker."""
    if forked:
        os._exit(0)


def _limit(gibibytes: float) -> None:
    """Let this process, and each child, hold so much more than it does now."""
    import resource  # not on Windows, where nothing is isolated

    from PIL import Image

    Image.init()  # a plugin of Pillow that fails to load for want of memory is lost for good
    now = psutil.Process().memory_info().data
    most, hard = now + int(gibibytes * 2**30), resource.getrlimit(resource.RLIMIT_DATA)[1]
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most, hard))


def in_words(error: BaseException) -> str:
    """What happened, in a line."""
    if isinstance(error, PrivbenchError):
        return str(error)
    if isinstance(error, SystemExit):
        return f"called sys.exit({'' if error.code is None else repr(error.code)})"
    return f"failed: {type(error).__name__}: {error}"


def _printable(text: str) -> str:
    """What fits in a table and in UTF-8."""
    return text[:LONGEST].encode(errors="replace").decode()


def lacks_memory(error: BaseException | None) -> bool:
    """Whether memory was refused, here or in what led here."""
    while error is not None:
        if (
            isinstance(error, MemoryError)
            or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
            or "allocate memory" in str(error)  # torch, and the dynamic linker
        ):
            return True
        error = error.__cause__ or error.__context__
    return False


class Piped:
    """A reporter that sends all it hears."""

    def __init__(self, channel: _Channel) -> None:
        self._channel, self._numbers = channel, itertools.count()

    @contextmanager
    def task(self, label: str, total: int, unit: str = "images") -> Iterator[Task]:
        """A task by its number."""
        number = next(self._numbers)
        self._channel.send(task=number, label=label, total=total, unit=unit)
        made = _PipedTask(self._channel, number)
        whole = False
        try:
            yield made
            whole = True
        finally:
            made.flush()
            self._channel.send(close=number, whole=whole)

    def note(self, text: str) -> None:
        """Send the line."""
        self._channel.send(note=text)


class _PipedTask:
    """Counts, and tells now and then."""

    def __init__(self, channel: _Channel, number: int) -> None:
        self._channel, self._number = channel, number
        self._waiting, self._last = 0, time.monotonic()

    def advance(self, n: int = 1) -> None:
        """Count, and send if it is time to."""
        self._waiting += n
        if time.monotonic() - self._last >= EVERY:
            self.flush()

    def flush(self) -> None:
        """Send what was counted since the last time."""
        if self._waiting:
            self._channel.send(advance=self._number, n=self._waiting)
        self._waiting, self._last = 0, time.monotonic()
