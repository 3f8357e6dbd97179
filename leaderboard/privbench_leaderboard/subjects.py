"""What records speak of: which of them mean the same anonymizer, and what it is called."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

from privbench_leaderboard.records import Entry, Plugin, Release


def subject_of(entry: Entry) -> str:
    """What makes two records speak of the same anonymizer: plugin, dtype and kind of release."""
    return canonical([ref(entry.anonymizer), entry.dtype, entry.release.model_dump()])


def ref(plugin: Plugin) -> str:
    """What makes two plugins the same: all that changes outputs, by their version's promise.

    The code hash and the release are left out, or a comment edited between two attacks would
    split the worst case; so is what only describes.
    """
    return canonical(plugin.model_dump(exclude={"code", "distribution", "summary", "licence"}))


def names_of(entries: Iterable[Entry]) -> dict[str, str]:
    """Subject -> id of the anonymizer and what tells it from others of its id."""
    found = {subject_of(e): e for e in entries}
    labels = labels_of(e.anonymizer for e in found.values())
    names = {s: labels[ref(e.anonymizer)] + _drawn(e.release) for s, e in found.items()}
    many = Counter(names.values())
    return {
        s: f"{name} (dtype={found[s].dtype})" if many[name] > 1 else name
        for s, name in names.items()
    }


def labels_of(plugins: Iterable[Plugin]) -> dict[str, str]:
    """Reference of a plugin -> its id and what tells it from others of the same id."""
    facts = {ref(p): (p.id, _facts(p)) for p in plugins}
    labels = {}
    for reference, (name, mine) in facts.items():
        others = [f for other, f in facts.values() if other == name]
        keys = sorted({k for f in others for k in f})
        shown = [
            f"{k}={mine[k]}"  # one that a record is too old to have tells nothing apart
            for k in keys
            if k in mine and len({f[k] for f in others if k in f}) > 1
        ]
        labels[reference] = f"{name} ({', '.join(shown)})" if shown else name
    return labels


def slug_of(entry: Entry) -> str:
    """File name of the anonymizer's page: readable, safe on every file system, one a subject.

    It stays the same whatever else is on the board.
    """
    readable = re.sub(r"[^a-z0-9]+", "-", entry.anonymizer.id.lower())[:60].strip("-")
    digest = hashlib.sha256(subject_of(entry).encode()).hexdigest()[:8]
    return f"{readable or 'anonymizer'}-{digest}"


def canonical(value: Any) -> str:
    """One JSON text for equal values."""
    return json.dumps(value, sort_keys=True, ensure_ascii=True)


def _drawn(release: Release) -> str:
    """What is unusual about a release."""
    draws = [f"{release.draws} draws"] if release.draws > 1 else []
    seeds = ["one seed for all images"] if release.fixed_seed else []
    return f" ({', '.join(draws + seeds)})" if draws or seeds else ""


def _facts(plugin: Plugin) -> dict[str, str]:
    hashed = {f"weights {name}": sha[:8] for name, sha in plugin.weights.items()}
    settings = {k: v if isinstance(v, str) else canonical(v) for k, v in plugin.config.items()}
    return settings | hashed | {"version": str(plugin.version)}
