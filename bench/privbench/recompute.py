"""The numbers of a record anew, from its evidence alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, cast

import numpy as np

from privbench.bundle import evidence_in, rows_in
from privbench.curves import curves
from privbench.data import FIT, LARGEST_FIT, PRIMARY_TRIAL, PROTOCOLS, Preset, fitted_preset
from privbench.errors import PrivbenchError, RecordError
from privbench.keys import stage_seed
from privbench.paired import rank1_hits
from privbench.record import Curve, Hits, PluginRef, Record
from privbench.registry import Registry, make_config
from privbench.results import measured
from privbench.stats import bootstrap
from privbench.store import Arrays
from privbench.types import Estimate, Floats, Ints, Metric, Output

CURVED = (PRIMARY_TRIAL, f"{PRIMARY_TRIAL}+source", "cross")
"""Trials whose curves a record holds."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """What a record claims, recomputed.

    Attributes:
        estimates: as `Record.estimates`, without metrics that cannot be had here.
        utility: as `Record.utility`.
        inversion: as `Record.inversion`.
        hits: rank-1 of each probe.
        curves: as `Record.curves`.
        missing: metric -> why its numbers could not be recomputed.
    """

    estimates: dict[str, dict[str, list[Estimate]]]
    utility: dict[str, list[Estimate]]
    inversion: dict[str, list[Estimate]]
    hits: Hits
    curves: dict[str, dict[Literal["cmc", "roc"], Curve]]
    missing: Mapping[str, str]


def preset_of(record: Record) -> Preset:
    """The protocol of a record.

    Raises:
        RecordError: not one of this release, or its numbers are not those of its version.
    """
    body = record.protocol
    label = f"{body.get('name')} v{body.get('version')}"
    try:
        preset = Preset(**{**body, "populations": tuple(body["populations"])})
    except (TypeError, KeyError) as error:
        raise RecordError(f"The protocol {label} is incomplete: {error}.") from error
    counts = {k: v for k, v in asdict(preset).items() if k not in ("name", "populations")}
    odd = [k for k, v in counts.items() if type(v) is not int or not 0 <= v < 10**6]
    if odd:
        raise RecordError(f"The protocol {label} must count {', '.join(odd)} from 0 to 999,999.")
    if preset.name == FIT:
        if preset.train_images > LARGEST_FIT:
            raise RecordError(f"The protocol {label} uses at most {LARGEST_FIT} images a person.")
        people = np.repeat(np.arange(preset.identities), preset.train_images)
        known = fitted_preset(_People("the data set", people))  # type: ignore[arg-type]
    elif preset.name in PROTOCOLS:
        known = PROTOCOLS[preset.name]
    else:
        raise RecordError(
            f"There is no protocol {label} here; this release knows "
            f"{', '.join(f'{p.name} v{p.version}' for p in PROTOCOLS.values())} and {FIT}."
        )
    ours, theirs = asdict(known), asdict(preset)
    if wrong := [name for name in ours if ours[name] != theirs[name]]:
        found = ", ".join(f"{n} {theirs[n]!r} where it is {ours[n]!r}" for n in wrong)
        raise RecordError(f"The protocol {label} of the record is not ours: {found}.")
    return preset


@dataclass(frozen=True, slots=True)
class _People:
    """As much of a data set as `fitted_preset` reads."""

    name: str
    subject: Ints


def recompute(record: Record, arrays: Arrays, registry: Registry, name: str) -> Numbers:
    """Every number of a record from its bundle.

    Numbers of metrics that look at images come from the bundle's rows; which outputs such a metric
    has, and what chance is, is taken from the record.

    Args:
        name: what error messages call the bundle.

    Raises:
        RecordError: the protocol or the bundle does not fit the record.
    """
    preset = preset_of(record)
    found = evidence_in(arrays, preset, name)
    primary = found[PRIMARY_TRIAL][0]
    rows = rows_in(arrays)
    seed = stage_seed(record.seed, "bootstrap")
    estimates: dict[str, dict[str, list[Estimate]]] = {trial: {} for trial in found}
    looked: dict[str, dict[str, list[Estimate]]] = {"utility": {}, "inversion": {}}
    missing: dict[str, str] = {}
    for metric, ref in record.metrics.items():
        try:
            plugin, kind = metric_of(metric, ref, registry)
            if kind in ("identification", "open-set"):
                for trial, (closed, opened) in found.items():
                    evidence = closed if kind == "identification" else opened
                    estimates[trial][metric] = measured(plugin, evidence, preset.resamples, seed)
                continue
            stem = "utility" if kind == "release" else "inversion"
            claimed = getattr(record, stem).get(metric, [])
            if not claimed:
                looked[stem][metric] = []
            elif metric not in rows:
                missing[metric] = "the bundle holds no rows of it"
            else:
                looked[stem][metric] = _reduced(
                    plugin, rows[metric], primary.subject, claimed, preset.resamples, seed
                )
        except RecordError:
            raise
        except PrivbenchError as error:
            missing[metric] = str(error)
        except Exception as error:  # a plugin, and evidence that may be anyone's
            raise RecordError(
                f"{metric} cannot be computed from the evidence: {type(error).__name__}: {error}."
            ) from error
    return Numbers(
        estimates,
        looked["utility"],
        looked["inversion"],
        Hits(
            subject=primary.subject.tolist(),
            rank1=rank1_hits(primary).round(6).tolist(),
        ),
        {t: curves(found[t][0], preset.resamples, seed) for t in CURVED},
        missing,
    )


def metric_of(name: str, ref: PluginRef, registry: Registry) -> tuple[Metric, str]:
    """A metric with the record's settings, and what it measures.

    Raises:
        PrivbenchError: it is not installed here in the record's version.
    """
    spec = registry.get("metric", ref.id).spec
    if spec.version != ref.version:
        raise PrivbenchError(f"version {ref.version} made it, version {spec.version} is installed")
    made = spec.build(make_config(spec, ref.config))
    return cast(Metric, made), spec.tags.evidence or "identification"


def _reduced(
    metric: Metric,
    rows: Floats,
    subject: Ints,
    claimed: Sequence[Estimate],
    resamples: int,
    seed: int,
) -> list[Estimate]:
    if rows.ndim != 2 or len(rows) != len(subject):
        raise RecordError(f"Rows must be one for each of {len(subject)} probes; got {rows.shape}.")
    outputs = [Output(e.name, e.protects, e.worst, e.unit) for e in claimed]
    chance = np.array([np.nan if e.chance is None else e.chance for e in claimed])
    return bootstrap(metric, rows, subject, outputs, chance, resamples=resamples, seed=seed)


CLOSE = 1e-6
"""How far a recomputed number may be off, relative to its size where that is above 1."""


def differences(record: Record, numbers: Numbers) -> list[str]:
    """What a record claims otherwise than it was recomputed; curves aside where it has none.

    Numbers of `numbers.missing` metrics are not compared.
    """
    found: list[str] = []
    trials = set(record.estimates)
    if trials != set(numbers.estimates):
        found.append(f"trials must be {sorted(numbers.estimates)}; got {sorted(trials)}")
    for trial in sorted(trials & set(numbers.estimates)):
        found += _tables(record.estimates[trial], numbers.estimates[trial], trial, numbers)
    found += _tables(record.utility, numbers.utility, "utility", numbers)
    found += _tables(record.inversion, numbers.inversion, "inversion", numbers)
    if record.hits != numbers.hits:
        found.append("rank-1 of each probe (`hits`) is not that of the scores")
    if record.curves and not _same_curves(record, numbers):
        found.append("the curves are not those of the scores")
    return found


def _tables(
    claimed: Mapping[str, Sequence[Estimate]],
    computed: Mapping[str, Sequence[Estimate]],
    where: str,
    numbers: Numbers,
) -> list[str]:
    found = [
        f"{where} has numbers of {metric}, which the record's metrics do not name"
        for metric in sorted(set(claimed) - set(computed) - set(numbers.missing))
    ]
    for metric, ours in computed.items():
        theirs = claimed.get(metric, [])
        if [e.name for e in theirs] != [e.name for e in ours]:
            names = ", ".join(e.name for e in theirs) or "none"
            found.append(f"{metric} on {where} must have {len(ours)} numbers; got {names}")
            continue
        for one, other in zip(theirs, ours, strict=True):
            fields = [n for n in asdict(other) if not _close(getattr(one, n), getattr(other, n))]
            found += [
                f"{metric} {one.name} on {where}: {name} is {getattr(one, name)!r}, and "
                f"{getattr(other, name)!r} when recomputed"
                for name in fields
            ]
    return found


def _close(one: object, other: object) -> bool:
    if isinstance(one, float) and isinstance(other, float | int):
        return abs(one - other) <= CLOSE * max(1.0, abs(other))
    return one == other


def _same_curves(record: Record, numbers: Numbers) -> bool:
    if set(record.curves) != set(numbers.curves):
        return False
    return all(
        set(kinds) == set(numbers.curves[trial])
        and all(
            len(claimed) == len(ours)
            and np.allclose(claimed, ours, rtol=0, atol=2e-4)  # they are kept to four places
            for kind, curve in kinds.items()
            for claimed, ours in zip(
                curve.model_dump().values(),
                numbers.curves[trial][kind].model_dump().values(),
                strict=True,
            )
        )
        for trial, kinds in record.curves.items()
    )
