"""Matching against large galleries: exact counts, whatever the blocks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from sklearn.metrics import average_precision_score, roc_curve

from privbench import large
from privbench.errors import ConfigError, DataError
from privbench.large import (
    Matches,
    average_precision,
    by_subject,
    detection_rate,
    equal_error,
    error_rates,
    expected_hits,
    fnmr_at,
    mates_reached,
    open_set_limit,
)
from privbench.match import match_files, print_matches, rates
from privbench.progress import Task
from privbench.types import Floats, Ints

BINS = 2**8


def unit(features: Floats) -> Floats:
    """Rows of length 1."""
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def assert_same(one: Matches, other: Matches) -> None:
    """Every field is equal, bit by bit."""
    for field in fields(Matches):
        np.testing.assert_array_equal(
            getattr(one, field.name), getattr(other, field.name), field.name
        )


def assert_as_by_hand(found: Matches, scores: Floats, asked: Ints, enrolled: Ints) -> None:
    """Counts, one probe at a time, from the whole score matrix."""
    people = np.unique(enrolled)
    probe = found.probe
    assert (found.images, found.people) == (len(enrolled), len(people))
    for i, row in enumerate(scores):
        own = enrolled == asked[i]
        wrong = row[~own]
        assert found.top[i] == pytest.approx(wrong.max(initial=-np.inf), abs=1e-6)
        best = np.array([row[enrolled == p].max() for p in people if p != asked[i]])
        if not own.any():
            assert np.isnan(found.best[i])
            assert found.people_above[i] == found.people_tied[i] == 0
            continue
        true = row[own].max()
        assert found.best[i] == pytest.approx(true, abs=1e-6)
        assert found.people_above[i] == (best > true).sum()
        assert found.people_tied[i] == (best == true).sum()
        mine = probe == i
        order = np.argsort(found.score[mine])
        mated = np.sort(row[own])
        assert found.score[mine][order] == pytest.approx(mated, abs=1e-6)
        above = (wrong > mated[:, None]).sum(axis=1)
        tied = (wrong == mated[:, None]).sum(axis=1)
        np.testing.assert_array_equal(found.above[mine][order], above)
        np.testing.assert_array_equal(found.tied[mine][order], tied)
        reached = mates_reached(found)[mine] + found.above[mine] + found.tied[mine]
        np.testing.assert_array_equal(reached[order], (row >= mated[:, None]).sum(axis=1))
        expected = average_precision_score(own, row)
        assert average_precision(found)[i] == pytest.approx(expected, abs=1e-12)
    assert len(probe) == (asked[:, None] == enrolled).sum()
    assert (np.diff(probe) >= 0).all()


@st.composite
def lattices(draw: st.DrawFn) -> tuple[Floats, Ints, Floats, Ints]:
    """Features of plus and minus 1: cosines are multiples of 1/8, exact, and tie heavily."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n, g = draw(st.integers(1, 13)), draw(st.integers(1, 60))
    people = draw(st.integers(1, 20))
    signs = rng.choice([-1.0, 1.0], size=(n + g, 16)).astype(np.float32)
    names = rng.integers(0, people, n + g) * 3
    return signs[:n], names[:n], signs[n:], names[n:]


@given(lattices(), st.integers(1, 70), st.sampled_from([(4, 8), (3, 16), (256, 2048)]))
@settings(max_examples=60, deadline=None)
def test_counts_under_heavy_ties(
    data: tuple[Floats, Ints, Floats, Ints], block: int, tile: tuple[int, int]
) -> None:
    """Ranks of people and images, AP and histogram are exact, for every tile and block."""
    probes, asked, gallery, enrolled = data
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(large, "PROBES", tile[0])
        patch.setattr(large, "GALLERY", tile[1])
        found = large.match(probes, asked, by_subject(gallery, enrolled, block), bins=BINS)
    scores = unit(probes.astype(np.float64)) @ unit(gallery.astype(np.float64)).T
    assert_as_by_hand(found, scores, asked, enrolled)
    wrong = scores[asked[:, None] != enrolled]
    expected, _ = np.histogram(wrong, BINS, (-1, 1))
    np.testing.assert_array_equal(found.impostors, expected)


