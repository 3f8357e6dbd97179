"""Studies: many variants on the same probes, paired, and written down so that all of it can be
recomputed from the written files.

`collect` runs what is missing and writes records, per-probe hits and pictures; `summarise` turns
records and hits into the numbers of `study.json`. Only `collect` needs the store.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from privbench.api import STORE
from privbench.data import PRIMARY_TRIAL
from privbench.errors import ConfigError, PrivbenchError, RecordError
from privbench.execute import run_cells, worker_for
from privbench.isolate import Isolation, Worker, refuse_own_registry
from privbench.ladder import judged
from privbench.paired import rank1_hits
from privbench.pictures import write_grid, write_inversions
from privbench.plan import Cell, Choice, Plan, Study, make_plan, resolve
from privbench.progress import Reporter, Silent
from privbench.record import PACKED, Record, read_record, write_record
from privbench.registry import Registry, load_registry
from privbench.results import scores_of, trial_evidence
from privbench.session import Session
from privbench.store import Store
from privbench.studyfile import StudyFile, Variant, parse_study, select
from privbench.summary import summarise
from privbench.timing import pick_device

HITS, RESULT, RECORDS = "hits.parquet", "study.json", "records"
PICTURE, GALLERY = "people.jpg", "inversions.png"


@dataclass(frozen=True, slots=True)
class CurveOutcome:
    """What became of one variant on one curve.

    Attributes:
        curve: place in the study's curves.
        variant: label.
        records: at those values that were finished.
        error: why some are missing, or "".
    """

    curve: int
    variant: str
    records: tuple[Record, ...]
    error: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a variant.

    Attributes:
        records: one per attack that was finished.
        error: why the variant is missing or not whole; "" where all went well.
    """

    variant: Variant
    records: tuple[Record, ...] = ()
    error: str = ""


def run_study_file(
    name: str,
    study: StudyFile,
    out: Path,
    *,
    quick: bool = False,
    store: str = STORE,
    device: str = "auto",
    reporter: Reporter | None = None,
    registry: Registry | None = None,
    isolate: Isolation | None = None,
) -> list[Outcome]:
    """Run what is missing of a study and write its files.

    A variant that fails is named in the result and takes no other with it.

    Args:
        name: the study's short name, for `study.json`.
        out: folder for `study.json`, `hits.parquet`, `records/` and `people.jpg`.
        quick: the quick form.
        isolate: as for `privbench.api.run_study`.

    Returns:
        One outcome per variant, in the order of the tables.

    Raises:
        PrivbenchError: no variant could be run, an attack or the data is unusable, or the store
            or `out` fails.
    """
    refuse_own_registry(registry, isolate)
    registry = registry or load_registry()
    reporter = reporter or Silent()
    variants = select(study, quick)
    errors = {v.label: _fault(v, registry) for v in variants}
    runnable = [v for v in variants if not errors[v.label]]
    if not runnable:
        reasons = "; ".join(f"{label}: {error}" for label, error in errors.items())
        raise ConfigError(f"No variant of the study can be run here. {reasons or 'It has none.'}")
    absent = [m.id for m in study.metrics if not _installed(m.id, registry)]
    plan = _plan(study, quick, runnable, absent, device, registry)
    planned = [] if quick else _curve_plans(study, runnable, plan, registry, device)
    opened = Store(store)
    session = Session(plan, opened, pick_device(device), reporter)
    studies = [plan.study, *(curve.study for _, _, curve in planned)]
    with worker_for(studies, session, isolate) as worker:
        outcomes, cells = _run_variants(variants, errors, session, worker)
        if not any(o.records for o in outcomes):
            raise ConfigError(f"No variant of the study was finished. {outcomes[-1].error}")
        curves = _run_curves(study, planned, session, worker)
    outcomes = _with_curves(study, outcomes, curves)
    _clear(out)
    made = [r for o in outcomes for r in o.records] + [r for c in curves for r in c.records]
    for record in made:
        write_record(record, out / RECORDS, packed=True)
    _write_hits(plan, opened, cells, out)
    if study.people:
        shown = [(v.label, cells[v.label][0]) for v in variants if v.picture and cells.get(v.label)]
        write_grid(plan, opened, shown, study.people, out / PICTURE)
        best = [_best_inversion(o, cells.get(o.variant.label, [])) for o in outcomes]
        if given_back := [row for row in best if row]:
            write_inversions(plan, opened, given_back, out / GALLERY)
    body = {
        "schema_version": 1,
        "name": name,
        "quick": quick,
        "absent_metrics": absent,
        "definition": study.model_dump(mode="json"),
        "variants": [
            {
                "label": o.variant.label,
                "error": o.error,
                "records": [f"{r.name}{PACKED}" for r in o.records],
            }
            for o in outcomes
        ],
        "curves": [
            {
                "curve": c.curve,
                "variant": c.variant,
                "error": c.error,
                "records": [f"{r.name}{PACKED}" for r in c.records],
            }
            for c in curves
        ],
    }
    _write_result(body, outcomes, curves, out)
    return outcomes


