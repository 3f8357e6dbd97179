"""privbench: does a face-image anonymizer protect anyone?

The public interface. Nothing heavy is imported until it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from privbench.api import explain, run
    from privbench.errors import PrivbenchError
    from privbench.hookspecs import hookimpl
    from privbench.measure import time_anonymizers
    from privbench.record import Record, read_record
    from privbench.registry import load_registry
    from privbench.spec import Config, NoConfig, PluginSpec, Tags

__version__ = "0.1.0"

_HOME = {
    "run": "api",
    "explain": "api",
    "PrivbenchError": "errors",
    "hookimpl": "hookspecs",
    "time_anonymizers": "measure",
    "Record": "record",
    "read_record": "record",
    "load_registry": "registry",
    "Config": "spec",
    "NoConfig": "spec",
    "PluginSpec": "spec",
    "Tags": "spec",
}

__all__ = [
    "Config",
    "NoConfig",
    "PluginSpec",
    "PrivbenchError",
    "Record",
    "Tags",
    "__version__",
    "explain",
    "hookimpl",
    "load_registry",
    "read_record",
    "run",
    "time_anonymizers",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"privbench.{_HOME[name]}"), name)
    raise AttributeError(f"module 'privbench' has no attribute {name!r}")