def faces(
    probes: int, gallery: int, people: int, width: int = 512, signs: bool = False
) -> tuple[Floats, Ints, Floats, Ints]:
    """Noisy embeddings: probes of twice as many people as the gallery holds, in no order.

    Only their signs where `signs`: with a width of 4^k cosines are exact in any arithmetic.
    """
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(2 * people, width))
    asked, enrolled = rng.integers(0, 2 * people, probes), rng.integers(0, people, gallery)
    one, other = (
        (centres[who] + 3 * rng.normal(size=(len(who), width))).astype(np.float32)
        for who in (asked, enrolled)
    )
    return (
        (np.sign(one), asked, np.sign(other), enrolled) if signs else (one, asked, other, enrolled)
    )


def test_counts_against_the_whole_matrix() -> None:
    """Several tiles, several images a person, non-mated probes; numpy's float64 for reference."""
    probes, asked, gallery, enrolled = faces(300, 5000, 400, width=1024, signs=True)
    found = large.match(probes, asked, by_subject(gallery, enrolled))
    scores = unit(probes.astype(np.float64)) @ unit(gallery.astype(np.float64)).T
    assert_as_by_hand(found, scores, asked, enrolled)
    assert found.impostors.sum() + len(found.probe) == scores.size


def test_blocks_and_their_source_change_nothing(tmp_path: Path) -> None:
    """Blocks of any size, an array, a memory map, a tensor or a stream: the same bits."""
    probes, asked, gallery, enrolled = faces(150, 2500, 300, width=128)
    gallery = gallery.astype(np.float16)
    order = np.argsort(enrolled, kind="stable")
    path = tmp_path / "gallery.npy"
    np.save(path, gallery)
    mapped = np.load(path, mmap_mode="r")
    np.save(path.with_name("ordered.npy"), gallery[order])
    ordered = np.load(path.with_name("ordered.npy"), mmap_mode="r")
    streams = [
        *(by_subject(gallery, enrolled, block) for block in (3, 1000, 10**6)),
        by_subject(mapped, enrolled),
        by_subject(ordered, enrolled[order]),
        by_subject(torch.from_numpy(gallery), enrolled),
        lambda: iter([(gallery[order][:10], enrolled[order][:10]), (gallery[:0], enrolled[:0]),
                      (gallery[order][10:], enrolled[order][10:])]),
    ]  # fmt: skip
    first, *others = (large.match(probes, asked, stream) for stream in streams)
    for other in others:
        assert_same(first, other)


def test_the_order_of_probes_is_kept() -> None:
    """Shuffled probes give shuffled rows: nothing depends on the neighbours."""
    probes, asked, gallery, enrolled = faces(700, 2500, 100, width=64)
    shuffle = np.random.default_rng(1).permutation(len(asked))
    stream = by_subject(gallery, enrolled)
    one = large.match(probes, asked, stream)
    other = large.match(probes[shuffle], asked[shuffle], stream)
    for name in ("subject", "top", "best", "people_above", "people_tied"):
        np.testing.assert_array_equal(getattr(one, name)[shuffle], getattr(other, name))
    np.testing.assert_array_equal(average_precision(one)[shuffle], average_precision(other))
    np.testing.assert_array_equal(one.impostors, other.impostors)


def test_a_copied_photograph_ties() -> None:
    """An impostor's image that is a mate's, at another place of another tile, scores the same."""
    probes, asked, gallery, enrolled = faces(300, 6000, 500)
    copied = np.concatenate([gallery, gallery[::-1]])
    names = np.concatenate([enrolled, 10_000 + enrolled[::-1]])
    found = large.match(probes, asked, by_subject(copied, names))
    assert found.mated.sum() > 100
    assert (found.people_tied[found.mated] >= 1).all()
    assert (found.tied >= 1).all()
    assert found.tied.mean() < 1.01  # other scores coincide now and then


