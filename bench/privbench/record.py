"""The result of one anonymizer under one attack, as JSON with a versioned schema.

When a field changes its meaning: raise `SCHEMA_VERSION`, tell it in the changelog, and teach
`privbench_leaderboard` (which reads the JSON and imports nothing from here) the new version.
"""

from __future__ import annotations

import gzip
import json
import math
import os
import re
import zlib
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from privbench.errors import RecordError
from privbench.spec import Knowledge
from privbench.types import Estimate

SCHEMA_VERSION = 1

_HALF = re.compile(r"\\ud[89a-f]", re.I)

PACKED = ".json.gz"
LARGEST = 64 * 2**20
"""Bytes that a packed record may unpack to."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Result(_Model):
    """Any record: it has a file name."""

    @property
    @abstractmethod
    def name(self) -> str:
        """File name stem: readable, and distinct for distinct results."""


R = TypeVar("R", bound=Result)


class PluginRef(_Model):
    """Which plugin ran, with its resolved configuration."""

    id: str
    version: int
    summary: str
    distribution: str
    config: dict[str, Any]
    code: str
    weights: dict[str, str]
    licence: str
    control: Literal["positive", "negative", "diagnostic"] | None = None


class Part(_Model):
    """How many people and images played a part.

    Attributes:
        undetected: images in which the data set's detector found no face; they take part all the
            same. None where nobody looked.
    """

    identities: int
    images: int
    undetected: int | None = None


class Hits(_Model):
    """Rank-1 of each probe on the primary trial, so that records can be compared in pairs.

    Attributes:
        subject: identity of each probe.
        rank1: in [0, 1], ties shared.
    """

    subject: list[int]
    rank1: list[float]


class Curve(_Model):
    """A curve with its pointwise 95 % band.

    Attributes:
        x: increasing: ranks, or false match rates.
        value: at each x, in [0, 1].
        low: lower end of the band.
        high: upper end.
    """

    x: list[float]
    value: list[float]
    low: list[float]
    high: list[float]


class Record(Result):
    """Everything needed to read, compare and recompute one result.

    Attributes:
        dataset_facts: what the data set says of itself: revision, preprocessing, files left out.
        release: independent draws of each probe, and whether all images shared one seed.
        estimates: trial -> metric -> numbers, from identification evidence.
        hits: probe by probe.
        inversion: metric -> numbers, of an attack that reconstructs.
        utility: metric -> numbers, from the release itself.
        metrics: metric -> its settings and weights, which a number may depend on.
        timing: one entry per timed stage: all samples, summary, device.
        keys: the store key of each step.
        scores: file beside the record with what its numbers rest on, and its SHA-256: the
            attack's raw scores, or once submitted the evidence (`privbench.bundle`).
        command: the command line that makes it again.
        curves: trial -> `cmc` (share of probes whose person is among the first x) and `roc` (true
            match rate at false match rate x); from submission.
        gallery: `file` and `sha256` of a picture of what was released, and its text alternative
            `alt`; from submission, where the data set may be shown.
    """

    schema_version: int = SCHEMA_VERSION
    created: str
    privbench: str
    anonymizer: PluginRef
    attack: PluginRef
    threat_model: Knowledge
    oracle_queries: int
    dataset: dict[str, str]
    protocol: dict[str, Any]
    primary_trial: str
    parts: dict[str, Part]
    seed: int
    dtype: str
    estimates: dict[str, dict[str, list[Estimate]]]
    utility: dict[str, list[Estimate]]
    attack_report: dict[str, Any]
    timing: list[dict[str, Any]]
    packages: dict[str, str]
    keys: dict[str, str]
    scores: dict[str, str] = {}
    metrics: dict[str, PluginRef] = {}
    dataset_facts: dict[str, Any] = {}
    release: dict[str, Any] = {}
    hits: Hits | None = None
    inversion: dict[str, list[Estimate]] = {}
    command: str = ""
    curves: dict[str, dict[Literal["cmc", "roc"], Curve]] = {}
    gallery: dict[str, str] = {}

    @property
    def name(self) -> str:
        """File name stem: readable, and distinct for distinct results."""
        ids = (self.anonymizer.id, self.attack.id, self.protocol["name"])
        return "--".join(i.replace("/", "__") for i in ids) + f"--{self.keys['record'][:8]}"

    def estimate(self, metric: str, name: str, trial: str | None = None) -> Estimate:
        """One number, from the primary trial unless another is named.

        Raises:
            KeyError: the record does not hold it.
        """
        for found in self.estimates[trial or self.primary_trial][metric]:
            if found.name == name:
                return found
        raise KeyError(name)


def to_json(record: Result) -> str:
    """Stable JSON text: sorted keys, one estimate or one plain fact a line, for readable diffs."""
    return _lines(record.model_dump(mode="json"), "") + "\n"


def read_record(path: Path) -> Record:
    """Read and check a record; one that ends in `.gz` is unpacked.

    Raises:
        RecordError: not JSON, another schema version, or fields that do not fit.
    """
    return read_as(Record, path)


def read_as(kind: type[R], path: Path) -> R:
    """Read and check a record of some kind, as `read_record` does."""
    try:
        body = parsed(unpacked(path))
        if (version := body.get("schema_version")) != SCHEMA_VERSION:
            raise RecordError(
                f"{path} has record schema {version!r}; this privbench reads {SCHEMA_VERSION}."
            )
        return kind.model_validate(body)
    except ValidationError as error:
        said = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}"
                for e in error.errors(include_url=False)]  # fmt: skip
        more = f"; and {len(said) - 5} more" if len(said) > 5 else ""
        raise RecordError(f"{path} is not a record: {'; '.join(said[:5])}{more}.") from None
    except (ValueError, AttributeError, RecursionError) as error:
        raise RecordError(f"{path} is not a record: {error}") from error


def write_record(record: Result, folder: Path, *, packed: bool = False) -> Path:
    """Write a record atomically; returns its path.

    Args:
        packed: gzip it, `.json.gz`: a study has hundreds.

    Raises:
        RecordError: the folder cannot be written.
    """
    path = folder / f"{record.name}{PACKED if packed else '.json'}"
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    data = to_json(record).encode()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(gzip.compress(data, mtime=0) if packed else data)
        temporary.replace(path)
    except OSError as error:
        raise RecordError(f"Cannot write the record {path}: {error}") from error
    return path


def parsed(data: bytes) -> Any:
    """JSON as records hold it: UTF-8, numbers finite, text that can be written again.

    Raises:
        ValueError: it is none.
    """
    text = data.decode("utf-8")
    body = json.loads(text, parse_constant=_refused, parse_float=_finite)
    if _HALF.search(text):  # half a character, perhaps
        json.dumps(body, ensure_ascii=False).encode()
    return body


def unpacked(path: Path, limit: int = LARGEST) -> bytes:
    """A record's JSON.

    Args:
        limit: bytes that it may have.

    Raises:
        RecordError: unreadable, or larger.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            data = file.read(limit + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise RecordError(f"Cannot read {path}: {error}") from error
    if len(data) > limit:
        raise RecordError(f"{path} is larger than {limit:,} bytes; no record is.")
    return data


def _refused(constant: str) -> float:
    raise ValueError(f"{constant} is no number in JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no finite number")
    return value


def _lines(value: Any, indent: str) -> str:
    """JSON in which what holds only plain values stands on one line."""
    inner = list(value.values()) if isinstance(value, dict) else value
    if not isinstance(value, dict | list) or not any(isinstance(v, dict | list) for v in inner):
        return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)
    if isinstance(value, list):
        rows = [_lines(v, indent + " ") for v in value]
        return _block("[]", rows, indent)
    rows = [f"{json.dumps(k, ensure_ascii=False)}: {_lines(value[k], indent + ' ')}"
            for k in sorted(value)]  # fmt: skip
    return _block("{}", rows, indent)


def _block(brackets: str, rows: Sequence[str], indent: str) -> str:
    inside = f",\n{indent} ".join(rows)
    return f"{brackets[0]}\n{indent} {inside}\n{indent}{brackets[1]}"
