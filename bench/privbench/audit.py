"""Run what is missing of a membership study."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from privbench.api import STORE, discard_damaged
from privbench.audit_plan import (
    AuditCell,
    AuditPlan,
    MembershipStudy,
    Target,
    is_membership,
    make_audit,
)
from privbench.audit_record import MembershipRecord, make_record, scores_bytes
from privbench.errors import ConfigError, PluginError, PrivbenchError, RecordError, StoreError
from privbench.execute import planned
from privbench.infer import infer
from privbench.isolate import Failure, Isolation, Worker, isolated, refuse_own_registry
from privbench.plan import Choice, Status, Study, plain_id, status
from privbench.progress import Reporter, Silent
from privbench.record import write_record
from privbench.registry import Registry, load_registry
from privbench.store import Store
from privbench.target import AuditSession
from privbench.timing import pick_device, same_threads
from privbench.worker import Run, in_words


def asks_membership(study: Study, registry: Registry | None = None) -> bool:
    """Whether a run is about membership and not about identity.

    Raises:
        PrivbenchError: unknown plugins, or some of each kind.
    """
    registry = registry or load_registry()
    return is_membership(
        [registry.get("anonymizer", plain_id(c.id)).spec for c in study.anonymizers],
        [registry.get("attack", plain_id(c.id)).spec for c in study.attacks],
    )


def membership_study(study: Study) -> MembershipStudy:
    """A run, as the command line gives it, as a membership study.

    Raises:
        ConfigError: something is asked that has no meaning here.
    """
    for choice in study.anonymizers:
        if choice.draws > 1 or choice.fixed_seed:
            raise ConfigError(
                f"{choice.id} releases samples, not images of its sources: --draws and "
                "--fixed-seed have no meaning for it. `samples` says how many."
            )
    if study.judges:
        raise ConfigError("--judge is for attacks that reconstruct images; membership has none.")
    made = MembershipStudy(
        targets=tuple(Target(anonymizer=_plain(c)) for c in study.anonymizers),
        attacks=study.attacks,
        dataset=study.dataset,
        protocol=study.protocol,
        seed=study.seed,
        device=study.device,
    )
    return made.model_copy(update={"metrics": study.metrics}) if study.metrics else made


def _plain(choice: Choice) -> Choice:
    return Choice(id=choice.id, settings=choice.settings)


def run_audit(
    study: MembershipStudy,
    *,
    store: str = STORE,
    records: str | None = None,
    repair: bool = False,
    reporter: Reporter | None = None,
    registry: Registry | None = None,
    isolate: Isolation | None = None,
) -> tuple[list[MembershipRecord], list[Failure]]:
    """Run every cell of a membership study that is not in the store yet.

    Args:
        store: directory or fsspec URL of the artefacts.
        records: directory for the records and their scores; None writes none.
        repair: check every stored part this study uses, and recompute what is damaged.
        isolate: as for `privbench.api.run_study`.

    Returns:
        The records in the study's order, and the cells that failed.

    Raises:
        PrivbenchError: nothing could be planned, or the store fails.
    """
    refuse_own_registry(registry, isolate)
    device = pick_device(study.device)
    plan = make_audit(study, registry or load_registry(), device.type)
    opened = Store(store)
    if repair:
        discard_damaged(plan, opened)
    session = AuditSession(plan, opened, device, reporter or Silent())
    with worker_for(session, isolate) as worker:
        return run_cells(session, plan.cells, records, worker)


def explain_audit(study: MembershipStudy, *, store: str = STORE) -> list[Status]:
    """Which steps are in the store, and why the others are not.

    Samples of the attacker's own models are made only for attacks that ask for them.
    """
    plan = make_audit(study, load_registry(), pick_device(study.device).type)
    return status(plan, Store(store))


def run_cells(
    session: AuditSession,
    cells: Sequence[AuditCell],
    records: str | None = None,
    worker: Worker | None = None,
) -> tuple[list[MembershipRecord], list[Failure]]:
    """Run what is missing of some cells. One cell's failure does not stop the others.

    Args:
        worker: where to run them (`worker_for`); None: in this process.

    Raises:
        StoreError: the store itself fails: no cell could go on.
    """
    done: list[MembershipRecord] = []
    failures: list[Failure] = []
    for cell in cells:
        try:
            record = run_cell(session, cell, worker)
            done.append(_export(session.plan, session.store, cell, record, records))
        except StoreError:
            raise
        except PrivbenchError as error:
            failures.append(Failure(cell.label, error))
        except SystemExit as error:
            failures.append(Failure(cell.label, PluginError(in_words(error))))
        session.forget(cell.fold)
    return done, failures


def run_cell(
    session: AuditSession, cell: AuditCell, worker: Worker | None = None
) -> MembershipRecord:
    """All steps of one target of one fold under one attack."""
    store, step = session.store, cell.record
    if done := store.find(step.stage, step.plugin, step.key):
        return MembershipRecord.model_validate(done.notes["record"])
    if worker is not None:
        return MembershipRecord.model_validate(worker.run(step.key))
    body = make_record(session, cell, infer(session, cell))
    notes = {"record": body.model_dump(mode="json")}
    made = store.commit(step.stage, step.plugin, step.key, step.inputs, (), notes)
    return MembershipRecord.model_validate(made.notes["record"])


def worker_for(
    session: AuditSession, isolation: Isolation | None
) -> AbstractContextManager[Worker | None]:
    """A worker for all cells of a plan, or None where they run in this process."""
    given = {
        "study": session.plan.study.model_dump(mode="json"),
        "store": session.store.url,
        "device": str(session.device),
        "threads": torch.get_num_threads(),
    }
    return isolated("privbench.audit:open_cells", given, isolation, session.reporter)


def open_cells(given: Mapping[str, Any], reporter: Reporter) -> Run:
    """In a worker: plan the same study once more, then run cells by the key of their record."""
    device = torch.device(given["device"])
    same_threads(given["threads"])
    study = MembershipStudy.model_validate(given["study"])
    plan = make_audit(study, load_registry(), device.type)
    session = AuditSession(plan, Store(given["store"]), device, reporter)
    cells = {cell.record.key: cell for cell in plan.cells}

    def run(key: str) -> dict[str, Any]:
        cell = planned(cells, key)
        try:
            return run_cell(session, cell).model_dump(mode="json")
        finally:
            session.forget(cell.fold)

    return run


def _export(
    plan: AuditPlan, store: Store, cell: AuditCell, record: MembershipRecord, folder: str | None
) -> MembershipRecord:
    """Write a record and, beside it, the scores it rests on."""
    if folder is None:
        return record
    scores = scores_bytes(plan, store, cell)
    name = f"{record.name}.scores.safetensors"
    full = record.model_copy(
        update={"scores": {"file": name, "sha256": hashlib.sha256(scores).hexdigest()}}
    )
    path = write_record(full, Path(folder))
    try:
        path.with_name(name).write_bytes(scores)
    except OSError as error:
        raise RecordError(f"Cannot write the scores of {path}: {error}") from error
    return full