def _run_variants(
    variants: Sequence[Variant],
    errors: Mapping[str, str],
    session: Session,
    worker: Worker | None,
) -> tuple[list[Outcome], dict[str, list[Cell]]]:
    """What became of every variant, and the finished cells of those that could be run."""
    outcomes: list[Outcome] = []
    finished: dict[str, list[Cell]] = {}
    width = len(session.plan.study.attacks)
    for number, variant in enumerate(variants):
        place = f"[{number + 1}/{len(variants)}] {variant.label}"
        if errors[variant.label]:
            session.reporter.note(f"{place}: left out")
            outcomes.append(Outcome(variant, error=errors[variant.label]))
            continue
        session.reporter.note(place)
        first = len(finished) * width
        row = session.plan.cells[first : first + width]
        own = [cell for cell in row if cell.attack.id not in variant.without]
        records, failures = run_cells(session, own, worker)
        outcomes.append(
            Outcome(variant, tuple(records), "; ".join(f"{f.label}: {f.error}" for f in failures))
        )
        keys = {r.keys["record"] for r in records}
        finished[variant.label] = [c for c in own if c.record.key in keys]
    return outcomes, finished


def _best_inversion(outcome: Outcome, cells: Sequence[Cell]) -> tuple[str, Cell] | None:
    """Label and cell of a variant's inversion with the largest gain, for the gallery."""
    gains = {
        record.keys["record"]: numbers["gain"].value or 0.0
        for record in outcome.records
        for numbers in list(judged(record).values())[:1]
    }
    own = [cell for cell in cells if cell.record.key in gains]
    if not own or not outcome.variant.picture:
        return None
    found = max(own, key=lambda cell: gains[cell.record.key])
    return f"{outcome.variant.label}: {found.attack.id}", found


def _curve_plans(
    study: StudyFile, variants: Sequence[Variant], plan: Plan, registry: Registry, device: str
) -> list[tuple[int, list[Variant], Plan]]:
    """Place, variants and plan of every curve; only identification and inversion are measured.

    Raises:
        PrivbenchError: a curve cannot be planned, or its attack inverts nothing.
    """
    evidence = {m.id: registry.get("metric", m.id).spec.tags.evidence
                for m in study.metrics if _installed(m.id, registry)}  # fmt: skip
    metrics = tuple(m for m in study.metrics
                    if evidence.get(m.id) in ("identification", "inversion"))  # fmt: skip
    found = []
    for place, curve in enumerate(study.curves):
        if not registry.get("attack", curve.attack.id).spec.tags.inverts:
            raise ConfigError(f"A curve is of an attack that inverts; {curve.attack.id} does not.")
        if own := [v for v in variants if v.label in curve.variants]:
            body = plan.study.model_dump() | {
                "anonymizers": [_choice(v) for v in own],
                "attacks": curve.choices(),
                "metrics": metrics,
                "judges": [Choice(id=name) for name in curve.judges or study.judges],
            }
            asked = Study.model_validate(body)
            found.append((place, own, make_plan(asked, registry, pick_device(device).type)))
    return found


