"""The hooks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import pluggy

from privbench.spec import PluginSpec

hookspec = pluggy.HookspecMarker("privbench")
hookimpl = pluggy.HookimplMarker("privbench")


@hookspec
def privbench_plugins() -> Iterable[PluginSpec]:  # type: ignore[empty-body]
    """Return the plugins of this distribution.

    Must be cheap: no torch, no files, no network.
    """


@hookspec
def privbench_studies() -> Mapping[str, Path]:  # type: ignore[empty-body]
    """Return the study files of this distribution: name -> path of a TOML file.

    Optional. The files are read only when a study is asked for.
    """
