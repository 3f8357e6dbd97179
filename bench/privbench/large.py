"""Identification and verification against large galleries, without the score matrix.

Scores are cosine similarities. Probes and gallery are cut into tiles of one fixed shape and each
pair of tiles is multiplied in float32 by the same call on the same operands, in two passes: the
first reads the mated scores out of the products, the second counts how many impostors lie above
them. Hence

- a pair has the same score in both passes, bit by bit, so counts and ties are exact for the
  scores as they were computed;
- the blocks in which a gallery arrives change nothing: they are cut anew;
- another device, number of threads or tile shape may round scores differently, by up to about
  1e-7, and with them the order of scores that are as close as that.

Only the tiles that hold a mated pair are multiplied twice: probes and gallery are in the order
of their subjects, so these lie on a diagonal. Memory grows with the probes and the mated
comparisons, not with all of them. Float32 means float32: torch's matmul precision must be
"highest", as it is by default.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from privbench.errors import DataError
from privbench.progress import Reporter, Silent
from privbench.types import Floats, Ints

PROBES, GALLERY = 256, 2048  # a tile of scores takes 2 MiB and stays in the cache

BINS = 2**16
"""Bins of the impostor histogram over [-1, 1]; a power of two, so that binning never rounds."""

Stream = Callable[[], Iterable[tuple[Any, Any]]]
"""A gallery: each call yields the same blocks of features (n, D) and subjects (n,), in ascending
order of subject. `by_subject` makes one of arrays in any order."""


@dataclass(frozen=True, slots=True)
class Bracket:
    """A number that is known to lie within `low` and `high`, ends included."""

    low: float
    high: float

    @property
    def middle(self) -> float:
        """The number, wrong by at most half the bracket."""
        return (self.low + self.high) / 2


@dataclass(frozen=True, eq=False)
class Matches:
    """What is left of N probes against G gallery images of S people.

    A probe is mated where its subject is in the gallery. Impostor images are those of other
    people than the probe's.

    Attributes:
        images: G.
        people: S.
        subject: (N,) identity of each probe.
        top: (N,) best score among impostor images; -inf where there are none.
        best: (N,) best mated score, NaN where not mated.
        people_above: (N,) other people whose best score is above `best`; 0 where not mated.
        people_tied: (N,) other people whose best score equals `best`; 0 where not mated.
        probe: (M,) probe of each mated comparison, ascending.
        score: (M,) its score.
        above: (M,) impostor images that score above it.
        tied: (M,) impostor images that score the same.
        impostors: (B,) number of impostor comparisons, of all probes, in equal bins over
            [-1, 1]. Bin b holds -1 + 2 b / B <= score < -1 + 2 (b + 1) / B, without rounding;
            scores that rounding put outside [-1, 1] are in the outermost bins.
    """

    images: int
    people: int
    subject: Ints
    top: Floats
    best: Floats
    people_above: Ints
    people_tied: Ints
    probe: Ints
    score: Floats
    above: Ints
    tied: Ints
    impostors: Ints

    @property
    def mated(self) -> NDArray[np.bool_]:
        """(N,) the probe's subject is in the gallery."""
        return ~np.isnan(self.best)


def by_subject(features: Any, subject: Ints, block: int = GALLERY) -> Stream:
    """A gallery from arrays in any order, read block by block.

    Args:
        features: (G, D) float16 or float32 that takes a slice or an array of rows: an array, a
            memory map, a tensor, a slice of a safetensors file.
        subject: (G,) int64.
        block: rows that are read at once; does not change any result.

    Raises:
        DataError: not one subject for each row.
    """
    if len(features) != len(subject):
        raise DataError(
            f"The gallery has {len(features)} rows of features and {len(subject)} subjects; "
            "expected one subject for each row."
        )
    order = np.argsort(subject, kind="stable")
    ordered = bool((order == np.arange(len(order))).all())

    def blocks() -> Iterator[tuple[Any, Ints]]:
        for start in range(0, len(order), block):
            rows = order[start : start + block]
            # A slice is one read; rows here and there are many.
            yield features[slice(start, start + len(rows)) if ordered else rows], subject[rows]

    return blocks


