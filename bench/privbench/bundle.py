"""The evidence of a published record: everything its numbers are computed from, in one file.

A bundle is an xz-compressed safetensors file beside the record. It holds, for N mated and M
non-mated probes, S enrolled people and every size of gallery (`TRIAL`: full-ref, few-ref,
single-ref, cross):

- `TRIAL/scores` (N, S) and `TRIAL/non-mated` (M, S), fused over each person's references, and
  `TRIAL/impostors` (V,), see `privbench.types.Identification`;
- `TRIAL+source/own` (N,): the score of the true person where the probe's own source photo is among
  the references;
- `mated` (N,), `subject` (N,) and `strangers` (M,): the truth;
- `rows/METRIC` (N, D), the rows of metrics that look at images;
- `released/sha256` (N, 32) and `released/small` (N, 3, 8, 8) uint8: of the released probes, what a
  rerun is compared with.

Floats are kept in single precision, unless a number depends on more (`submission`).
"""

from __future__ import annotations

import hashlib
import lzma
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

from privbench import evidence as ev
from privbench.data import Preset, trials
from privbench.errors import RecordError
from privbench.store import Arrays
from privbench.types import NOT_ENROLLED, Identification, OpenSet

SUFFIX = ".evidence.safetensors.xz"
LARGEST = 2**30
"""Bytes that a bundle may unpack to."""

ROWS = "rows/"
SHA, SMALL = "released/sha256", "released/small"
SIDE = 8
"""Pixels to a side of the small copy of a released image."""

_XZ = [{"id": lzma.FILTER_LZMA2, "preset": 6, "lc": 0, "lp": 2, "pb": 2}]  # four-byte numbers
_KINDS = {"float32", "float64", "int64", "uint8"}


def pack(arrays: Arrays) -> bytes:
    """A bundle from its arrays; the same arrays give the same bytes."""
    body = save_safetensors({k: np.ascontiguousarray(arrays[k]) for k in sorted(arrays)})
    return lzma.compress(body, lzma.FORMAT_XZ, lzma.CHECK_CRC64, filters=_XZ)


def unpack(data: bytes, name: str, limit: int = LARGEST) -> dict[str, np.ndarray]:
    """The arrays of a bundle.

    Args:
        name: what an error message calls it.
        limit: bytes that it may unpack to.

    Raises:
        RecordError: no xz file, larger than the limit, no safetensors file, arrays of other types,
            or scores that are not finite.
    """
    stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=2**28)
    try:
        body = stream.decompress(data, max_length=limit)
        if not stream.eof:
            raise RecordError(f"{name} is cut short, or unpacks to more than {limit:,} bytes.")
        arrays: dict[str, np.ndarray] = load_safetensors(body)
    except (lzma.LZMAError, SafetensorError, KeyError, ValueError) as error:
        raise RecordError(f"{name} is not a bundle of evidence: {error}.") from error
    for key, array in arrays.items():
        if array.dtype.name not in _KINDS:
            raise RecordError(f"{name}: the array {key} is of type {array.dtype}.")
        if not key.startswith(ROWS) and not np.isfinite(array).all():
            raise RecordError(f"{name}: the array {key} holds NaN or infinity.")
    return arrays


def single(arrays: Arrays) -> dict[str, np.ndarray]:
    """The arrays with floats in single precision."""
    return {k: a.astype(np.float32) if a.dtype.kind == "f" else a for k, a in arrays.items()}


def evidence_arrays(preset: Preset, scores: ev.Scores) -> dict[str, np.ndarray]:
    """The part of a bundle that comes from an attack's scores."""
    arrays: dict[str, np.ndarray] = {
        "mated": scores.mated,
        "subject": scores.subject,
        "strangers": scores.strangers,
    }
    for trial in trials(preset):
        closed = ev.identification(trial, scores)
        if trial.source:
            arrays[f"{trial.name}/own"] = closed.scores[np.arange(len(scores.mated)), scores.mated]
            continue
        opened = ev.open_set(trial, closed, scores)
        arrays[f"{trial.name}/scores"] = closed.scores
        arrays[f"{trial.name}/non-mated"] = opened.scores[len(closed.scores) :]
        arrays[f"{trial.name}/impostors"] = closed.impostors
    return arrays


def evidence_in(
    arrays: Arrays, preset: Preset, name: str
) -> dict[str, tuple[Identification, OpenSet]]:
    """Trial -> its evidence, closed and open.

    Raises:
        RecordError: an array is missing, or of another shape than the protocol says.
    """
    people, probes = preset.evaluation, preset.evaluation * preset.probes
    strangers = preset.non_mated * preset.probes

    for key, shape, kind in ((SHA, (probes, 32), "u1"), (SMALL, (probes, 3, SIDE, SIDE), "u1")):
        if key not in arrays or arrays[key].shape != shape or arrays[key].dtype != kind:
            raise RecordError(f"{name}: {key} must be bytes of shape {shape}.")

    def get(key: str, *shape: int) -> np.ndarray:
        if key not in arrays or (shape and arrays[key].shape != shape):
            found = arrays[key].shape if key in arrays else "nothing"
            raise RecordError(f"{name}: {key} must be of shape {shape}; got {found}.")
        return arrays[key].astype(np.float64 if arrays[key].dtype.kind == "f" else np.int64)

    mated, subject = get("mated", probes), get("subject", probes)
    if not ((mated >= 0) & (mated < people)).all():
        raise RecordError(f"{name}: mated must name columns from 0 to {people - 1}.")
    everyone = np.concatenate([subject, get("strangers", strangers)])
    enrolled = np.concatenate([mated, np.full(strangers, NOT_ENROLLED)])
    found = {}
    for trial in trials(preset):
        base = trial.name.removesuffix("+source")
        scores = get(f"{base}/scores", probes, people)
        if trial.source:
            scores[np.arange(probes), mated] = get(f"{trial.name}/own", probes)
        strange = get(f"{base}/non-mated", strangers, people)
        closed = Identification(scores, mated, subject, get(f"{base}/impostors").ravel())
        opened = OpenSet(np.concatenate([scores, strange]), enrolled, everyone)
        found[trial.name] = (closed, opened)
    return found


def prints(pixels: torch.Tensor) -> dict[str, np.ndarray]:
    """What identifies released images without showing them.

    Args:
        pixels: (N, 3, H, W) uint8.

    Returns:
        `released/sha256`, of each image's bytes, and `released/small`, its means over 8 x 8 areas.
    """
    small = F.adaptive_avg_pool2d(pixels.float(), SIDE).round().to(torch.uint8)
    hashes = [hashlib.sha256(image.contiguous().numpy().tobytes()).digest() for image in pixels]
    return {
        SHA: np.frombuffer(b"".join(hashes), np.uint8).reshape(len(pixels), 32),
        SMALL: small.numpy(),
    }


def sha256(data: bytes) -> str:
    """Hash of a file, in hex."""
    return hashlib.sha256(data).hexdigest()


def rows_in(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Metric -> its rows as float64."""
    return {
        key.removeprefix(ROWS): array.astype(np.float64)
        for key, array in arrays.items()
        if key.startswith(ROWS)
    }
