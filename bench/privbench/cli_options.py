"""Options that several commands share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from privbench.errors import ConfigError

if TYPE_CHECKING:
    from privbench.isolate import Isolation

Ids = Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="")]


@Parameter(name="*")
@dataclass(frozen=True)
class What:
    """What to run."""

    study: Annotated[Path | None, Parameter(name="STUDY")] = None
    """TOML file with the study, instead of the options below."""
    anonymizer: Ids = ()
    """Anonymizers, by id."""
    attack: Ids = ()
    """Attacks, by id."""
    metric: Ids = ()
    """Metrics, by id; all installed ones by default."""
    judge: Ids = ()
    """Recognisers that judge what inversion attacks reconstruct, such as naive-recogniser:dlib;
    by default the project's own and, where it is installed, dlib's."""
    dataset: str = "synthfaces"
    """Data set: an id, or folder:PATH, hf:NAME."""
    protocol: str = "auto"
    """Protocol preset: smoke, quick, standard, full; fit takes all that a data set has; auto is
    quick where the data set is large enough, else fit."""
    seed: int = 0
    """Seed of the run."""
    draws: int = 1
    """Independent draws of each probe that a stochastic anonymizer releases."""
    fixed_seed: Annotated[bool, Parameter(negative="")] = False
    """All images share one anonymizer seed: the ablation of a careless release."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    set: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="")] = ()
    """Settings: key=value, or plugin.key=value."""
    store: str = ".privbench/store"
    """Where artefacts are kept: a directory, or an fsspec URL."""


@Parameter(name="*")
@dataclass(frozen=True)
class Limits:
    """What one cell, an anonymizer under an attack, may cost."""

    timeout: float | None = None
    """Seconds that one cell may take; it then fails, and the others go on."""
    memory: float | None = None
    """GiB that one cell may hold beyond what the program itself does (Linux)."""
    in_process: Annotated[bool, Parameter(negative="")] = False
    """Run cells in this process: for a debugger. A plugin that hangs or kills its process then
    takes the whole run with it."""

    def isolation(self) -> Isolation | None:
        """For the functions that run cells."""
        from privbench.isolate import AVAILABLE, Isolation

        limited = self.timeout is not None or self.memory is not None
        if self.in_process and limited:
            raise ConfigError("--timeout and --memory need a process of their own for the cells: "
                              "leave out --in-process.")  # fmt: skip
        if self.in_process or not (AVAILABLE or limited):
            return None
        return Isolation(self.timeout, self.memory)
