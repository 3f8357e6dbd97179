"""Every exception that privbench raises on purpose.

The command line prints the message and exits with code 2; it never shows a traceback
for one of these. A message says what was expected, what was got and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PrivbenchError(Exception):
    """Base of all deliberate errors."""


class UnknownPluginError(PrivbenchError):
    """No plugin has this id."""


class PluginLoadError(PrivbenchError):
    """A plugin could not be imported or registered, or lacks an extra."""


class PluginError(PrivbenchError):
    """A plugin raised, or returned something that breaks its contract."""


class ConfigError(PrivbenchError):
    """A configuration value is unknown, of the wrong type or out of range."""


class DataError(PrivbenchError):
    """A data set or one of its images cannot be used."""


class ModelError(PrivbenchError):
    """A model folder or hub id cannot be loaded."""


class StoreError(PrivbenchError):
    """The store cannot be read or written."""


class RecordError(PrivbenchError):
    """A record does not follow its schema."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Suggest the nearest known names, or list them all.

    >>> did_you_mean("controlnet-cany", ["controlnet-canny", "none"])
    'Did you mean controlnet-canny?'
    >>> did_you_mean("zzz", ["none", "pixelate"])
    'Known: none, pixelate.'
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    return f"Did you mean {' or '.join(near)}?" if near else f"Known: {', '.join(names)}."
