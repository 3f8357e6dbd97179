"""Identity-disjoint splits."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from privbench.data import PRIMARY_TRIAL, PROTOCOLS, get_preset, split, trials
from privbench.errors import ConfigError, DataError
from privbench.registry import load_registry, make_config


def dataset(**settings: str):  # type: ignore[no-untyped-def]
    """The embedded data set."""
    spec = load_registry().get("dataset", "synthfaces").spec
    return spec.build(make_config(spec, settings))


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_no_identity_plays_two_parts(name: str) -> None:
    """Pitfall 1: attacker-train, attacker-validation, evaluation, background and non-mated
    share no identity, and gallery and probes share no image."""
    data, preset = dataset(), get_preset(name)
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
    first, second = (split(data, get_preset("quick")).parts() for _ in range(2))
    for part, rows in first.items():
        np.testing.assert_array_equal(rows, second[part])
        assert set(data.population[rows]) == set(data.population)


def test_too_small_a_data_set_says_so(faces: Path) -> None:
    """A data set with too few identities is refused with both numbers."""
    with pytest.raises(DataError, match=r"needs 304 identities.*has 28"):
        split(dataset(path=str(faces)), get_preset("quick"))
    with pytest.raises(ConfigError, match="Did you mean quick"):
        get_preset("quik")


def test_trials_cover_the_reference_protocols() -> None:
    """Full, Few and Single-Ref with and without the source, and the cross-image trial."""
    names = [t.name for t in trials(get_preset("quick"))]
    assert names[0] == PRIMARY_TRIAL
    assert set(names) == {
        "full-ref", "few-ref", "single-ref", "full-ref+source", "few-ref+source",
        "single-ref+source", "cross",
    }  # fmt: skip
