"""The result of one target under one attack on membership: numbers from scores, and the record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Literal, cast

import numpy as np
from pydantic import Field
from safetensors.numpy import save as save_safetensors

from privbench.audit_numbers import RATES, AtRate, SetResult, at_rate, set_result
from privbench.audit_plan import PRIMARY, AuditCell, AuditPlan, Trial
from privbench.data import facts_of
from privbench.errors import StoreError
from privbench.infer import of_trial, persons, query_set
from privbench.keys import stage_seed
from privbench.plan import dtype_of
from privbench.populations import CALIBRATION, SEEN, UNPUBLISHED, UNSEEN
from privbench.record import SCHEMA_VERSION, Part, PluginRef, Result
from privbench.results import PACKAGES, measured, package_version, plugin_ref
from privbench.session import blame
from privbench.spec import Knowledge
from privbench.store import Artefact, Store
from privbench.target import AuditSession
from privbench.types import Estimate, Membership, Metric

Seen = Literal["trained", "claimed", "never"]
"""Whether the target has seen the suspects: it was trained on them here; its owner says so (an
audit of what exists already); or it was not."""


class MembershipRecord(Result):
    """Everything needed to read and recompute one result.

    Attributes:
        fold: which draw of people the target was trained on.
        seen: whether the target has seen the suspects; if never, the record is a control.
        target: parts it was trained on, mark, and the report of its training.
        answers: images that the attacker had the target make.
        predictions: of noise that it asked for.
        estimates: trial -> metric -> numbers with intervals that resample people.
        exact: trial -> TPRs with exact intervals.
        sets: inference about the set, from the scores of the primary trial.
        pairs: trial -> the two query sets.
        command: the command line that makes it again; from submission.
    """

    schema_version: int = SCHEMA_VERSION
    task: Literal["membership"] = "membership"
    created: str
    privbench: str
    anonymizer: PluginRef
    attack: PluginRef
    threat_model: Knowledge
    answers: int
    predictions: int
    dataset: dict[str, str]
    dataset_facts: dict[str, Any]
    protocol: dict[str, Any]
    primary_trial: str
    fold: int
    seed: int
    dtype: str
    seen: Seen
    target: dict[str, Any]
    parts: dict[str, Part]
    pairs: dict[str, tuple[str, str]]
    estimates: dict[str, dict[str, list[Estimate]]]
    exact: dict[str, list[AtRate]]
    sets: SetResult | None
    attack_report: dict[str, Any]
    metrics: dict[str, PluginRef]
    timing: list[dict[str, Any]]
    packages: dict[str, str]
    keys: dict[str, str]
    scores: dict[str, str] = Field(default_factory=dict)
    command: str = ""

    @property
    def name(self) -> str:
        """File name stem: readable, and distinct for distinct results."""
        ids = (self.anonymizer.id, self.attack.id, self.protocol["name"])
        return "--".join(i.replace("/", "__") for i in ids) + f"--{self.keys['record'][:8]}"

    def number(self, name: str, trial: str = PRIMARY) -> Estimate | None:
        """One number of a trial; None where the record has none."""
        found = (e for group in self.estimates.get(trial, {}).values() for e in group)
        return next((e for e in found if e.name == name), None)


def evidence_of(
    session: AuditSession, cell: AuditCell, trial: Trial, arrays: Mapping[str, np.ndarray]
) -> Membership:
    """Scores of a trial with the truth."""
    sides = [query_set(session, cell, side) for side in trial.sides()]
    if of_trial(trial) in arrays:
        scores, calibration = arrays[of_trial(trial)][:, 0], np.empty(0)
    else:
        scores = np.concatenate([arrays[side][:, 0] for side in trial.sides()])
        calibration = arrays[CALIBRATION][:, 0]
    member = np.repeat([True, False], [len(side) for side in sides])
    return Membership(scores, member, persons(sides), calibration)


def make_record(session: AuditSession, cell: AuditCell, inferred: Artefact) -> MembershipRecord:
    """The record of a finished cell."""
    plan, arrays = session.plan, next(iter(session.store.read(inferred)))
    spec, model = plan.data_plugin.registered.spec, cell.models["target"]
    estimates: dict[str, dict[str, list[Estimate]]] = {}
    exact: dict[str, list[AtRate]] = {}
    with session.reporter.task(f"{cell.record.label}: metrics", len(cell.trials), "trials") as task:
        for trial in cell.trials:
            evidence = evidence_of(session, cell, trial, arrays)
            estimates[trial.name] = {
                name: _estimates(session, name, evidence) for name in plan.metrics
            }
            exact[trial.name] = [at_rate(evidence, rate) for rate in RATES]
            task.advance()
    timing = [t for made in _artefacts(session.store, cell) for t in made.notes["timing"]]
    report = model.finetune and session.store.find(
        model.finetune.stage, model.finetune.plugin, model.finetune.key
    )
    notes = inferred.notes
    return MembershipRecord(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        privbench=package_version("privbench"),
        anonymizer=plugin_ref(cell.anonymizer),
        attack=plugin_ref(cell.attack),
        threat_model=cell.attack.registered.spec.tags.knowledge or "none",
        answers=notes["answers"],
        predictions=notes["predictions"],
        dataset={
            "id": spec.id,
            "version": str(spec.version),
            "digest": plan.data.digest,
            "licence": plan.data.licence,
        },
        dataset_facts=facts_of(plan.data),
        protocol=asdict(plan.preset) | {"people": dict(plan.preset.people)},
        primary_trial=PRIMARY,
        fold=cell.fold,
        seed=plan.study.seed,
        dtype=dtype_of(cell.anonymizer, session.device.type),
        seen=seen_by(cell),
        target={
            "trained_on": list(cell.target.trained_on),
            "mark": cell.target.mark,
            "epochs": model.config.checkpoint() if model.finetune else 0,
            "training": dict(report.notes["report"]) if report else {},
        },
        parts={
            name: Part(identities=len(np.unique(plan.data.subject[rows])), images=len(rows))
            for name, rows in cell.parts.items()
        },
        pairs={trial.name: trial.sides() for trial in cell.trials},
        estimates=estimates,
        exact=exact,
        sets=sets_of(plan, cell, arrays),
        attack_report=notes["report"],
        metrics={name: plugin_ref(metric) for name, metric in plan.metrics.items()},
        timing=timing,
        packages={name: package_version(name) for name in (*PACKAGES, "peft")},
        keys={f"{s.stage}:{s.label}": s.key for s in cell.steps() if s.stage != "record"}
        | {"record": cell.record.key},
    )


def _artefacts(store: Store, cell: AuditCell) -> list[Artefact]:
    """What of the cell's steps was really made; lazy ones may not have been."""
    found = [store.find(s.stage, s.plugin, s.key) for s in cell.steps() if s.stage != "record"]
    return [made for made in found if made]


