"""The one hook."""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from privbench.spec import PluginSpec

hookspec = pluggy.HookspecMarker("privbench")
hookimpl = pluggy.HookimplMarker("privbench")


@hookspec
def privbench_plugins() -> Iterable[PluginSpec]:  # type: ignore[empty-body]
    """Return the plugins of this distribution.

    Must be cheap: no torch, no files, no network.
    """
