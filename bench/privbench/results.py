"""From scores to rows to numbers to the record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any, cast

import numpy as np
from safetensors.numpy import save as save_safetensors

from privbench import evidence as ev
from privbench.data import PRIMARY_TRIAL, facts_of, trials, undetected_in
from privbench.errors import PluginError, StoreError
from privbench.inversion import judgements, reconstructions
from privbench.keys import stage_seed
from privbench.paired import rank1_hits
from privbench.plan import Cell, Plan, Resolved, Step, dtype_of, labelled
from privbench.record import Hits, Part, PluginRef, Record
from privbench.release import Released, released_set
from privbench.session import Session, blame
from privbench.stats import bootstrap
from privbench.store import Artefact, Store
from privbench.types import (
    Estimate,
    Evidence,
    Floats,
    Identification,
    Ints,
    Inversion,
    Metric,
    OpenSet,
    Release,
)

PACKAGES = ("privbench", "torch", "diffusers", "transformers", "numpy", "scikit-learn", "scipy",
            "opencv-python-headless")  # fmt: skip


def scores_of(plan: Plan, arrays: Mapping[str, np.ndarray], fusion: ev.Fusion) -> ev.Scores:
    """An attack's stored scores with the truth."""
    of, split = plan.data.subject, plan.split
    mated = columns(of[split.probes], of[split.gallery], plan.preset.references)
    held_out = of[split.attacker_validation]
    return ev.Scores(arrays, mated, of[split.probes], of[split.non_mated], held_out, fusion)


def columns(probes: Ints, gallery: Ints, references: int) -> Ints:
    """(N,) column of each probe's person in a gallery with so many references a person."""
    people = gallery[::references]
    found: Ints = np.argmax(probes[:, None] == people[None, :], axis=1)
    return found


def trial_evidence(plan: Plan, scores: ev.Scores) -> Iterator[tuple[str, Identification, OpenSet]]:
    """Closed-set and open-set evidence of every trial."""
    for trial in trials(plan.preset):
        closed = ev.identification(trial, scores)
        yield trial.name, closed, ev.open_set(trial, closed, scores)


def estimates_of(
    session: Session, metric: Resolved, step: Step, evidence: Mapping[str, Evidence]
) -> dict[str, list[Estimate]]:
    """Rows of one metric (stored, one part a trial), and its numbers with intervals."""
    store, plan = session.store, session.plan
    plugin = cast(Metric, session.build(metric))
    done = store.find(step.stage, step.plugin, step.key)
    if done is None:
        fitted = session.fitted_metric(metric)
        with blame(metric, "computing rows"):
            names = tuple(
                store.write_part(step.key, i, {"rows": np.asarray(fitted.rows(e), np.float64)})
                for i, e in enumerate(evidence.values())
            )
        done = store.commit(step.stage, step.plugin, step.key, step.inputs, names, {})
    result = {}
    for (trial, e), arrays in zip(evidence.items(), store.read(done), strict=True):
        if len(arrays["rows"]) != len(e.subject):
            raise PluginError(
                f"The metric {metric.id} must return one row per probe ({len(e.subject)}); "
                f"got {len(arrays['rows'])}."
            )
        with blame(metric, "reducing rows"):
            result[trial] = measured(
                plugin,
                e,
                plan.preset.resamples,
                stage_seed(plan.study.seed, "bootstrap"),
                arrays["rows"],
            )
    return result


def measured(
    metric: Metric,
    evidence: Evidence,
    resamples: int,
    seed: int,
    rows: Floats | None = None,
) -> list[Estimate]:
    """Numbers of a metric with intervals.

    Args:
        rows: of this evidence, where they are known already.
    """
    return bootstrap(
        metric,
        np.asarray(metric.rows(evidence), np.float64) if rows is None else rows,
        evidence.subject,
        metric.outputs(evidence),
        metric.chance(evidence),
        resamples=resamples,
        seed=seed,
        decisive=evidence.mated >= 0 if isinstance(evidence, OpenSet) else None,
    )


