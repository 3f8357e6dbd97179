"""Who is who in membership inference: identity-disjoint populations of a data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from privbench.data import AUTO, FIT, Dataset
from privbench.errors import ConfigError, DataError, did_you_mean
from privbench.types import Ints

SEEN: Final = "seen"
"""Photographs that a target may be trained on."""
UNSEEN: Final = "unseen"
"""Photographs of the same population that no target is trained on."""
UNPUBLISHED: Final = "unpublished"
"""More of those, which stand beside a suspect set in a test of the whole set."""
AUXILIARY: Final = "auxiliary"
"""The attacker's own, of another population."""
CALIBRATION: Final = "calibration"
"""The attacker's own, of other people of that population: choices and thresholds."""
FOREIGN: Final = "foreign"
"""Photographs of the attacker's population that neither target nor attacker has."""
WILD: Final = "wild"
"""Photographs of a third population."""

ATTACKERS: Final = (AUXILIARY, CALIBRATION)
QUERIES: Final = (SEEN, UNSEEN, UNPUBLISHED, FOREIGN, WILD)


@dataclass(frozen=True, slots=True)
class MembershipPreset:
    """How many people play which part. Versioned, as `privbench.data.Preset` is.

    Attributes:
        name: preset.
        version: raised when any number below changes.
        target: population of members, of those who are none, and of the unpublished set.
        auxiliary: population of the attacker's own photographs.
        wild: the third population.
        people: part -> how many.
        images: of each person.
        resamples: bootstrap resamples.
    """

    name: str
    version: int
    target: str
    auxiliary: str
    wild: str
    people: Mapping[str, int]
    images: int
    resamples: int = 2000

    def population(self, part: str) -> str:
        """Where the people of a part come from."""
        if part in (SEEN, UNSEEN, UNPUBLISHED):
            return self.target
        return self.wild if part == WILD else self.auxiliary


def _preset(name: str, people: tuple[int, ...], images: int, resamples: int) -> MembershipPreset:
    parts = (SEEN, UNSEEN, UNPUBLISHED, AUXILIARY, CALIBRATION, FOREIGN, WILD)
    counts = dict(zip(parts, people, strict=True))
    return MembershipPreset(name, 1, "campus-a", "campus-b", "wild", counts, images, resamples)


MEMBERSHIP_PROTOCOLS: Mapping[str, MembershipPreset] = {
    preset.name: preset
    for preset in (
        _preset("smoke", (4, 4, 2, 4, 2, 2, 2), 3, 200),
        _preset("quick", (45, 45, 30, 50, 20, 50, 50), 5, 2000),
        _preset("full", (1000, 1000, 500, 1000, 200, 800, 1000), 1, 2000),
    )
}
"""`quick` is for the shipped faces; `full`, one portrait of each person as in the paper, for those
of `python -m privbench_plugins.synthfaces.build portraits`."""

MEMBERS, NON_MEMBERS, OWN = "members", "non-members", "auxiliary"
"""Populations of a data set that says itself who is a member: an audit."""


def membership_preset(name: str, data: Dataset) -> MembershipPreset:
    """A preset by name. `fit` is for data that say who is a member; `auto` is the largest one that
    the data allow.

    Raises:
        ConfigError: no such protocol.
        DataError: too few people for an audit.
    """
    if name not in (AUTO, FIT, *MEMBERSHIP_PROTOCOLS):
        raise ConfigError(
            f"There is no protocol {name!r} for membership inference. "
            f"{did_you_mean(name, (AUTO, FIT, *MEMBERSHIP_PROTOCOLS))}"
        )
    if name in MEMBERSHIP_PROTOCOLS:
        return MEMBERSHIP_PROTOCOLS[name]
    if name == FIT or MEMBERS in data.population:
        return _audit(data)
    for preset in reversed(list(MEMBERSHIP_PROTOCOLS.values())):
        if not _lacking(data, preset):
            return preset
    raise DataError(f"{data.name} is no data set for membership inference: {_needed(data)}")


