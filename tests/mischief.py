"""A third party's plugins that do what plugins must not do to their process."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from privbench import Config, PluginSpec, Tags, hookimpl

if TYPE_CHECKING:
    import torch

    from privbench.progress import Reporter
    from privbench.types import ImageBatch, Release
    from privbench.worker import Run

PRIVBENCH_API = 1

How = Literal[
    "none", "raise", "sys-exit", "exit", "kill", "segfault", "abort", "hang", "hang-in-c",
    "grandchild", "leave", "stuck", "memory", "memory-in-torch", "print", "fork", "fork-and-raise",
    "thread", "weights", "warden", "input", "scream",
]  # fmt: skip


def do(how: str) -> None:
    """Mischief in this process."""
    if how == "raise":
        raise RuntimeError("out of ideas [bold]")
    if how == "sys-exit":
        sys.exit(3)
    if how == "exit":
        os._exit(3)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "segfault":
        ctypes.string_at(0)
    if how == "abort":
        ctypes.CDLL(None).abort()
    if how == "hang":
        time.sleep(3600)
    if how == "hang-in-c":
        ctypes.PyDLL(None).sleep(3600)  # such a call keeps the interpreter's lock
    if how in ("grandchild", "leave", "stuck"):
        child = subprocess.Popen(["/bin/sleep", "3600"], start_new_session=True)
        _tell(os.getpid(), child.pid)
        if how == "grandchild":
            child.wait()
        if how == "stuck":
            ctypes.PyDLL(None).sleep(3600)
    if how == "memory":
        bytearray(2**36)
    if how == "memory-in-torch":
        import torch

        torch.empty(2**36, dtype=torch.uint8)
    if how == "print":
        print(json.dumps({"done": "nonsense"}), flush=True)
        os.write(1, b'{"ended": 0}\n\xff\x00 garbage')
    if how == "fork":
        os.fork()
    if how == "fork-and-raise" and os.fork() == 0:
        raise RuntimeError("in the copy")
    if how == "thread":
        threading.Timer(0.2, os._exit, [4]).start()
    if how == "warden":
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(3600)
    if how == "input":
        input()
    if how == "scream":
        raise RuntimeError("\udcff" + "a" * 10**6)


def _tell(*processes: int) -> None:
    """Leave the numbers of processes where a test looks for them."""
    if place := os.environ.get("MISCHIEF"):
        Path(place).write_text(" ".join(map(str, processes)), encoding="ascii")


def open_light(given: Any, reporter: Reporter) -> Run:
    """Makes ready a worker without torch."""
    if given.get("late"):
        do("exit")

    def run(name: str) -> object:
        with reporter.task(f"{name} task", 3) as task:
            task.advance()
            do(name)
            task.advance(2)
        time.sleep(0.11)
        task.advance(1000)
        reporter.note(f"{name} note")
        return [name, os.getpid()]

    return run


class MischiefConfig(Config):
    """What to do."""

    how: How = Field("none", description="what to do")


class Mischief:
    """Blurs nothing: a grey image, or mischief."""

    def __init__(self, how: str) -> None:
        self.how = how

    def anonymize(self, batch: ImageBatch, seeds: Sequence[int]) -> torch.Tensor:
        """Do it, then answer."""
        do(self.how)
        return batch.pixels * 0.5


class MischiefMetric:
    """A metric of the release that fails."""

    def rows(self, evidence: Release) -> Any:
        """None."""
        raise ArithmeticError("no rows today")


class MischiefMembership:
    """A baseline for attacks on membership that ends its process."""

    def learn(self, *anything: object) -> Any:
        """Nothing."""
        do("exit")


def build(config: MischiefConfig) -> Mischief:
    """Build."""
    return Mischief(config.how)


def build_metric(config: Config) -> MischiefMetric:
    """Build."""
    return MischiefMetric()


def build_membership(config: Config) -> MischiefMembership:
    """Build."""
    return MischiefMembership()


def weights(config: MischiefConfig) -> dict[str, str]:
    """No hashes, or mischief while a run is planned."""
    if config.how == "weights":
        raise RuntimeError("no weights today")
    return {}


@hookimpl
def privbench_plugins() -> list[PluginSpec]:
    """All of it."""
    return [
        PluginSpec(
            "anonymizer", "mischief/maker", 1, "mischief", build, MischiefConfig, weights,
            argument="how",
        ),
        PluginSpec(
            "metric", "mischief/metric", 1, "fails", build_metric,
            tags=Tags(evidence="release", default=False),
        ),
        PluginSpec(
            "attack", "mischief/membership", 1, "ends", build_membership,
            tags=Tags(knowledge="none", infers="labels", control="diagnostic"),
        ),
    ]  # fmt: skip