def _estimates(session: AuditSession, name: str, evidence: Membership) -> list[Estimate]:
    plan, resolved = session.plan, session.plan.metrics[name]
    metric = cast(Metric, session.build(resolved))
    with blame(resolved, "measuring"):
        return measured(
            metric, evidence, plan.preset.resamples, stage_seed(plan.study.seed, "bootstrap")
        )


def sets_of(plan: AuditPlan, cell: AuditCell, arrays: Mapping[str, np.ndarray]) -> SetResult | None:
    """Tests of whole sets; None where trials are scored one by one, for marked images, which no set
    without the mark stands beside, and for too few people."""
    if SEEN not in arrays or cell.target.mark:
        return None
    subject = plan.data.subject
    suspects, unseen, unpublished = (
        (arrays[part], subject[cell.parts[part]]) for part in (SEEN, UNSEEN, UNPUBLISHED)
    )
    seed = stage_seed(plan.study.seed, "sets", str(cell.fold))
    return set_result(suspects, unseen, unpublished, seed)


def seen_by(cell: AuditCell) -> Seen:
    """Whether the cell's target has seen the suspects."""
    model = cell.models["target"]
    if model.finetune:
        return "trained" if SEEN in cell.target.trained_on else "never"
    return "claimed" if model.config.existing else "never"


def scores_bytes(plan: AuditPlan, store: Store, cell: AuditCell) -> bytes:
    """The attack's raw scores with who was scored, as safetensors: what a record rests on."""
    done = store.find(cell.infer.stage, cell.infer.plugin, cell.infer.key)
    if done is None:
        raise StoreError(f"The store no longer holds the scores of {cell.infer.label}.")
    arrays = next(iter(store.read(done)))
    arrays |= {f"{part}_subject": plan.data.subject[rows] for part, rows in cell.parts.items()}
    return save_safetensors({k: np.ascontiguousarray(v) for k, v in arrays.items()})
