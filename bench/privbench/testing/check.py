"""What a check is, what comes of it, and what a plugin under test is made from."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from privbench.errors import PluginError
from privbench.registry import make_config
from privbench.spec import Config, PluginSpec
from privbench.testing.offline import Refused, offline

Status = Literal["passed", "failed", "expected", "unexpected-pass"]
"""`expected`: failed, as somebody said it would; `unexpected-pass`: passed although somebody said
that it would fail. Such a promise is strict: it counts as a failure."""

PREFIX = "check_"
"""How the name of every check's function begins."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of one check.

    Attributes:
        check: its name.
        status: see `Status`.
        problem: what was expected and what happened; "" where it passed. Behind an expected
            failure follows the reason that was given.
        seconds: how long it took.
        proves: in one line, what a plugin that passes keeps.
    """

    check: str
    status: Status
    problem: str = ""
    seconds: float = 0.0
    proves: str = ""

    @property
    def broken(self) -> bool:
        """Whether this is a failure."""
        return self.status in ("failed", "unexpected-pass")


class Workbench:
    """A plugin under test. What is tried on it is made when first needed, and shared by checks."""

    def __init__(self, spec: PluginSpec) -> None:
        self.spec = spec
        self.refused = Refused()

    @cached_property
    def config(self) -> Config:
        """The smoke configuration."""
        return make_config(self.spec, self.spec.smoke)


@dataclass(frozen=True)
class Check:
    """One check of one plugin; call it, and it raises where the promise is broken.

    Attributes:
        function: takes the workbench.
        bench: the plugin, with what it is tried on; shared by the checks of one plugin.
    """

    function: Callable[[Any], None]
    bench: Workbench

    @property
    def name(self) -> str:
        """The check's name, without its plugin's."""
        return self.function.__name__.removeprefix(PREFIX)

    @property
    def __name__(self) -> str:
        """What pytest calls the test."""
        return self.name

    @property
    def proves(self) -> str:
        """In one line, what a plugin that passes keeps."""
        return " ".join((inspect.getdoc(self.function) or "").partition("\n\n")[0].split())

    def __call__(self) -> None:
        """Run the check, without network.

        Raises:
            PluginError: the promise is broken.
        """
        with offline(self.bench.refused):
            self.function(self.bench)

    def find(self, reason: str = "") -> Finding:
        """Run the check and say what came of it; whatever the plugin raises is a finding.

        Args:
            reason: why it is expected to fail; "" where it is not.
        """
        start = time.perf_counter()
        problem = self._problem()
        status: Status = "failed" if problem else "passed"
        if reason and problem:
            status, problem = "expected", f"{problem} Expected: {reason}"
        elif reason:
            status = "unexpected-pass"
            problem = f"it passed, and was expected to fail: {reason}. Take that expectation back."
        return Finding(self.name, status, problem, time.perf_counter() - start, self.proves)

    def _problem(self) -> str:
        try:
            self()
        except PluginError as error:
            return str(error)
        except (Exception, SystemExit) as error:  # a plugin may raise anything
            return f"{self.bench.spec.id}: it raised {type(error).__name__}: {error}"
        return ""


def require(condition: bool, bench: Workbench, problem: str) -> None:
    """Hold a promise.

    Raises:
        PluginError: the condition is not met.
    """
    if not condition:
        raise PluginError(f"{bench.spec.id}: {problem}.")
