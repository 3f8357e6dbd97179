"""A timing record: speed and memory of one anonymizer, as JSON with a versioned schema.

Apart from `privbench.record`, so that nothing measured on random weights can become a row of a
leaderboard. When a field changes its meaning, raise `TIMING_SCHEMA` and tell it in the changelog.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from privbench.errors import RecordError
from privbench.keys import canonical_json, digest_bytes
from privbench.record import PluginRef

TIMING_SCHEMA = 1


class TimingRecord(BaseModel):
    """Speed and memory of one anonymizer at one batch size. It holds nothing about privacy.

    Attributes:
        label: `timing-only` where the weights are random: the released images mean nothing.
        build_seconds: building, and moving to the device.
        fit_seconds: fitting, None where nothing is fitted.
        images: images that were timed, warm-up excluded.
        timing: as in a run's record: every sample (warm-up first), summary, `batch_size`,
            `at_once`, `peak_bytes`, device fingerprint.
        dtype: as asked for; `auto/cuda` is what `auto` stands for there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = TIMING_SCHEMA
    label: Literal["measured", "timing-only"]
    created: str
    privbench: str
    anonymizer: PluginRef
    dataset: dict[str, str]
    seed: int
    dtype: str
    images: int
    build_seconds: float
    fit_seconds: float | None
    timing: dict[str, Any]
    packages: dict[str, str]

    @property
    def name(self) -> str:
        """File name stem: readable, and distinct for distinct measurements."""
        stem = f"{self.anonymizer.id.replace('/', '__')}--b{self.timing['batch_size']}"
        text = canonical_json(self.model_dump(mode="json"))
        return f"{stem}--{digest_bytes([text.encode()])[:8]}"


def write_timing(record: TimingRecord, folder: Path) -> Path:
    """Write a timing record atomically; returns its path.

    Raises:
        RecordError: the folder cannot be written.
    """
    path = folder / f"{record.name}.json"
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    body = record.model_dump(mode="json")
    text = json.dumps(body, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise RecordError(f"Cannot write the timing record {path}: {error}") from error
    return path


def read_timing(path: Path) -> TimingRecord:
    """Read and check a timing record.

    Raises:
        RecordError: not a timing record, or of another schema version.
    """
    try:
        record = TimingRecord.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecordError(f"Cannot read {path}: {error}") from error
    except (ValueError, ValidationError) as error:
        raise RecordError(f"{path} is not a timing record: {error}") from error
    if record.schema_version != TIMING_SCHEMA:
        raise RecordError(
            f"{path} has timing schema {record.schema_version}; this privbench reads "
            f"{TIMING_SCHEMA}."
        )
    return record