def make_record(
    session: Session, cell: Cell, released: Released, scored: Artefact
) -> tuple[Record, dict[str, str]]:
    """The record of a finished cell, and metric -> error of those that left no numbers."""
    plan = session.plan
    blank: dict[str, str] = {}

    def numbers(
        name: str, step: Step, evidence: Mapping[str, Evidence]
    ) -> dict[str, list[Estimate]]:
        try:
            return estimates_of(session, plan.metrics[name], step, evidence)
        except PluginError as error:  # the attack was hours of work, perhaps
            blank[name] = str(error)
            return {}

    scores = scores_of(plan, next(iter(session.store.read(scored))), scored.notes["fusion"])
    found_trials = list(trial_evidence(plan, scores))
    by_kind: dict[str, dict[str, Evidence]] = {
        "identification": {name: closed for name, closed, _ in found_trials},
        "open-set": {name: opened for name, _, opened in found_trials},
    }
    probes = released_set(session, released, "probes")
    release = {"release": Release(session.part("probes"), probes, probes.subject)}
    estimates: dict[str, dict[str, list[Estimate]]] = {name: {} for name, _, _ in found_trials}
    utility: dict[str, list[Estimate]] = {}
    inversion: dict[str, list[Estimate]] = {}
    total = len(cell.rows) + len(cell.utility) + len(cell.inversion)
    with session.reporter.task(f"{cell.record.label}: metrics", total, "metrics") as task:
        for name, step in cell.rows.items():
            kind = plan.metrics[name].registered.spec.tags.evidence or "identification"
            for trial, found in numbers(name, step, by_kind[kind]).items():
                estimates[trial][name] = found
            task.advance()
        for name, step in cell.utility.items():
            if of_release := numbers(name, step, release):
                utility[name] = of_release["release"]
            task.advance()
        if cell.invert:
            inverted: dict[str, Evidence] = {
                "inversion": inversion_evidence(session, cell, release["release"], scored)
            }
        for name, step in cell.inversion.items():
            if of_inversion := numbers(name, step, inverted):
                inversion[name] = of_inversion["inversion"]
            task.advance()
    steps = {**cell.rows, **cell.utility, **cell.inversion}
    without = {cell.record.key, *(steps[name].key for name in blank)}
    stages = [*released.values(), *_inverted(session, cell), scored]
    timing = [t for artefact in stages for t in artefact.notes["timing"]]
    spec = plan.data_plugin.registered.spec
    record = Record(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        privbench=package_version("privbench"),
        anonymizer=plugin_ref(cell.anonymizer),
        attack=plugin_ref(cell.attack),
        threat_model=cell.threat_model,
        oracle_queries=scored.notes["queries"],
        dataset={
            "id": spec.id,
            "version": str(spec.version),
            "digest": plan.data.digest,
            "licence": plan.data.licence,
        },
        dataset_facts=facts_of(plan.data) | _left_out(plan),
        release={"draws": cell.draws, "fixed_seed": cell.fixed_seed},
        protocol=asdict(plan.preset) | {"populations": list(plan.preset.populations)},
        primary_trial=PRIMARY_TRIAL,
        parts={
            name: Part(
                identities=len(np.unique(plan.data.subject[rows])),
                images=len(rows),
                undetected=undetected_in(plan.data, rows),
            )
            for name, rows in plan.split.parts().items()
        },
        seed=plan.study.seed,
        dtype=dtype_of(cell.anonymizer, session.device.type),
        estimates=estimates,
        hits=Hits(
            subject=scores.subject.tolist(),
            rank1=rank1_hits(_primary(found_trials)).round(6).tolist(),
        ),
        utility=utility,
        inversion=inversion,
        metrics={
            name: plugin_ref(plan.metrics[name])
            for name in plan.metrics
            if name in steps and name not in blank
        },
        attack_report=scored.notes["report"] | {"fusion": scored.notes["fusion"]},
        timing=timing,
        packages={name: package_version(name) for name in PACKAGES},
        keys={f"{s.stage}:{s.label}": s.key for s in cell.steps() if s.key not in without}
        | {f"member:{n}": c.score.key for n, c in labelled(cell.members).items()}
        | {"record": cell.record.key},
    )
    return record, blank


def inversion_evidence(
    session: Session, cell: Cell, release: Release, scored: Artefact
) -> Inversion:
    """What an inversion attack made of the probes, and what each judge says."""
    plan, store = session.plan, session.store
    made = _inverted(session, cell)[0]
    arrays = {name: array for part in store.read(scored) for name, array in part.items()}
    primary = next(trial for trial in trials(plan.preset) if trial.name == PRIMARY_TRIAL)
    return Inversion(
        release.source,
        release.released,
        reconstructions(session, made, "probes")[0],
        release.subject,
        tuple(
            judgements(
                primary,
                scores_of(plan, arrays, scored.notes["fusion"]),
                scored.notes["report"]["judges"],
            )
        ),
    )


def _inverted(session: Session, cell: Cell) -> list[Artefact]:
    """The reconstructions of a cell that has some."""
    if cell.invert is None:
        return []
    made = session.store.find(cell.invert.stage, cell.invert.plugin, cell.invert.key)
    if made is None:
        raise StoreError(f"The store no longer holds the {cell.invert.label}.")
    return [made]


def _primary(found: Sequence[tuple[str, Identification, OpenSet]]) -> Identification:
    return next(closed for name, closed, _ in found if name == PRIMARY_TRIAL)


def _left_out(plan: Plan) -> dict[str, Any]:
    """People who take no part because they have too few photographs; nothing if none."""
    photos = np.unique_counts(plan.data.subject).counts
    few = int((photos < plan.preset.images).sum())
    return {"people_with_too_few_images": few} if few else {}


def plugin_ref(plugin: Resolved) -> PluginRef:
    """A plugin as records name it."""
    spec = plugin.registered.spec
    return PluginRef(
        **plugin.ref(),
        summary=spec.summary,
        distribution=plugin.registered.distribution,
        licence=spec.licence,
        control=spec.tags.control,
    )


def package_version(package: str) -> str:
    """Version of an installed package, "" where it is missing."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def scores_bytes(plan: Plan, store: Store, cell: Cell) -> bytes:
    """The attack's raw scores with the truth, as safetensors: what a record rests on."""
    scored = store.find(cell.score.stage, cell.score.plugin, cell.score.key)
    if scored is None:
        raise StoreError(f"The store no longer holds the scores of {cell.score.label}.")
    arrays = {name: array for part in store.read(scored) for name, array in part.items()}
    arrays["probe_subject"] = plan.data.subject[plan.split.probes]
    arrays["gallery_subject"] = plan.data.subject[plan.split.gallery]
    arrays["cross_subject"] = plan.data.subject[plan.split.cross_gallery]
    arrays["non_mated_subject"] = plan.data.subject[plan.split.non_mated]
    arrays["validation_subject"] = plan.data.subject[plan.split.attacker_validation]
    return save_safetensors({k: np.ascontiguousarray(v) for k, v in arrays.items()})
