"""Two files of embeddings in, identification and verification rates out: `privbench match`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from privbench import show
from privbench.errors import ConfigError, DataError
from privbench.large import (
    Bracket,
    Matches,
    average_precision,
    by_subject,
    detection_rate,
    equal_error,
    expected_hits,
    fnmr_at,
    match,
)
from privbench.progress import Reporter
from privbench.stats import bootstrap
from privbench.timing import pick_device
from privbench.types import Estimate, Floats, Ints, Output, Reducer

FALSE_MATCHES = 10
"""FNMR is left blank at an FMR below this many false matches."""


@dataclass(frozen=True, slots=True)
class Rates:
    """What `privbench match` prints.

    Attributes:
        identification: rank-k, mAP over images and DIR at each FPIR.
        verification: FNMR at each FMR, at the thresholds below; impostor scores held fixed.
        thresholds: lowest score that is accepted at each FMR, NaN where left blank.
        brackets: what binning leaves open of each FNMR.
        eer: equal error rate.
    """

    identification: tuple[Estimate, ...]
    verification: tuple[Estimate, ...]
    thresholds: tuple[float, ...]
    brackets: tuple[Bracket, ...]
    eer: Bracket


def match_files(
    probes: Path, gallery: Path, *, device: str = "auto", reporter: Reporter | None = None
) -> Matches:
    """Compare the embeddings of two safetensors files.

    Each holds `features` (n, D), float16 or float32, and `subject` (n,) int64, 0 or more. The
    gallery is read block by block.

    Raises:
        DataError: a file is no such file, or no probe's subject is in the gallery.
    """
    with _opened(probes) as one, _opened(gallery) as other:
        asked, enrolled = _subject(one, probes), _subject(other, gallery)
        if not np.isin(asked, enrolled).any():
            raise DataError(
                f"No subject of {probes} is in {gallery}; expected one mated probe at least. "
                "Both files must number people alike."
            )
        return match(
            one.get_tensor("features"),
            asked,
            by_subject(_Rows(other.get_slice("features")), enrolled),
            device=pick_device(device),
            reporter=reporter,
        )


def rates(
    matches: Matches, ranks: Sequence[int], fpirs: Sequence[float], fmrs: Sequence[float]
) -> Rates:
    """Rates with identity-clustered 95 % intervals.

    Args:
        matches: of all probes.
        ranks: k of rank-k; those above the number of people are left out.
        fpirs: false positive identification rates; blank below one alarm.
        fmrs: false match rates; blank below `FALSE_MATCHES`.

    Raises:
        ConfigError: a rank is below 1, or a rate not between 0 and 1.
    """
    if any(k < 1 for k in ranks) or any(not 0 < r < 1 for r in (*fpirs, *fmrs)):
        raise ConfigError(
            f"Expected ranks of 1 or more, and rates between 0 and 1; "
            f"got k {list(ranks)}, FPIR {list(fpirs)}, FMR {list(fmrs)}."
        )
    mated, subject = matches.mated, matches.subject
    kept = np.array([k for k in ranks if k <= matches.people], dtype=np.int64)
    shares = np.column_stack([expected_hits(matches, kept), average_precision(matches)])[mated]
    closed = bootstrap(
        _Means(),
        shares,
        subject[mated],
        [Output(name, "lower", 1.0) for name in (*(f"rank-{k}" for k in kept), "mAP (images)")],
        np.append(kept / matches.people, np.nan),
    )
    score = np.where(mated, matches.best, matches.top)
    hit = expected_hits(matches, np.array([1]))[:, 0]
    detected = _estimates(
        _Detection(tuple(fpirs)),
        np.column_stack([mated, score, hit]),
        subject,
        [Output(f"DIR at FPIR {fpir:g}", "lower", 1.0) for fpir in fpirs],
        np.full(len(fpirs), np.nan),
    )
    total = int(matches.impostors.sum())
    found = [
        fnmr_at(matches, fmr) if total * fmr >= FALSE_MATCHES else (np.nan, Bracket(np.nan, np.nan))
        for fmr in fmrs
    ]
    thresholds = np.array([threshold for threshold, _ in found])
    verified = _estimates(
        _Missed(),
        _missed(matches, thresholds)[mated],
        subject[mated],
        [Output(f"FNMR at FMR {fmr:g}", "higher", 0.0) for fmr in fmrs],
        1 - np.array(fmrs),
    )
    return Rates(
        (*closed, *detected),
        tuple(verified),
        tuple(thresholds.tolist()),
        tuple(bracket for _, bracket in found),
        equal_error(matches),
    )


def print_matches(matches: Matches, found: Rates) -> None:
    """The tables of `privbench match`, on standard output."""
    mated, screen = matches.mated, show.console()
    width = 2 / len(matches.impostors)
    screen.print(
        f"\n{len(mated):,} probes ({mated.sum():,} mated, of "
        f"{len(np.unique(matches.subject[mated])):,} people) against {matches.images:,} images of "
        f"{matches.people:,} people\n95 % intervals resample people"
    )
    table = show.table("identification", "value", "chance")
    for number in found.identification:
        table.add_row(number.name, _shown(number), _digits(number.chance))
    screen.print(table)
    table = show.table("verification", "value", "chance", "accepts from", "binning adds at most")
    for number, threshold, bracket in zip(
        found.verification, found.thresholds, found.brackets, strict=True
    ):
        table.add_row(
            number.name,
            _shown(number),
            _digits(number.chance),
            _digits(threshold, 5),
            _digits(bracket.high - bracket.low, 6),
        )
    eer = found.eer
    table.add_row("EER", _digits(eer.middle), "0.5000", "", _digits((eer.high - eer.low) / 2, 6))
    screen.print(table)
    screen.print(
        f"{len(matches.score):,} mated scores, exact; {matches.impostors.sum():,} impostor scores, "
        f"counted in bins of {width:.1e} and held fixed in the intervals",
        style="dim",
    )


class _Rows:
    """A slice of a safetensors file that takes arrays of rows."""

    def __init__(self, features: Any) -> None:
        self._features = features

    def __len__(self) -> int:
        rows, *_ = self._features.get_shape()
        return int(rows)

    def __getitem__(self, rows: slice | Ints) -> Any:
        index = rows if isinstance(rows, slice) else torch.from_numpy(rows)
        return self._features[index]


class _Means:
    def reduce(self, rows: Floats, weights: Floats) -> Floats:
        """(R, D) weighted means."""
        return _ratio(weights @ rows, weights.sum(axis=1, keepdims=True))


@dataclass(frozen=True, slots=True)
class _Detection:
    fpirs: tuple[float, ...]

    def reduce(self, rows: Floats, weights: Floats) -> Floats:
        """(R, F) from rows (N, 3): mated, score, hit; the limit moves with the resample."""
        mated, score, hit = rows[:, 0] > 0, rows[:, 1], rows[:, 2]
        return np.stack(
            [detection_rate(mated, score, hit, weights, fpir) for fpir in self.fpirs], axis=1
        )


class _Missed:
    def reduce(self, rows: Floats, weights: Floats) -> Floats:
        """(R, F) from rows (N, 1 + F): comparisons of a probe, and how many of them are missed."""
        sums = weights @ rows
        return _ratio(sums[:, 1:], sums[:, :1])


def _missed(matches: Matches, thresholds: Floats) -> Floats:
    """(N, 1 + F) mated comparisons of each probe, and those below each threshold."""
    n = len(matches.subject)
    below = np.where(np.isnan(thresholds), np.nan, matches.score[:, None] < thresholds)
    columns = np.column_stack([np.ones(len(below)), below]).T
    return np.stack([np.bincount(matches.probe, c, minlength=n) for c in columns], axis=1)


def _estimates(
    metric: Reducer, rows: Floats, subject: Ints, outputs: Sequence[Output], chance: Floats
) -> list[Estimate]:
    return bootstrap(metric, rows, subject, outputs, chance) if outputs else []


def _ratio(part: Floats, whole: Floats) -> Floats:
    with np.errstate(invalid="ignore"):  # 0 / 0 where all weights are 0
        ratio: Floats = part / whole
    return ratio


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        file = safe_open(path, "pt")
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path} cannot be read as a safetensors file: {error}") from error
    with file as held:
        if missing := {"features", "subject"} - set(held.keys()):
            raise DataError(
                f"{path} must hold tensors features (n, D) and subject (n,); "
                f"{' and '.join(sorted(missing))} missing, found {sorted(held.keys())}."
            )
        yield held


def _subject(file: Any, path: Path) -> Ints:
    held = file.get_slice("subject")
    if held.get_dtype() != "I64" or len(held.get_shape()) != 1:
        raise DataError(
            f"subject of {path} must be int64 of shape (n,); "
            f"got {held.get_dtype()} of shape {tuple(held.get_shape())}."
        )
    subject: Ints = file.get_tensor("subject").numpy()
    if (subject < 0).any():
        raise DataError(f"subject of {path} must be 0 or more; got {subject.min()}.")
    return subject


def _shown(number: Estimate) -> str:
    interval = "" if number.low is None else f" [{number.low:.4f}, {number.high:.4f}]"
    return _digits(number.value) + interval


def _digits(number: float | None, places: int = 4) -> str:
    return "" if number is None or np.isnan(number) else f"{number:.{places}f}"