def _needed(data: Dataset) -> str:
    found = ", ".join(sorted(set(data.population.tolist())))
    return (
        f"expected the populations {MEMBERS}, {NON_MEMBERS} and {OWN} (a folder of each), or those "
        f"of synthfaces; got {found or 'none'}."
    )


def _audit(data: Dataset) -> MembershipPreset:
    """All members and non-members; the attacker's photographs are split 4 to 1, and one third of
    the non-members is the unpublished set."""
    people = {p: len(np.unique(data.subject[data.population == p]))
              for p in (MEMBERS, NON_MEMBERS, OWN)}  # fmt: skip
    if not all(people.values()):
        raise DataError(f"{data.name} cannot be audited: {_needed(data)}")
    for population, least in ((MEMBERS, 4), (NON_MEMBERS, 6), (OWN, 5)):
        if people[population] < least:
            raise DataError(
                f"An audit needs {least} people or more among {population}; {data.name} has "
                f"{people[population]}."
            )
    unpublished, held_out = people[NON_MEMBERS] // 3, people[OWN] // 5
    counts = {
        SEEN: people[MEMBERS],
        UNSEEN: people[NON_MEMBERS] - unpublished,
        UNPUBLISHED: unpublished,
        AUXILIARY: people[OWN] - held_out,
        CALIBRATION: held_out,
    }
    return MembershipPreset(FIT, 1, "", OWN, "", counts, 0)


def populate(data: Dataset, preset: MembershipPreset, fold: int = 0) -> dict[str, Ints]:
    """Part -> rows of the data set; no person plays two parts.

    Args:
        fold: which draw of members, non-members and the unpublished set: retrained targets have
            members of their own. The attacker's people and the third population stay. The draw
            depends on the preset's name and version and on nothing else.

    Raises:
        DataError: too few people.
    """
    if lacking := _lacking(data, preset):
        raise DataError(
            f"Protocol {preset.name} needs {lacking}. `privbench describe synthfaces` and "
            "docs/membership.md say which data have them."
        )
    names = {
        population: f"{preset.name}/{preset.version}/{population}/{number}"
        for population, number in (
            (p, fold if p == _population(preset, SEEN) else 0) for p in _populations(preset)
        )
    }
    rngs = {p: np.random.default_rng(int.from_bytes(n.encode(), "big")) for p, n in names.items()}
    left = {p: rng.permutation(_people(data, p, preset)) for p, rng in rngs.items()}
    rows: dict[str, Ints] = {}
    for part, count in preset.people.items():
        population = _population(preset, part)
        rng = rngs[population]
        drawn, left[population] = np.split(left[population], [count])
        mine = [
            rng.permutation(np.flatnonzero(data.subject == person))[: preset.images or None]
            for person in drawn
        ]
        rows[part] = np.concatenate(mine) if mine else np.empty(0, np.int64)
    return rows


def _population(preset: MembershipPreset, part: str) -> str:
    """As `MembershipPreset.population`; in an audit members and non-members are two."""
    if preset.name == FIT and part in (SEEN, UNSEEN, UNPUBLISHED):
        return MEMBERS if part == SEEN else NON_MEMBERS
    return preset.population(part)


def _populations(preset: MembershipPreset) -> list[str]:
    return list(dict.fromkeys(_population(preset, part) for part in preset.people))


def _people(data: Dataset, population: str, preset: MembershipPreset) -> Ints:
    """People of a population with enough images, in ascending order."""
    found = np.unique_counts(data.subject[data.population == population])
    return np.asarray(found.values[found.counts >= max(preset.images, 1)])


def _lacking(data: Dataset, preset: MembershipPreset) -> str:
    """What a data set has too little of; "" where nothing is."""
    for population in _populations(preset):
        need = sum(n for part, n in preset.people.items()
                   if _population(preset, part) == population)  # fmt: skip
        have = len(_people(data, population, preset))
        if have < need:
            images = f" with {preset.images} images each" if preset.images > 1 else ""
            return f"{need} people of {population}{images}; {data.name} has {have}"
    return ""
