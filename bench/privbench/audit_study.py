"""Studies about membership: run what is missing, and write it down so that all of it can be
recomputed from the written files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from privbench.api import STORE
from privbench.audit import run_cells, worker_for
from privbench.audit_plan import AuditCell, AuditPlan, MembershipStudy, Target, make_audit
from privbench.audit_record import MembershipRecord
from privbench.audit_studyfile import TASK, AuditStudyFile, Row, parse_audit_study
from privbench.audit_summary import summarise
from privbench.errors import ConfigError, RecordError, did_you_mean
from privbench.isolate import Isolation, refuse_own_registry
from privbench.keys import canonical_json
from privbench.pictures import strips_jpeg, write_bytes
from privbench.plan import Choice
from privbench.populations import SEEN
from privbench.progress import Reporter, Silent
from privbench.record import PACKED, read_as, write_record
from privbench.registry import Registry, load_registry
from privbench.store import Store
from privbench.target import AuditSession, sampled
from privbench.timing import pick_device

RESULT, RECORDS, PICTURE = "study.json", "records", "samples.jpg"
COLUMNS = 8
"""Samples shown of each target."""


@dataclass(frozen=True, slots=True)
class RowOutcome:
    """What became of a row.

    Attributes:
        records: attack id -> records, one per target, in the row's order.
        error: why some are missing, or "".
    """

    row: Row
    records: Mapping[str, tuple[MembershipRecord, ...]]
    error: str = ""


def selected(study: AuditStudyFile, quick: bool) -> AuditStudyFile:
    """The study as it is to be run: its quick form is a study as well.

    Raises:
        ConfigError: nothing of it is part of the quick form.
    """
    if not quick:
        return study
    form = study.quick
    targets = tuple(
        t.model_copy(update={"settings": study.settings | t.settings | form.settings
                             | t.quick_settings, "quick_settings": None})
        for t in study.targets if t.quick_settings is not None
    )  # fmt: skip
    known = {t.name for t in targets}
    rows = tuple(
        r.model_copy(update={
            "targets": tuple(t for t in r.targets if t in known),
            "settings": r.settings | r.quick_settings,
            "attacks": _quick_attacks(r.attacks, form.attack_settings),
        })
        for r in study.rows if r.quick_settings is not None and known & set(r.targets)
    )  # fmt: skip
    if not rows:
        raise ConfigError("No row of the study is part of its quick form.")
    return study.model_copy(
        update={
            "targets": targets,
            "rows": rows,
            "settings": {},
            "attackers": form.attackers,
            "attacks": _quick_attacks(study.attacks, form.attack_settings),
            "protocol": form.protocol,
            "dataset": form.dataset,
            "pictures": tuple(p for p in study.pictures if p in {r.id for r in rows}),
        }
    )


def _quick_attacks(
    attacks: Sequence[Choice], settings: Mapping[str, Mapping[str, Any]]
) -> tuple[Choice, ...]:
    return tuple(
        Choice(id=a.id, settings=a.settings | dict(settings.get(a.id, {}))) for a in attacks
    )


Place = tuple[str, str]
"""A row and a target."""


def asked(study: AuditStudyFile, device: str) -> tuple[MembershipStudy, list[list[Place]]]:
    """What to run, and for each of its targets whose rows want it.

    A target that several rows sample alike, under the same attack, is one.
    """
    found: dict[str, tuple[Target, list[Place]]] = {}
    for row in study.rows:
        for name in row.targets:
            target = study.target(name)
            settings = study.settings | target.settings | row.settings
            for attack in row.attacks or study.attacks:
                one = Target(
                    anonymizer=Choice(id=target.anonymizer, settings=settings),
                    trained_on=target.trained_on,
                    mark=target.mark,
                    attackers=study.attackers,
                    folds=(target.fold,),
                    attacks=(attack,),
                )
                same = canonical_json([name, one.model_dump(mode="json")])
                before, places = found.get(same, (one, []))
                trials = tuple(dict.fromkeys((*before.trials, row.trial)))
                found[same] = (
                    before.model_copy(update={"trials": trials}),
                    [*places, (row.id, name)],
                )
    made = MembershipStudy(
        targets=tuple(target for target, _ in found.values()),
        attacks=(),
        trials=study.trials,
        dataset=study.dataset,
        protocol=study.protocol,
        seed=study.seed,
        device=device,
    )
    return made, [places for _, places in found.values()]


def run_audit_study(
    name: str,
    study: AuditStudyFile,
    out: Path,
    *,
    quick: bool = False,
    only: Sequence[str] = (),
    store: str = STORE,
    device: str = "auto",
    reporter: Reporter | None = None,
    registry: Registry | None = None,
    isolate: Isolation | None = None,
) -> list[RowOutcome]:
    """Run what is missing of a study about membership and write its files.

    Args:
        name: the study's short name, for `study.json`.
        out: folder for `study.json`, `records/` and `samples.jpg`.
        quick: the quick form.
        only: ids of the rows to run now, for work that is shared out; what another process has
            finished in the store is taken up, and nothing is written to `out`.
        isolate: as for `privbench.api.run_study`.

    Returns:
        One outcome per row.

    Raises:
        PrivbenchError: nothing could be planned or finished, or the store or `out` fails.
    """
    refuse_own_registry(registry, isolate)
    chosen = selected(study, quick)
    for row in only:
        if row not in (known := [r.id for r in chosen.rows]):
            raise ConfigError(f"The study has no row {row!r}. {did_you_mean(row, known)}")
    made, places = asked(chosen, device)
    where, progress = pick_device(device), reporter or Silent()
    plan = make_audit(made, registry or load_registry(), where.type)
    opened = Store(store)
    session = AuditSession(plan, opened, where, progress)
    done, failures = {}, {}
    with worker_for(session, isolate) as worker:
        for number, (cell, wanted) in enumerate(zip(plan.cells, places, strict=True)):
            if only and not {row for row, _ in wanted} & set(only):
                continue
            ids = ", ".join(dict.fromkeys(row for row, _ in wanted))
            progress.note(f"[{number + 1}/{len(plan.cells)}] row {ids}: {cell.label}")
            records, failed = run_cells(session, [cell], worker=worker)
            for place in wanted:
                name_of = (*place, cell.attack.id)
                if records:
                    done[name_of] = records[0]
                for failure in failed:
                    failures[name_of] = str(failure.error)
    outcomes = [_outcome(row, chosen, done, failures) for row in chosen.rows]
    if not done:
        reason = next(iter(failures.values()), "")
        raise ConfigError(f"No row of the study was finished. {reason}")
    if only:
        return [o for o in outcomes if o.row.id in only]
    before = _listed(out)
    for record in done.values():
        write_record(record, out / RECORDS, packed=True)
    if strips := _pictures(session, chosen, plan, places):
        write_bytes(out / PICTURE, strips_jpeg(strips))
    body = {
        "schema_version": 1,
        "task": TASK,
        "name": name,
        "quick": quick,
        "definition": chosen.model_dump(mode="json"),
        "rows": [
            {
                "id": o.row.id,
                "error": o.error,
                "records": {
                    attack: [f"{r.name}{PACKED}" for r in records]
                    for attack, records in o.records.items()
                },
            }
            for o in outcomes
        ],
    }
    _write_result(body, outcomes, out)
    for old in before - {f"{record.name}{PACKED}" for record in done.values()}:
        (out / RECORDS / old).unlink(missing_ok=True)
    return outcomes


def _outcome(
    row: Row,
    study: AuditStudyFile,
    done: Mapping[tuple[str, str, str], MembershipRecord],
    failures: Mapping[tuple[str, str, str], str],
) -> RowOutcome:
    attacks = [a.id for a in row.attacks or study.attacks]
    records = {
        attack: tuple(
            done[row.id, target, attack]
            for target in row.targets
            if (row.id, target, attack) in done
        )
        for attack in attacks
    }
    errors = [failures[row.id, t, a] for t in row.targets for a in attacks
              if (row.id, t, a) in failures]  # fmt: skip
    return RowOutcome(
        row, {a: found for a, found in records.items() if found}, "; ".join(dict.fromkeys(errors))
    )


def _pictures(
    session: AuditSession,
    study: AuditStudyFile,
    plan: AuditPlan,
    places: Sequence[Sequence[Place]],
) -> list[tuple[str, Any]]:
    """Photographs of the members' population, then the samples of each row to show that has some.

    Nothing is made here: a target that failed would fail again, and in this process.
    """
    first: dict[str, AuditCell] = {}
    for cell, wanted in zip(plan.cells, places, strict=True):
        step = cell.samples["target"]
        if session.store.find(step.stage, step.plugin, step.key):
            for row, _ in wanted:
                first.setdefault(row, cell)
    rows = {row.id: row for row in study.rows}
    shown = [(rows[name].what, first[name]) for name in study.pictures if name in first]
    strips = []
    if shown and getattr(plan.data, "rendered", False):
        photos = session.part(shown[0][1], SEEN).pixels[:COLUMNS].numpy()
        strips.append(("photographs of members", photos))
    for label, cell in shown:
        strips.append((label, sampled(session, cell, "target").pixels[:COLUMNS].numpy()))
    return strips


def recompute_audit(out: Path) -> list[RowOutcome]:
    """Numbers of a study anew from its written files; runs nothing and reads no store.

    Raises:
        PrivbenchError: a file is missing or unreadable.
    """
    try:
        body = json.loads((out / RESULT).read_text(encoding="utf-8"))
        study = parse_audit_study(body["definition"], str(out / RESULT))
        listed = {entry["id"]: entry for entry in body["rows"]}
        outcomes = [
            RowOutcome(
                row,
                {
                    attack: tuple(
                        read_as(MembershipRecord, out / RECORDS / Path(n).name) for n in names
                    )
                    for attack, names in listed[row.id]["records"].items()
                },
                listed[row.id]["error"],
            )
            for row in study.rows
            if row.id in listed
        ]
    except OSError as error:
        raise RecordError(f"Cannot read the study in {out}: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordError(f"{out / RESULT} is not a study's result: {error!r}") from error
    _write_result(body, outcomes, out)
    return outcomes


def _write_result(body: dict[str, Any], outcomes: Sequence[RowOutcome], out: Path) -> None:
    study = parse_audit_study(body["definition"], "the study")
    done = {o.row.id: o.records for o in outcomes}
    results = summarise(study, done, {o.row.id: o.error for o in outcomes})
    text = json.dumps(
        body | {"results": results}, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False
    )
    write_bytes(out / RESULT, (text + "\n").encode())


def _listed(out: Path) -> set[str]:
    """Names of the records that an earlier result of this folder lists."""
    try:
        body = json.loads((out / RESULT).read_text(encoding="utf-8"))
        found = [n for row in body["rows"] for names in row["records"].values() for n in names]
        return {Path(name).name for name in found}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return set()
