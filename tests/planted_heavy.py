"""A module that imports a heavy library at its top."""

from __future__ import annotations

from typing import Any

import numpy  # noqa: F401 - the planted defect

import planted


def build(config: planted.Defect) -> Any:
    """An honest anonymizer."""
    return planted.build_anonymizer(config.model_copy(update={"defect": ""}))