def test_error_rates_against_scikit_learn() -> None:
    """The DET curve at bin edges is sklearn's, and brackets hold what all pairs say."""
    probes, asked, gallery, enrolled = faces(400, 800, 60, width=1024, signs=True)
    found = large.match(probes, asked, by_subject(gallery, enrolled), bins=BINS)
    scores = (unit(probes.astype(np.float64)) @ unit(gallery.astype(np.float64)).T).ravel()
    mated = (asked[:, None] == enrolled).ravel()
    fpr, tpr, at = roc_curve(mated, scores, drop_intermediate=False)
    threshold, fmr, fnmr = error_rates(found)
    place = np.searchsorted(-at, -threshold, side="right") - 1  # the last that is high enough
    np.testing.assert_allclose(fmr, fpr[place], atol=1e-12)
    np.testing.assert_allclose(fnmr, 1 - tpr[place], atol=1e-12)
    gap = 1 - tpr - fpr
    b = int((gap <= 0).argmax())
    exact = fpr[b - 1] + (fpr[b] - fpr[b - 1]) * gap[b - 1] / (gap[b - 1] - gap[b])
    eer = equal_error(found)
    assert eer.low - 1e-12 <= exact <= eer.high + 1e-12
    assert eer.high - eer.low < 0.03
    for target in (0.1, 0.01, 0.001):
        limit, bracket = fnmr_at(found, target)
        least = (1 - tpr)[fpr <= target].min()
        assert bracket.low - 1e-12 <= least <= bracket.high + 1e-12
        assert bracket.high == pytest.approx((scores[mated] < limit).mean())
        assert (scores[~mated] >= limit).mean() <= target
        assert (scores[~mated] >= limit - 2 / BINS).mean() > target


def test_more_bins_close_the_bracket() -> None:
    """The bound shrinks to single scores, and the rough bracket holds the fine one."""
    probes, asked, gallery, enrolled = faces(300, 900, 60, width=64)
    stream = by_subject(gallery, enrolled)
    rough, fine = (large.match(probes, asked, stream, bins=b) for b in (2**6, 2**20))
    for found in (equal_error, lambda m: fnmr_at(m, 0.01)[1]):
        wide, narrow = found(rough), found(fine)
        assert wide.low <= narrow.low <= narrow.high <= wide.high
        assert narrow.high - narrow.low <= 2 / len(fine.score)


@given(st.integers(0, 2**32), st.sampled_from([0.05, 0.1, 0.3]))
@settings(max_examples=60, deadline=None)
def test_open_set_against_brute_force(seed: int, fpir: float) -> None:
    """DIR is the best over all thresholds that keep the FPIR, ties and weights included."""
    rng = np.random.default_rng(seed)
    mated = rng.random(120) < 0.5
    score, hit = rng.integers(0, 12, 120) / 8, rng.choice([0, 0.5, 1], 120)
    weights = np.stack([np.ones(120), rng.integers(0, 4, 120)]).astype(np.float64)
    found = detection_rate(mated, score, np.where(mated, hit, np.nan), weights, fpir)
    for w, value in zip(weights, found, strict=True):
        times = w.astype(int)
        own, top = (np.repeat(score[m], times[m]) for m in (mated, ~mated))
        hits = np.repeat(hit[mated], times[mated])
        levels = [t for t in np.unique(score) if (top > t).mean() <= fpir]
        expected = max((hits * (own > t)).mean() for t in levels)
        if len(top) * fpir < 1:
            assert np.isnan(value)
        elif (top > min(top)).mean() > fpir:  # else the limit is below every score of these
            assert value == pytest.approx(expected, abs=1e-12)


def test_open_set_of_a_gallery() -> None:
    """Limits and DIR from matches equal those of the whole matrix, by person."""
    probes, asked, gallery, enrolled = faces(400, 900, 60, width=64)
    found = large.match(probes, asked, by_subject(gallery, enrolled))
    scores = unit(probes.astype(np.float64)) @ unit(gallery.astype(np.float64)).T
    person = np.stack([scores[:, enrolled == p].max(axis=1) for p in range(60)], axis=1)
    mated = asked < 60
    first, best = person.argmax(axis=1), person.max(axis=1)
    np.testing.assert_array_equal(found.mated, mated)
    hit = expected_hits(found, np.array([1, 5, 60]))
    np.testing.assert_array_equal(hit[mated, 0], first[mated] == asked[mated])
    place = (-person).argsort(axis=1).argsort(axis=1)[mated, asked[mated]]
    np.testing.assert_array_equal(hit[mated, 1], place < 5)
    assert (hit[mated, 2] == 1).all()
    assert np.isnan(hit[~mated]).all()
    for fpir in (0.02, 0.2):
        limit = np.sort(best[~mated])[::-1][int(fpir * (~mated).sum())]
        expected = ((first == asked) & (best > limit))[mated].mean()
        ones = np.ones((1, len(asked)))
        score = np.where(mated, found.best, found.top)
        assert detection_rate(mated, score, hit[:, 0], ones, fpir)[0] == pytest.approx(expected)
        assert open_set_limit(found.top[~mated], ones[:, ~mated], fpir) == pytest.approx(limit)