def match(
    probes: Any,
    subject: Ints,
    gallery: Stream,
    *,
    bins: int = BINS,
    device: torch.device | str = "cpu",
    reporter: Reporter | None = None,
) -> Matches:
    """Compare every probe with every gallery image; the gallery is read twice.

    Args:
        probes: (N, D) features, array or tensor; any length, as scores are cosines.
        subject: (N,) int64 identity of each probe.
        gallery: G images of S people; see `Stream`.
        bins: of the impostor histogram; a power of two.
        device: where to multiply and count. On the CPU the threads are those of
            `torch.set_num_threads`.
        reporter: progress.

    Raises:
        DataError: shapes do not fit, features are not finite, the gallery is empty or not in
            order of subject, or `bins` is no power of two.
    """
    if bins < 2 or bins & (bins - 1):
        raise DataError(f"bins must be a power of two from 2 on; got {bins}.")
    device = torch.device(device)
    features = _features(probes, subject, "probes")
    if not len(features):
        raise DataError("The probes are empty; expected one row at least.")
    order = np.argsort(subject, kind="stable")
    tiles = [_padded(features[rows], PROBES, device, "probes") for rows in _cut(order, PROBES)]
    asked = subject[order]

    enrolled, probe, score = _mated(tiles, asked, gallery, features.shape[1], device)
    counters = [
        _Counter(tile, *_thresholds(probe, score, start, min(PROBES, len(order) - start)), device)
        for tile, start in zip(tiles, range(0, len(order), PROBES), strict=True)
    ]
    impostors = torch.zeros(bins, dtype=torch.int64, device=device)
    with (reporter or Silent()).task("matching", len(enrolled)) as task:
        for n in _count(counters, asked, enrolled, gallery, features.shape[1], impostors):
            task.advance(n)

    back, shown = np.argsort(order), np.argsort(order[probe], kind="stable")
    by_probe = zip(*(counter.by_probe() for counter in counters), strict=True)
    by_pair = zip(*(counter.by_pair() for counter in counters), strict=True)
    top, best, people_above, people_tied = (np.concatenate(part)[back] for part in by_probe)
    above, tied = (np.concatenate(part)[shown] for part in by_pair)
    return Matches(
        images=len(enrolled),
        people=len(np.unique(enrolled)),
        subject=subject,
        top=top,
        best=best,
        people_above=people_above,
        people_tied=people_tied,
        probe=order[probe][shown],
        score=score[shown].astype(np.float64),
        above=above,
        tied=tied,
        impostors=impostors.cpu().numpy(),
    )


def expected_hits(matches: Matches, ranks: Ints) -> Floats:
    """(N, K) chance that the true person is among the first k people, ties broken at random.

    With `a` people above and `t` tied, the rank is uniform on a + 1 .. a + t + 1. NaN where not
    mated.
    """
    above, tied = matches.people_above[:, None], matches.people_tied[:, None]
    hits = np.clip(ranks - above, 0, tied + 1) / (tied + 1)
    return np.where(matches.mated[:, None], hits, np.nan)


def mates_reached(matches: Matches) -> Ints:
    """(M,) images of the probe's person that score as high as each mated comparison or higher.

    With `above` and `tied` this is the image's rank in the whole gallery: the last one, where
    images tie, is `mates_reached + above + tied`.
    """
    order = np.lexsort((-matches.score, matches.probe))
    probe, score = matches.probe[order], matches.score[order]
    changes = (probe[1:] != probe[:-1]) | (score[1:] != score[:-1])
    last = np.flatnonzero(np.append(changes, True))  # of each group of ties
    mates = np.empty_like(order)
    mates[order] = last[np.searchsorted(last, np.arange(len(order)))] + 1
    mates[order] -= np.searchsorted(probe, probe)
    return mates


