"""Identity-disjoint splits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from privbench.data import PRIMARY_TRIAL, PROTOCOLS, get_preset, split, trials
from privbench.errors import ConfigError, DataError
from privbench.registry import load_registry, make_config


def dataset(**settings: str):  # type: ignore[no-untyped-def]
    """The embedded data set."""
    spec = load_registry().get("dataset", "synthfaces").spec
    return spec.build(make_config(spec, settings))


@dataclass(frozen=True)
class Photos:
    """A data set of given photo counts; its images are never looked at."""

    counts: tuple[int, ...]
    name: str = "photos"
    licence: str = ""
    digest: str = ""

    @property
    def subject(self) -> np.ndarray:
        """Person 3 i has counts[i] photos."""
        return np.repeat(3 * np.arange(len(self.counts)), self.counts)

    @property
    def keys(self) -> tuple[str, ...]:
        """Numbers."""
        return tuple(map(str, range(sum(self.counts))))

    @property
    def population(self) -> np.ndarray:
        """A single one, which no preset knows."""
        return np.full(sum(self.counts), "town")

    def pixels(self, index: np.ndarray) -> torch.Tensor:
        """Black images."""
        return torch.zeros(len(index), 3, 8, 8, dtype=torch.uint8)


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_no_identity_plays_two_parts(name: str) -> None:
    """Pitfall 1: attacker-train, attacker-validation, evaluation, background and non-mated
    share no identity, and gallery and probes share no image."""
    data = dataset()
    preset = get_preset(name, data)
    parts = split(data, preset).parts()
    people = {part: set(data.subject[rows].tolist()) for part, rows in parts.items()}
    assert people["gallery"] == people["probes"] == people["cross-gallery"]
    for a, b in combinations(("background", "attacker-train", "attacker-validation", "probes",
                              "non-mated"), 2):  # fmt: skip
        assert not people[a] & people[b], (a, b)
    assert not set(parts["gallery"]) & set(parts["probes"])
    assert len(people["probes"]) == preset.evaluation
    assert len(parts["gallery"]) == preset.evaluation * preset.references
    assert len(parts["probes"]) == preset.evaluation * preset.probes


def test_split_is_fixed_by_the_protocol() -> None:
    """The same people are drawn every time, from every population."""
    data = dataset()
    first, second = (split(data, PROTOCOLS["quick"]).parts() for _ in range(2))
    for part, rows in first.items():
        np.testing.assert_array_equal(rows, second[part])
        assert set(data.population[rows]) == set(data.population)


def test_too_small_a_data_set_says_so(faces: Path) -> None:
    """A data set with too few identities is refused with both numbers."""
    with pytest.raises(DataError, match=r"needs 304 people .* with 7 images.*has 0 .* of 28"):
        split(dataset(path=str(faces)), PROTOCOLS["quick"])
    with pytest.raises(ConfigError, match="Did you mean quick"):
        get_preset("quik", dataset(path=str(faces)))


def test_populations_are_named_where_they_shut_people_out(faces: Path) -> None:
    """People of a population that the preset does not know are not short of photos."""
    data = Photos((4,) * 40)
    known = replace(PROTOCOLS["smoke"], populations=("town",))
    with pytest.raises(DataError, match=r"needs 900 people of town with 3 images"):
        split(data, replace(known, evaluation=882))


def test_auto_is_quick_where_there_are_people_enough() -> None:
    """The embedded data set runs quick; one person fewer than it needs runs fit."""
    needed = PROTOCOLS["quick"].identities
    assert get_preset("auto", dataset()).name == "quick"
    assert get_preset("auto", Photos((7,) * needed)).name == "quick"
    assert get_preset("auto", Photos((7,) * (needed - 1) + (6,))).name == "fit"


def test_fit_uses_everybody_and_every_image() -> None:
    """40 people with 10 photos, as in ORL."""
    data = Photos((10,) * 40)
    preset = get_preset("fit", data)
    parts = split(data, preset).parts()
    assert preset.identities == 40
    assert preset.evaluation == 16
    assert len(parts["probes"]) == 16 * 5
    rows = np.concatenate([r for name, r in parts.items() if name != "cross-gallery"])
    assert len(np.unique(rows)) == len(rows) == 400 - 4 * 5  # strangers are only probed


@given(st.lists(st.integers(1, 14), min_size=1, max_size=80))
def test_fit_is_disjoint_whatever_the_counts(counts: list[int]) -> None:
    """Any data set is split without overlap, or refused with the reason."""
    data = Photos(tuple(counts))
    try:
        preset = get_preset("fit", data)
    except DataError as error:
        assert "at least 10" in str(error)  # noqa: PT017 - the other branch is the test
        assert sum(c >= 2 for c in counts) < 10
        return
    parts = split(data, preset).parts()
    people = {part: set(data.subject[rows].tolist()) for part, rows in parts.items()}
    assert all(people.values())
    for a, b in combinations(("background", "attacker-train", "attacker-validation", "probes",
                              "non-mated"), 2):  # fmt: skip
        assert not people[a] & people[b], (a, b)
    assert sum(len(v) for k, v in people.items() if k not in ("gallery", "cross-gallery")) == (
        preset.identities
    )
    assert preset.references >= preset.probes >= 1


def test_people_with_too_few_images_take_no_part() -> None:
    """One photo cannot be both probe and reference."""
    data = Photos((1, 1, 1) + (6,) * 20)
    people = data.subject[np.concatenate([*split(data, get_preset("fit", data)).parts().values()])]
    assert not set(people.tolist()) & {0, 3, 6}


def test_trials_cover_the_reference_protocols() -> None:
    """Full, Few and Single-Ref with and without the source, and the cross-image trial."""
    names = [t.name for t in trials(PROTOCOLS["quick"])]
    assert names[0] == PRIMARY_TRIAL
    assert set(names) == {
        "full-ref", "few-ref", "single-ref", "full-ref+source", "few-ref+source",
        "single-ref+source", "cross",
    }  # fmt: skip
