"""Execute the missing steps of a plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from privbench.errors import PrivbenchError, StoreError
from privbench.plan import Cell, Plan
from privbench.progress import Reporter
from privbench.record import Record
from privbench.release import anonymize
from privbench.results import make_record
from privbench.scoring import attack
from privbench.session import Session
from privbench.store import Store


@dataclass(frozen=True, slots=True)
class Failure:
    """A cell that could not be finished."""

    label: str
    error: PrivbenchError


def execute(
    plan: Plan, store: Store, device: torch.device, reporter: Reporter
) -> tuple[list[Record], list[Failure]]:
    """Run what is missing of a whole plan; see `run_cells`."""
    return run_cells(Session(plan, store, device, reporter), plan.cells)


def run_cells(session: Session, cells: Sequence[Cell]) -> tuple[list[Record], list[Failure]]:
    """Run what is missing of some cells. One cell's failure does not stop the others.

    Returns:
        The records of the finished cells, in the plan's order, and the failures.

    Raises:
        StoreError: the store itself fails (a full disk, a damaged file): no cell could go on.
    """
    records: list[Record] = []
    failures: list[Failure] = []
    for cell in cells:
        try:
            records.append(run_cell(session, cell))
        except StoreError:
            raise
        except PrivbenchError as error:
            failures.append(Failure(f"{cell.attack.id} on {cell.anonymizer.id}", error))
        session.forget_models()
    return records, failures


def run_cell(session: Session, cell: Cell) -> Record:
    """All steps of one anonymizer under one attack."""
    store, step = session.store, cell.record
    if done := store.find(step.stage, step.plugin, step.key):
        return Record.model_validate(done.notes["record"])
    session.refuse_leak()
    released = {part: anonymize(session, cell, part) for part in cell.anonymize}
    scored = attack(session, cell, released)
    body = make_record(session, cell, released, scored)
    notes = {"record": body.model_dump(mode="json")}
    made = store.commit(step.stage, step.plugin, step.key, step.inputs, (), notes)
    return Record.model_validate(made.notes["record"])