def average_precision(matches: Matches) -> Floats:
    """(N,) average precision over the gallery images; NaN where not mated.

    The mean, over a probe's mated images, of the share of mated images among all that score as
    high or higher (as `sklearn.metrics.average_precision_score`: ties count against).
    """
    mates = mates_reached(matches)
    precision = mates / (mates + matches.above + matches.tied)
    n = len(matches.subject)
    total = np.bincount(matches.probe, precision, minlength=n)
    count = np.bincount(matches.probe, minlength=n)
    with np.errstate(invalid="ignore"):  # 0 / 0 where not mated
        return total / count


def open_set_limit(top: Floats, weights: Floats, fpir: float) -> Floats:
    """(R,) least score that at most the share `fpir` of non-mated searches exceeds.

    A search raises an alarm where its best score is *above* the limit. NaN where the weights
    expect less than one alarm: too few searches to fix a limit.

    Args:
        top: (O,) best score of each non-mated probe.
        weights: (R, O) multiplicities.
        fpir: false positive identification rate, below 1.
    """
    if not len(top):
        return np.full(len(weights), np.nan)
    order = np.argsort(-top)
    reached = np.cumsum(weights[:, order], axis=1)
    allowed = fpir * reached[:, -1:]
    limit = top[order][(reached > allowed).argmax(axis=1)]
    return np.where(allowed[:, 0] >= 1, limit, np.nan)


def detection_rate(
    mated: NDArray[np.bool_], score: Floats, hit: Floats, weights: Floats, fpir: float
) -> Floats:
    """(R,) detection and identification rate DIR = 1 - FNIR(N, 1, T) at an FPIR.

    A mated probe counts where its person is at rank 1 and scores above the limit that the
    non-mated probes set (ISO/IEC 19795-1). Ties with the limit are rejected.

    Args:
        mated: (N,) whether the probe's person is in the gallery.
        score: (N,) `Matches.best` where mated, `Matches.top` elsewhere.
        hit: (N,) chance that the true person is at rank 1; not read where not mated.
        weights: (R, N) multiplicities.
        fpir: largest share of non-mated searches with an alarm, below 1.

    Returns:
        NaN where a weighting has no mated probe, or too few others to fix a limit.
    """
    limit = open_set_limit(score[~mated], weights[:, ~mated], fpir)
    own = weights[:, mated]
    with np.errstate(invalid="ignore"):  # 0 / 0
        found = (own * ((score[mated] > limit[:, None]) * hit[mated])).sum(axis=1) / own.sum(axis=1)
    return np.where(np.isnan(limit), np.nan, found)


def error_rates(matches: Matches) -> tuple[Floats, Floats, Floats]:
    """The DET curve at the edges of the bins, where it is exact.

    A comparison is accepted at a score of `threshold` or more.

    Returns:
        (B + 1,) thresholds, ascending, the outermost infinite; FMR (falling from 1 to 0) and FNMR
        (rising from 0 to 1) at each. NaN without impostor or without mated comparisons.
    """
    threshold = np.linspace(-1, 1, len(matches.impostors) + 1)
    threshold[[0, -1]] = -np.inf, np.inf
    false = np.append(np.cumsum(matches.impostors[::-1])[::-1], 0)
    missed = np.searchsorted(np.sort(matches.score), threshold)
    with np.errstate(invalid="ignore"):  # 0 / 0
        return threshold, false / np.float64(false[0]), missed / np.float64(missed[-1])


def equal_error(matches: Matches) -> Bracket:
    """EER: where FMR and FNMR cross lies within one bin, and both are known at its two edges."""
    _, fmr, fnmr = error_rates(matches)
    if np.isnan(fmr[0] + fnmr[0]):
        return Bracket(np.nan, np.nan)
    after = int((fnmr >= fmr).argmax())  # 1 at least: FMR begins at 1, FNMR at 0
    low = max(fmr[after], fnmr[after - 1])
    return Bracket(float(low), float(min(fmr[after - 1], fnmr[after])))


