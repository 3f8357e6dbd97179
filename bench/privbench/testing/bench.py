"""A plugin under test that can be made and used, twice, under the eyes of the kit."""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from privbench.testing.check import Workbench
from privbench.testing.resources import Held, traced

Results = Mapping[str, Any]
"""What a use gave, by name: tensors, arrays, or plain values."""


@dataclass(frozen=True)
class Second:
    """What came of making and using a plugin a second time.

    Attributes:
        differs: name of the first result that was not the same bit for bit; "" where all were.
        kept: what one more use of the same object left behind; "" where nothing.
        left: what was left when the object was dropped; "" where nothing.
    """

    differs: str
    kept: str
    left: str


class UsableBench(Workbench):
    """A plugin that is made once for all checks, and once more for those that compare."""

    @abstractmethod
    def make(self) -> Any:
        """The plugin, ready to use: built with the smoke settings, then fitted or trained."""

    @abstractmethod
    def use(self, made: Any) -> Results:
        """What it does with the kit's images."""

    @cached_property
    def made(self) -> Any:
        """The one that most checks share."""
        with global_seed(1):
            return self.make()

    @cached_property
    def first(self) -> Results:
        """What that one gave when it was first used."""
        made = self.made
        with global_seed(2):
            return self.use(made)

    @cached_property
    def second(self) -> Second:
        """Another one from the same seeds, under other global random states.

        What is left behind is left each time: what others do in this process meanwhile is not.
        """
        self.first  # noqa: B018 - what a library sets up once is no leak
        found = self._again()
        if found.kept or found.left:
            once_more = self._again()
            found = replace(
                found,
                kept=found.kept and once_more.kept,
                left=found.left and once_more.left,
            )
        return found

    def _again(self) -> Second:
        with traced():
            before = Held.now()
            with global_seed(3):
                made = self.make()
                differs = difference(self.use(made), self.first)
                once = Held.now()
                self.use(made)
                kept = Held.now().more_than(once)
            del made
            left = Held.now()
        return Second(differs, kept, left.more_than(before))


@contextmanager
def global_seed(seed: int) -> Iterator[None]:
    """The global random states of torch, numpy and Python set; as they were afterwards."""
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])


def difference(got: Results, expected: Results) -> str:
    """The name of the first result that is not the same, bit for bit; "" where all are."""
    return next((name for name, value in expected.items() if not _equal(got[name], value)), "")


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.shape == b.shape and torch.equal(a.cpu(), b.cpu())
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
    return bool(a == b)