def test_too_few_for_a_rate() -> None:
    """No impostors, no mated comparisons or no alarm to expect: NaN, not a number."""
    probes, asked, gallery, enrolled = faces(20, 50, 10, width=16)
    stream = by_subject(gallery, enrolled)
    strangers = large.match(probes, asked + 1000, stream)
    assert np.isnan([equal_error(strangers).low, fnmr_at(strangers, 0.1)[0]]).all()
    assert np.isnan(average_precision(strangers)).all()
    assert not strangers.mated.any()
    alone = large.match(probes, asked * 0, by_subject(gallery, enrolled * 0))
    assert np.isnan([equal_error(alone).low, fnmr_at(alone, 0.1)[0]]).all()
    assert (alone.top == -np.inf).all()
    assert (expected_hits(alone, np.array([1])) == 1).all()
    assert alone.impostors.sum() == 0
    assert np.isnan(open_set_limit(np.arange(9.0), np.ones((1, 9)), 0.1)).all()
    assert np.isnan(open_set_limit(np.empty(0), np.ones((2, 0)), 0.1)).all()


def test_length_does_not_matter_and_a_zero_vector_scores_zero() -> None:
    """Scores are cosines; a face without features matches everyone alike."""
    probes, asked, gallery, enrolled = faces(30, 80, 10, width=16)
    one = large.match(probes, asked, by_subject(gallery, enrolled))
    other = large.match(probes * 4, asked, by_subject(gallery * 0.5, enrolled))
    assert_same(one, other)
    nothing = large.match(probes * 0, asked, by_subject(gallery, enrolled))
    assert (nothing.top == 0).all()
    mated = nothing.mated
    assert (nothing.people_tied[mated] == nothing.people - 1).all()


def test_progress_counts_the_gallery() -> None:
    """One task of G images, advanced to its end."""

    class Watch:
        total = done = 0

        @contextmanager
        def task(self, label: str, total: int, unit: str = "images") -> Iterator[Task]:
            self.total = total
            yield self

        def advance(self, n: int = 1) -> None:
            self.done += n

        def note(self, text: str) -> None:
            raise AssertionError(text)

    probes, asked, gallery, enrolled = faces(20, 5000, 10, width=16)
    watch = Watch()
    large.match(probes, asked, by_subject(gallery, enrolled), reporter=watch)
    assert watch.total == watch.done == 5000


def test_what_cannot_be_matched() -> None:
    """Each message says what was expected and what was got."""
    probes, asked, gallery, enrolled = faces(20, 50, 10, width=16)
    stream = by_subject(gallery, enrolled)
    broken = gallery.copy()
    broken[7, 3] = np.nan
    once = iter([(gallery, np.sort(enrolled))])
    cases = [
        (probes, asked, by_subject(broken, enrolled), "gallery are NaN or infinite"),
        (probes * np.inf, asked, stream, "probes are NaN or infinite"),
        (probes[:, :8], asked, stream, "8 features and the gallery 16"),
        (probes[0], asked, stream, r"float of shape \(n, D\)"),
        (probes.astype(int), asked, stream, r"got torch.int64"),
        (probes, asked[:5], stream, r"shape \(20,\); got int64 \(5,\)"),
        (probes, asked.astype(float), stream, "got float64"),
        (probes[:0], asked[:0], stream, "probes are empty"),
        (probes, asked, by_subject(gallery[:0], enrolled[:0]), "gallery is empty"),
        (probes, asked, lambda: iter([(gallery, np.sort(enrolled)[::-1])]), "ascending order"),
        (probes, asked, lambda: once, "changed between two passes"),
    ]
    for one, names, other, message in cases:
        with pytest.raises(DataError, match=message):
            large.match(one, names, other)
    with pytest.raises(DataError, match="50 rows of features and 40 subjects"):
        by_subject(gallery, enrolled[:40])
    for bins in (0, 1, 100):
        with pytest.raises(DataError, match="power of two"):
            large.match(probes, asked, stream, bins=bins)