def _run_curves(
    study: StudyFile,
    plans: Sequence[tuple[int, list[Variant], Plan]],
    session: Session,
    worker: Worker | None,
) -> tuple[CurveOutcome, ...]:
    """Every curve on its variants."""
    found = []
    for place, variants, plan in plans:
        curve = study.curves[place]
        apart = Session(plan, session.store, session.device, session.reporter, session.trained)
        width = len(curve.values)
        for i, variant in enumerate(variants):
            session.reporter.note(f"{curve.attack.id} on {variant.label}: {curve.setting}")
            records, failures = run_cells(apart, plan.cells[i * width : (i + 1) * width], worker)
            error = "; ".join(f"{f.label}: {f.error}" for f in failures)
            found.append(CurveOutcome(place, variant.label, tuple(records), error))
    return tuple(found)


def _with_curves(
    study: StudyFile, outcomes: Sequence[Outcome], curves: Sequence[CurveOutcome]
) -> list[Outcome]:
    """Outcomes whose errors name what is missing of a variant's curves, too."""
    found = []
    for outcome in outcomes:
        errors = [outcome.error] + [
            f"{study.curves[c.curve].attack.id} over {study.curves[c.curve].setting}: {c.error}"
            for c in curves
            if c.variant == outcome.variant.label and c.error
        ]
        found.append(replace(outcome, error="; ".join(e for e in errors if e)))
    return found


