"""Every built-in plugin keeps the contract; what it cannot keep is named, with the reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from privbench.registry import load_registry
from privbench.spec import KINDS, Kind
from privbench.testing import Check, checks_of, describe

pytestmark = pytest.mark.usefixtures("one_thread")

BASELINE = (
    "beside each release stands one of another person, chosen by the order of the people: what a "
    "release that ignores its source would get; by the contract a comparison with other samples "
    "is part of the row"
)
FROM_OTHERS = (
    "a row holds what was learnt from the other samples, as the contract of `Metric.rows` allows"
)
GUESS = "a control that looks at no image: it guesses by the probe's id and the reference's place"

LONG = (
    "its summary is older than the limit for attacks, and its file may not change: the hashes of "
    "committed records rest on it"
)

EXPECTED: Mapping[tuple[Kind, str], Mapping[str, str]] = {
    ("anonymizer", "watermark-hidden"): {
        "source_hidden": "a diagnostic: it releases the photo, with an overlay of 1 % on purpose",
    },
    ("attack", "random-guess"): {
        "gallery_order": GUESS,
        "companions": GUESS,
        "identity_withheld": GUESS,
    },
    ("attack", "inversion-ldm"): {
        "finds_sources": "its smoke settings train for 4 steps and denoise in one: it paints noise",
    },
    ("attack", "inversion-linear"): {"description": LONG},
    ("attack", "inversion-optimise"): {"description": LONG},
    ("metric", "conditions"): {
        "order": BASELINE,
        "shards": BASELINE,
        "direction": "depth-error@other is that baseline, and is no worse where all is kept",
    },
    ("metric", "landmarks"): {"order": BASELINE, "shards": BASELINE},
    ("metric", "downstream"): {"shards": FROM_OTHERS},
    ("metric", "linkability"): {"shards": FROM_OTHERS},
    ("metric", "frechet"): {
        "repeated_rows": "its bias falls with the number of people, and a row that is repeated is "
        "no other person: docs/metrics.md says how the distance allows for that",
    },
}
"""Checks that a built-in plugin cannot pass, and why."""

SLOW = {
    "background-reid": "contrastive-reid on images cut to the background",
    "contrastive-paper": "contrastive-reid with a ResNet-50",
    "silhouette-reid": "contrastive-reid on outlines",
}
"""Plugins whose behaviour only `-m study` checks, by id, and what stands for them otherwise."""

NEEDS_FILE = ("folder", "hf", "lpips", "reconstruction-lpips", "yunet")
"""Plugins whose smoke settings name no file, and that need one."""

REGISTERED = [r for kind in KINDS for r in load_registry().of_kind(kind) if not r.unavailable]
BUILT_IN = [r.spec for r in REGISTERED if r.distribution.split()[0] == "privbench"]


def cases() -> Iterator[object]:
    """Every check of every built-in plugin."""
    for spec in BUILT_IN:
        plain = {function.__name__ for function in describe.checks(spec)}
        expected = EXPECTED.get((spec.kind, spec.id), {})
        for check in checks_of(spec):
            behaves = check.function.__name__ not in plain
            if behaves and spec.id in NEEDS_FILE:
                continue
            marks = [pytest.mark.study] if behaves and spec.id in SLOW else []
            if reason := expected.get(check.name):
                marks.append(pytest.mark.xfail(reason=reason, strict=True))
            yield pytest.param(check, id=f"{spec.kind}-{spec.id}-{check.name}", marks=marks)


@pytest.mark.parametrize("check", list(cases()))
def test_built_in_plugins_keep_the_contract(check: Check) -> None:
    """Every installed plugin passes every check that its kind and tags call for."""
    check()