def fnmr_at(matches: Matches, fmr: float) -> tuple[float, Bracket]:
    """Smallest FNMR among thresholds whose FMR is at most `fmr`.

    Args:
        matches: of all probes.
        fmr: false match rate, below 1.

    Returns:
        The lowest edge of a bin that keeps the rate, and the bracket. `high` is the FNMR at that
        edge. The exact threshold may lie within the bin below, so that the bracket is as wide as
        the share of mated scores in this one bin. NaN without impostors or mated comparisons.
    """
    threshold, rates, fnmr = error_rates(matches)
    if np.isnan(rates[0] + fnmr[0]):
        return np.nan, Bracket(np.nan, np.nan)
    edge = int((rates <= fmr).argmax())  # 1 at least, as FMR begins at 1
    return float(threshold[edge]), Bracket(float(fnmr[edge - 1]), float(fnmr[edge]))


class _People:
    """Whose images the columns of a tile show.

    Attributes:
        joins: for steps 1, 2, 4, .. of columns, 0 where two columns that far apart show one
            person and -inf where they do not.
        ends: (P,) columns of the last image of a person.
        first: column up to which the images may belong to a person of the tile before.
        open: the last person goes on in the next tile.
    """

    def __init__(self, who: Ints, last: NDArray[np.bool_], device: torch.device) -> None:
        starts = np.flatnonzero(np.append(True, who[1:] != who[:-1]))
        longest = int(np.diff(np.append(starts, len(who))).max())
        steps = [2**i for i in range((longest - 1).bit_length())]
        far = np.float32(-np.inf)
        self.joins = [
            (s, torch.from_numpy(np.where(who[s:] == who[:-s], np.float32(0), far)).to(device))
            for s in steps
        ]
        ends = np.flatnonzero(last)
        self.ends = torch.from_numpy(ends).to(device)
        self.all = len(ends) == len(who)
        self.first = int(starts[1] if len(starts) > 1 else len(who)) - 1
        self.open = not last[-1]


class _Counter:
    """A tile of probes, and what has been counted for them.

    Attributes:
        tile: (PROBES, D) unit features, padded with zeros.
        rows: probes in it.
    """

    def __init__(
        self,
        tile: torch.Tensor,
        thresholds: NDArray[np.float32],
        used: NDArray[np.bool_],
        device: torch.device,
    ) -> None:
        self.tile, self.rows, self._used = tile, len(used), used
        self._thresholds = torch.from_numpy(thresholds).to(device)
        best = np.where(used, thresholds, -np.inf).max(axis=1, keepdims=True)
        # Nothing reaches the threshold of a probe without mates.
        self._best = torch.from_numpy(np.where(used.any(axis=1, keepdims=True), best, np.inf))
        self._best = self._best.to(device, torch.float32)
        self._open = torch.full((self.rows,), -torch.inf, device=device)
        self._top = self._open.clone()
        self._images = torch.zeros(2, *used.shape, dtype=torch.int64, device=device)
        self._people = torch.zeros(2, self.rows, dtype=torch.int64, device=device)

    def count(self, scores: torch.Tensor, room: torch.Tensor, people: _People) -> None:
        """Count the images and the people of one tile.

        Args:
            scores: (rows, n), -inf at own images; destroyed.
            room: as large and contiguous, to work in.
            people: whose images the n columns show.
        """
        ranked = _sorted(room.copy_(scores))
        self._top = torch.maximum(self._top, ranked[:, -1])
        for total, right in zip(self._images, (True, False), strict=True):
            total += scores.shape[1] - torch.searchsorted(ranked, self._thresholds, right=right)
        # Each column becomes the best of its person so far: maxima over 1, 2, 4, .. columns.
        for step, join in people.joins:
            torch.add(scores[:, :-step], join, out=room[:, step:])
            torch.maximum(scores[:, step:], room[:, step:], out=scores[:, step:])
        begun = scores[:, people.first]
        torch.maximum(begun, self._open, out=begun)
        if people.open:
            self._open = scores[:, -1].clone()
        else:
            self._open.fill_(-torch.inf)
        done = scores if people.all else scores.index_select(1, people.ends)
        self._people[0] += (done > self._best).sum(1, dtype=torch.int32)
        self._people[1] += (done >= self._best).sum(1, dtype=torch.int32)

    def by_probe(self) -> tuple[Floats, Floats, Ints, Ints]:
        """(rows,) each: top impostor, best mate, people above, people tied."""
        above, reached = self._people.cpu().numpy()
        best = self._best[:, 0].cpu().numpy().astype(np.float64)
        top = self._top.cpu().numpy().astype(np.float64)
        return top, np.where(self._used.any(axis=1), best, np.nan), above, reached - above

    def by_pair(self) -> tuple[Ints, Ints]:
        """(m,) each, in order of probe and gallery: impostor images above, and tied."""
        above, reached = self._images.cpu().numpy()
        return above[self._used], (reached - above)[self._used]