def recompute(out: Path) -> list[Outcome]:
    """Numbers of a study anew from its written files; runs nothing and reads no store.

    Raises:
        PrivbenchError: a file is missing or unreadable.
    """
    try:
        body = json.loads((out / RESULT).read_text(encoding="utf-8"))
        study = parse_study(body["definition"], str(out / RESULT))
        listed = {entry["label"]: entry for entry in body["variants"]}
        curves = [
            CurveOutcome(c["curve"], c["variant"], _read(out, c["records"]), c["error"])
            for c in body.get("curves", [])
        ]
        chosen = [v for v in select(study, body["quick"]) if v.label in listed]
    except OSError as error:
        raise RecordError(f"Cannot read the study in {out}: {error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise RecordError(f"{out / RESULT} is not a study's result: {error!r}") from error
    outcomes = [
        Outcome(v, _read(out, listed[v.label]["records"]), listed[v.label]["error"]) for v in chosen
    ]
    _write_result(body, outcomes, curves, out)
    return outcomes


def _read(out: Path, names: Sequence[str]) -> tuple[Record, ...]:
    return tuple(read_record(out / RECORDS / Path(name).name) for name in names)


def _write_result(
    body: dict[str, Any], outcomes: Sequence[Outcome], curves: Sequence[CurveOutcome], out: Path
) -> None:
    study = parse_study(body["definition"], "the study")
    rows = [(o.variant, o.records, o.error) for o in outcomes]
    points = [(study.curves[c.curve], c.variant, c.records) for c in curves]
    body = body | {"results": summarise(study, rows, read_hits(out / HITS), points)}
    text = json.dumps(body, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    _write(out / RESULT, (text + "\n").encode())


def _fault(variant: Variant, registry: Registry) -> str:
    """Why a variant cannot be planned, or ""."""
    try:
        resolve(registry, "anonymizer", _choice(variant))
    except PrivbenchError as error:
        return str(error)
    return ""


def _choice(variant: Variant) -> Choice:
    return Choice(
        id=variant.anonymizer,
        settings=variant.settings,
        draws=variant.draws,
        fixed_seed=variant.fixed_seed,
    )


def _installed(metric: str, registry: Registry) -> bool:
    found = registry.plugins.get(("metric", metric))
    return found is not None and not found.unavailable


def _plan(
    study: StudyFile,
    quick: bool,
    variants: Sequence[Variant],
    absent: Sequence[str],
    device: str,
    registry: Registry,
) -> Plan:
    grid = Study(
        anonymizers=tuple(_choice(v) for v in variants),
        attacks=(study.quick.attacks if quick else ()) or study.attacks,
        metrics=tuple(m for m in study.metrics if m.id not in absent),
        judges=tuple(Choice(id=name) for name in study.judges),
        dataset=study.dataset,
        protocol=(study.quick.protocol if quick else "") or study.protocol,
        seed=study.seed,
        device=device,
    )
    return make_plan(grid, registry, pick_device(device).type)


def _write_hits(plan: Plan, store: Store, cells: Mapping[str, Sequence[Cell]], out: Path) -> None:
    """Rank-1 hits of every probe, trial, attack and variant, as a long table."""
    probes = plan.split.probes
    keys = [plan.data.keys[i] for i in probes]
    tables = []
    for label, own in cells.items():
        for cell in own:
            scored = store.find(cell.score.stage, cell.score.plugin, cell.score.key)
            if scored is None:
                raise RecordError(
                    f"The store no longer holds the scores of {cell.score.label}. Run again with "
                    "another --store, or delete the step's record there."
                )
            scores = scores_of(plan, next(iter(store.read(scored))), scored.notes["fusion"])
            for trial, found, _ in trial_evidence(plan, scores):
                columns = {
                    "variant": [label] * len(keys),
                    "record": [cell.record.key] * len(keys),
                    "trial": [trial] * len(keys),
                    "probe": keys,
                    "subject": found.subject,
                    "hit": rank1_hits(found),
                }
                tables.append(pa.table(columns))
    sink = pa.BufferOutputStream()
    pq.write_table(pa.concat_tables(tables), sink, compression="zstd")
    _write(out / HITS, sink.getvalue().to_pybytes())


def read_hits(path: Path) -> dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]:
    """(variant, record key) -> (N,) subject and (N,) rank-1 hit of each probe, primary trial.

    Probes are in one order for all variants.

    Raises:
        RecordError: the file is missing, damaged, or its probes differ between variants.
    """
    try:
        table = pq.read_table(path, filters=[("trial", "=", PRIMARY_TRIAL)])
        names = np.array([f"{v}\n{r}" for v, r in zip(
            table["variant"].to_pylist(), table["record"].to_pylist(), strict=True)])  # fmt: skip
        probe = np.array(table["probe"].to_pylist())
        subject, hit = table["subject"].to_numpy(), table["hit"].to_numpy()
    except (OSError, pa.ArrowException, KeyError) as error:
        raise RecordError(f"Cannot read the hits {path}: {error}") from error
    found, first = {}, None
    for name in dict.fromkeys(names.tolist()):
        rows = np.flatnonzero(names == name)
        rows = rows[np.argsort(probe[rows], kind="stable")]
        first = probe[rows] if first is None else first
        if not np.array_equal(first, probe[rows]):
            raise RecordError(f"{path} must hold the same probes for every variant.")
        label, _, key = name.rpartition("\n")
        found[label, key] = (subject[rows], hit[rows])
    return found


def _clear(out: Path) -> None:
    """Remove the records that an earlier result of this folder lists, and nothing else."""
    try:
        body = json.loads((out / RESULT).read_text(encoding="utf-8"))
        listed = (*body["variants"], *body.get("curves", []))
        names = [n for entry in listed for n in entry["records"]]
    except (OSError, ValueError, KeyError, TypeError):
        return
    for name in names:
        (out / RECORDS / Path(name).name).unlink(missing_ok=True)


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise RecordError(f"Cannot write {path}: {error}") from error
