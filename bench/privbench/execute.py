"""Execute the missing steps of a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch

from privbench.errors import PluginError, PrivbenchError, StoreError
from privbench.isolate import Failure, Isolation, Worker, isolated
from privbench.plan import Cell, Plan, Study, make_plan
from privbench.progress import Reporter
from privbench.record import Record
from privbench.registry import load_registry
from privbench.release import anonymize
from privbench.results import make_record
from privbench.scoring import attack
from privbench.session import Session
from privbench.store import Store
from privbench.timing import same_threads
from privbench.types import TrainedAttack
from privbench.worker import Run, in_words

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Finished:
    """A cell that was finished.

    Attributes:
        blank: metric -> why it left no numbers. Such a record is not kept in the store: the next
            run tries again.
    """

    record: Record
    blank: Mapping[str, str] = field(default_factory=dict)


def execute(
    plan: Plan,
    store: Store,
    device: torch.device,
    reporter: Reporter,
    isolation: Isolation | None = None,
) -> tuple[list[Record], list[Failure]]:
    """Run what is missing of a whole plan; see `run_cells`."""
    session = Session(plan, store, device, reporter)
    with worker_for([plan.study], session, isolation) as worker:
        return run_cells(session, plan.cells, worker)


def run_cells(
    session: Session, cells: Sequence[Cell], worker: Worker | None = None
) -> tuple[list[Record], list[Failure]]:
    """Run what is missing of some cells. One cell's failure does not stop the others.

    Args:
        worker: where to run them (`worker_for`); None: in this process.

    Returns:
        The records of the finished cells, in the plan's order, and the failures; a metric that
        failed leaves its numbers blank.

    Raises:
        StoreError: the store itself fails (a full disk, a damaged file): no cell could go on.
    """
    records: list[Record] = []
    failures: list[Failure] = []
    for cell in cells:
        label = f"{cell.attack.id} on {cell.choice.id}"
        try:
            made = run_cell(session, cell, worker)
        except StoreError:
            raise
        except PrivbenchError as error:
            failures.append(Failure(label, error))
        except SystemExit as error:
            failures.append(Failure(label, PluginError(in_words(error))))
        else:
            records.append(made.record)
            failures += [
                Failure(f"{metric} of {label}", PluginError(text))
                for metric, text in made.blank.items()
            ]
        session.forget_models()
    return records, failures


def run_cell(session: Session, cell: Cell, worker: Worker | None = None) -> Finished:
    """All steps of one anonymizer under one attack."""
    store, step = session.store, cell.record
    if done := store.find(step.stage, step.plugin, step.key):
        return Finished(Record.model_validate(done.notes["record"]))
    if worker is not None:
        sent = worker.run(step.key)
        return Finished(Record.model_validate(sent["record"]), sent["blank"])
    session.refuse_leak()
    released = {part: anonymize(session, cell, part) for part in cell.anonymize}
    scored = attack(session, cell, released)
    body, blank = make_record(session, cell, released, scored)
    if blank:
        return Finished(body, blank)
    notes = {"record": body.model_dump(mode="json")}
    made = store.commit(step.stage, step.plugin, step.key, step.inputs, (), notes)
    return Finished(Record.model_validate(made.notes["record"]))


def worker_for(
    studies: Sequence[Study], session: Session, isolation: Isolation | None
) -> AbstractContextManager[Worker | None]:
    """A worker for all cells of some studies, or None where they run in this process."""
    given = {
        "studies": [study.model_dump(mode="json") for study in studies],
        "store": session.store.url,
        "device": str(session.device),
        "threads": torch.get_num_threads(),
    }
    return isolated("privbench.execute:open_cells", given, isolation, session.reporter)


def open_cells(given: Mapping[str, Any], reporter: Reporter) -> Run:
    """In a worker: plan the same studies once more, then run cells by the key of their record."""
    device, store = torch.device(given["device"]), Store(given["store"])
    same_threads(given["threads"])
    registry = load_registry()
    trained: dict[str, tuple[TrainedAttack, float]] = {}
    cells: dict[str, tuple[Session, Cell]] = {}
    for body in given["studies"]:
        plan = make_plan(Study.model_validate(body), registry, device.type)
        session = Session(plan, store, device, reporter, trained)
        cells.update({cell.record.key: (session, cell) for cell in plan.cells})

    def run(key: str) -> dict[str, Any]:
        session, cell = planned(cells, key)
        try:
            made = run_cell(session, cell)
        finally:
            session.forget_models()
        return {"record": made.record.model_dump(mode="json"), "blank": made.blank}

    return run


def planned(cells: Mapping[str, T], key: str) -> T:
    """A cell by the key of its record.

    Raises:
        PluginError: a plugin was planned otherwise in another process.
    """
    if key not in cells:
        raise PluginError(
            "The cell has another key in another process. The settings, the weights' hashes and "
            "the data of a plugin must be the same each time they are asked for."
        )
    return cells[key]