def _count(
    counters: list[_Counter],
    asked: Ints,
    enrolled: Ints,
    gallery: Stream,
    width: int,
    impostors: torch.Tensor,
) -> Iterator[int]:
    """Second pass: fill `counters` and `impostors`; yields the images done.

    Raises:
        DataError: the gallery is another one than in the first pass.
    """
    device, bins = impostors.device, len(impostors)
    product, room = torch.empty(2, PROBES, GALLERY, device=device)
    last = np.append(enrolled[1:] != enrolled[:-1], True)
    start = 0
    for tile, who in _tiles(gallery, width, device):
        seen = slice(start, start + len(who))
        if not np.array_equal(who, enrolled[seen]):
            break
        people = _People(who, last[seen], device)
        row, column = _pairs(asked, who)
        for i, counter in enumerate(counters):
            own = slice(*np.searchsorted(row, [i * PROBES, (i + 1) * PROBES]))
            torch.mm(counter.tile, tile.T, out=product)
            scores = product[: counter.rows, : len(who)]
            scores[row[own] - i * PROBES, column[own]] = -torch.inf
            space = room.view(-1)[: scores.numel()].view(scores.shape)
            impostors += _histogram(scores, space, bins)
            counter.count(scores, space, people)
        impostors[0] -= len(row)  # own images: -inf is counted in the lowest bin
        start += len(who)
        yield len(who)
    if start != len(enrolled):
        raise DataError(
            "The gallery changed between two passes; each call must yield the same blocks."
        )