def saved(path: Path, features: Floats, subject: Ints) -> Path:
    """A file of embeddings."""
    save_file({"features": torch.from_numpy(features), "subject": torch.from_numpy(subject)}, path)
    return path


def test_two_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Files give what arrays give, and the tables show it."""
    probes, asked, gallery, enrolled = faces(300, 3000, 200, width=64)
    gallery = gallery.astype(np.float16)
    one, other = tmp_path / "probes.safetensors", tmp_path / "gallery.safetensors"
    saved(one, probes, asked)
    saved(other, gallery, enrolled)
    found = match_files(one, other, device="cpu")
    assert_same(found, large.match(probes, asked, by_subject(gallery, enrolled)))

    numbers = rates(found, (1, 5, 1000), (0.1, 0.001), (0.01, 1e-9))
    names = [e.name for e in numbers.identification]
    assert names == ["rank-1", "rank-5", "mAP (images)", "DIR at FPIR 0.1", "DIR at FPIR 0.001"]
    rank1, _, mean, detected, few = numbers.identification
    mated = found.mated
    assert rank1.value == pytest.approx((found.people_above[mated] == 0).mean())
    assert rank1.chance == 1 / found.people
    assert rank1.clusters == len(np.unique(asked[mated]))
    assert mean.value == pytest.approx(np.nanmean(average_precision(found)))
    assert rank1.low is not None
    assert rank1.high is not None
    assert rank1.low < rank1.value < rank1.high
    assert detected.value is not None
    assert detected.value <= rank1.value
    assert few.value is None
    missed, blank = numbers.verification
    assert missed.value == pytest.approx(numbers.brackets[0].high)
    assert missed.value == pytest.approx((found.score < numbers.thresholds[0]).mean())
    assert blank.value is None
    print_matches(found, numbers)
    printed = capsys.readouterr().out
    for text in (f"{mated.sum()} mated", "3,000 images of 200 people", f"{rank1.value:.4f} [",
                 f"{numbers.eer.middle:.4f}", "DIR at FPIR 0.001", "3.1e-05"):  # fmt: skip
        assert text in printed
    assert rates(found, (1,), (), ()).verification == ()
    for ranks, fpirs, fmrs in (((0,), (), ()), ((1,), (1.0,), ()), ((1,), (), (0.0,))):
        with pytest.raises(ConfigError, match="Expected ranks of 1 or more"):
            rates(found, ranks, fpirs, fmrs)


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    """Missing tensors, wrong types and strangers are told before anything is computed."""
    probes, asked, gallery, enrolled = faces(20, 50, 10, width=16)
    good = saved(tmp_path / "good.safetensors", gallery, enrolled)
    other = tmp_path / "other.safetensors"

    def refused(message: str) -> None:
        with pytest.raises(DataError, match=message):
            match_files(other, good)

    refused("cannot be read as a safetensors file")
    other.write_bytes(b"not a safetensors file")
    refused("cannot be read as a safetensors file")
    save_file({"embeddings": torch.from_numpy(probes)}, other)
    refused(r"features and subject missing, found \['embeddings'\]")
    save_file({"features": torch.zeros(2, 16), "subject": torch.zeros(2)}, other)
    refused("int64 of shape .n,.; got F32")
    saved(other, probes, asked - 5000)
    refused("0 or more; got -")
    saved(other, probes, asked + 5000)
    refused("one mated probe at least")
    saved(other, probes[:, :8].copy(), asked)
    refused("8 features and the gallery 16")
    saved(other, probes, asked)
    saved(good, gallery[:20], enrolled)
    refused("one subject for each row")