def _mated(
    tiles: list[torch.Tensor], asked: Ints, gallery: Stream, width: int, device: torch.device
) -> tuple[Ints, Ints, NDArray[np.float32]]:
    """First pass: (G,) subjects of the gallery, and probe and score of each mated comparison."""
    product = torch.empty(PROBES, GALLERY, device=device)
    enrolled, probes, scores = [], [], []
    for tile, who in _tiles(gallery, width, device):
        enrolled.append(who)
        row, column = _pairs(asked, who)
        for i in np.unique(row // PROBES):
            own = slice(*np.searchsorted(row, [i * PROBES, (i + 1) * PROBES]))
            torch.mm(tiles[i], tile.T, out=product)
            probes.append(row[own])
            scores.append(product[row[own] - i * PROBES, column[own]].cpu().numpy())
    if not enrolled:
        raise DataError("The gallery is empty; expected one image at least.")
    probe = np.concatenate([np.empty(0, np.int64), *probes])
    order = np.argsort(probe, kind="stable")
    return (
        np.concatenate(enrolled),
        probe[order],
        np.concatenate([np.empty(0, np.float32), *scores])[order],
    )


def _thresholds(
    probe: Ints, score: NDArray[np.float32], start: int, rows: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Mated scores of probes start .. start + rows as (rows, m), and which of them there are."""
    own = slice(*np.searchsorted(probe, [start, start + rows]))
    count = np.bincount(probe[own] - start, minlength=rows)
    used = np.arange(max(count.max(), 1)) < count[:, None]
    thresholds = np.full(used.shape, np.inf, np.float32)
    thresholds[used] = score[own]
    return thresholds, used


def _pairs(asked: Ints, who: Ints) -> tuple[Ints, Ints]:
    """Row and column of each mated pair, by row; both arguments ascend."""
    first, last = np.searchsorted(asked, who[0]), np.searchsorted(asked, who[-1], side="right")
    near = asked[first:last]
    low = np.searchsorted(who, near)
    count = np.searchsorted(who, near, side="right") - low
    within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    return np.repeat(np.arange(first, last), count), np.repeat(low, count) + within


def _histogram(scores: torch.Tensor, room: torch.Tensor, bins: int) -> torch.Tensor:
    """(bins,) int64 counts; multiplying by a power of two and rounding down are exact."""
    half = bins // 2
    torch.mul(scores, half, out=room).floor_().clamp_(-half, half - 1).add_(half)
    return torch.bincount(room.to(torch.int32).view(-1), minlength=bins)


def _sorted(scores: torch.Tensor) -> torch.Tensor:
    """Sort each row in place; numpy's vector sort is 20 times as fast as torch's on the CPU."""
    if scores.device.type != "cpu":
        return scores.sort(dim=1).values
    scores.numpy().sort(axis=1)
    return scores


def _tiles(
    gallery: Stream, width: int, device: torch.device
) -> Iterator[tuple[torch.Tensor, Ints]]:
    """Cut a gallery anew: (GALLERY, D) unit features, padded with zeros, and n subjects.

    Raises:
        DataError: a block's shape, values or order are not as `Stream` says.
    """
    held: list[tuple[torch.Tensor, Ints]] = []
    rows = 0
    before = np.empty(0, np.int64)

    def joined() -> tuple[torch.Tensor, Ints]:
        features = torch.cat([f for f, _ in held])
        return _padded(features, GALLERY, device, "gallery"), np.concatenate(
            [who for _, who in held]
        )

    for block, names in gallery():
        features, who = _features(block, names, "gallery", width), np.asarray(names)
        if (np.diff(np.append(before, who)) < 0).any():
            raise DataError(
                "Gallery blocks must come in ascending order of subject, so that the images of a "
                "person are together; privbench.large.by_subject puts arrays in that order."
            )
        before = who[-1:] if len(who) else before
        while len(who):
            taken = min(GALLERY - rows, len(who))
            held.append((features[:taken], who[:taken]))
            features, who, rows = features[taken:], who[taken:], rows + taken
            if rows == GALLERY:
                yield joined()
                held, rows = [], 0
    if held:
        yield joined()


def _padded(features: torch.Tensor, rows: int, device: torch.device, what: str) -> torch.Tensor:
    """(rows, D) float32 of unit length on the device; rows of zeros are left, and added below."""
    whole = torch.zeros(rows, features.shape[1], device=device)
    whole[: len(features)] = features.to(device)
    length = torch.linalg.vector_norm(whole, dim=1, keepdim=True)
    if not torch.isfinite(length).all():
        raise DataError(f"Features of the {what} are NaN or infinite; leave those images out.")
    return whole.div_(torch.where(length > 0, length, 1))


def _features(values: Any, subject: Any, what: str, width: int | None = None) -> torch.Tensor:
    """(n, D) tensor of an array or tensor, checked."""
    # Memory maps are read-only, which torch does not know: copied.
    tensor = values if isinstance(values, torch.Tensor) else torch.from_numpy(np.array(values))
    shape, names = tuple(tensor.shape), np.asarray(subject)
    if len(shape) != 2 or not tensor.is_floating_point():
        raise DataError(
            f"Features of the {what} must be float of shape (n, D); got {tensor.dtype} {shape}."
        )
    if width is not None and shape[1] != width:
        raise DataError(
            f"Probes have {width} features and the gallery {shape[1]}; embed both by one model."
        )
    if names.shape != shape[:1] or names.dtype.kind != "i":
        raise DataError(
            f"subject of the {what} must be integers of shape ({shape[0]},); "
            f"got {names.dtype} {names.shape}."
        )
    return tensor


def _cut(rows: Ints, size: int) -> list[Ints]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]
