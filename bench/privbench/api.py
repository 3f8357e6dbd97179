"""The Python interface that the command line is a shell over."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from privbench.errors import ConfigError, ModelError, PluginError, RecordError, StoreError
from privbench.execute import execute
from privbench.isolate import Failure, Isolation, refuse_own_registry
from privbench.pictures import inversion_gallery, write_bytes
from privbench.plan import (
    MOST_DRAWS,
    Choice,
    Plan,
    Planned,
    Status,
    Study,
    make_plan,
    parse_settings,
    resolve,
    status,
)
from privbench.progress import Reporter, Silent
from privbench.record import Record, write_record
from privbench.registry import Registry, load_registry
from privbench.results import scores_bytes
from privbench.spec import Kind
from privbench.store import Store
from privbench.timing import pick_device

STORE = ".privbench/store"
RECORDS = ".privbench/records"


def make_study(
    anonymizers: Sequence[str],
    attacks: Sequence[str],
    metrics: Sequence[str] = (),
    *,
    dataset: str = "synthfaces",
    protocol: str = "auto",
    seed: int = 0,
    device: str = "auto",
    settings: Sequence[str] = (),
    draws: int = 1,
    fixed_seed: bool = False,
    judges: Sequence[str] = (),
    registry: Registry | None = None,
) -> Study:
    """A study from ids (or `id:VALUE`) and `key=value` settings, as the command line takes them.

    Args:
        draws: independent draws of each probe that stochastic anonymizers release.
        fixed_seed: all images share one seed.
        judges: recognisers that judge what inversion attacks reconstruct.
    """
    registry = registry or load_registry()
    selected: list[tuple[Kind, str]] = [("anonymizer", a) for a in anonymizers]
    selected += [("attack", a) for a in attacks]
    selected += [("metric", m) for m in metrics]
    selected.append(("dataset", dataset))
    given = parse_settings(settings, selected, registry)

    def choices(kind: Kind, ids: Sequence[str], **more: Any) -> tuple[Choice, ...]:
        return tuple(Choice(id=i, settings=given[kind, i], **more) for i in dict.fromkeys(ids))

    if not 1 <= draws <= MOST_DRAWS:
        raise ConfigError(f"draws must be from 1 to {MOST_DRAWS}; got {draws}.")
    return Study(
        anonymizers=choices("anonymizer", anonymizers, draws=draws, fixed_seed=fixed_seed),
        attacks=choices("attack", attacks),
        metrics=choices("metric", metrics),
        judges=tuple(Choice(id=i) for i in dict.fromkeys(judges)),
        dataset=Choice(id=dataset, settings=given["dataset", dataset]),
        protocol=protocol,
        seed=seed,
        device=device,
    )


def plan_study(study: Study, registry: Registry | None = None) -> Plan:
    """Resolve a study: ids, settings, models, data, keys. Runs nothing."""
    return make_plan(study, registry or load_registry(), pick_device(study.device).type)


def run_study(
    study: Study,
    *,
    store: str = STORE,
    records: str | None = RECORDS,
    report: str | None = None,
    own_images: bool = False,
    repair: bool = False,
    reporter: Reporter | None = None,
    registry: Registry | None = None,
    isolate: Isolation | None = None,
) -> tuple[list[Record], list[Failure]]:
    """Run every cell of a study that is not in the store yet.

    Args:
        store: directory or fsspec URL of the artefacts.
        records: directory for the records and their scores; None writes none.
        report: HTML file with the tables, and with galleries of what inversion attacks
            reconstruct; each gallery is also written beside its record, as PNG.
        own_images: show images in them even where the data set does not say that they are
            rendered: they may be of real people.
        repair: check every stored part this study uses, and recompute what is damaged.
        isolate: run cells in a worker process within these limits, as the command line does, so
            that a plugin that hangs or kills its process costs its own cells only. The worker is a
            fresh Python: of this process it takes over the import path, the environment and the
            number of torch's threads. It finds installed plugins only, not those of `registry`,
            and does not import the calling script. By default cells run in this process.

    Returns:
        The records in the study's order, and the cells that failed.

    Raises:
        PrivbenchError: nothing could be planned, or the store fails.
    """
    refuse_own_registry(registry, isolate)
    plan, faults = _plan_without_faults(study, registry or load_registry())
    opened, device = Store(store), pick_device(study.device)
    if repair:
        discard_damaged(plan, opened)
    done, failures = execute(plan, opened, device, reporter or Silent(), isolate)
    failures = [*faults, *failures]
    if records is not None:
        by_key = {cell.record.key: cell for cell in plan.cells}
        for i, record in enumerate(done):
            cell = by_key[record.keys["record"]]
            done[i] = _export(record, scores_bytes(plan, opened, cell), Path(records))
    if report is not None:
        from privbench.report import render

        unfinished = [(failure.label, str(failure.error)) for failure in failures]
        drawn = _galleries(plan, opened, done, own_images)
        for name, picture in drawn.items() if records is not None else ():
            write_bytes(Path(str(records)) / f"{name}.inversion.png", picture)
        write_bytes(Path(report), render(done, drawn, unfinished).encode())
    return done, failures


def _plan_without_faults(study: Study, registry: Registry) -> tuple[Plan, list[Failure]]:
    """A plan; an anonymizer whose own code or model fails is left out where there are others.

    Raises:
        PrivbenchError: nothing is left, or it is not an anonymizer's fault.
    """
    try:
        return plan_study(study, registry), []
    except (PluginError, ModelError):
        faults: list[Failure] = []
        sound: list[Choice] = []
        for choice in study.anonymizers:
            try:
                resolve(registry, "anonymizer", choice)
                sound.append(choice)
            except (PluginError, ModelError) as error:
                faults.append(Failure(choice.id, error))
        if not sound or not faults:
            raise
    return plan_study(study.model_copy(update={"anonymizers": tuple(sound)}), registry), faults


def _galleries(
    plan: Plan, store: Store, records: Sequence[Record], own_images: bool
) -> dict[str, bytes]:
    """Record name -> PNG of the best, median and worst reconstruction; none of real people."""
    if not (own_images or getattr(plan.data, "rendered", False)):
        return {}
    names = {record.keys["record"]: record.name for record in records}
    return {
        names[cell.record.key]: inversion_gallery(plan, store, [(cell.label, cell)])
        for cell in plan.cells
        if cell.invert and cell.record.key in names
    }


def run(
    anonymizers: Sequence[str],
    attacks: Sequence[str],
    metrics: Sequence[str] = (),
    *,
    dataset: str = "synthfaces",
    protocol: str = "auto",
    seed: int = 0,
    device: str = "auto",
    settings: Sequence[str] = (),
    draws: int = 1,
    fixed_seed: bool = False,
    judges: Sequence[str] = (),
    store: str = STORE,
    records: str | None = None,
    reporter: Reporter | None = None,
) -> list[Record]:
    """Run anonymizers under attacks and return the records.

    >>> import privbench
    >>> privbench.run(["pixelate"], ["random-guess"])  # doctest: +SKIP

    Raises:
        PrivbenchError: the first failure; what was finished is in the store.
    """
    study = make_study(
        anonymizers,
        attacks,
        metrics,
        dataset=dataset,
        protocol=protocol,
        seed=seed,
        device=device,
        settings=settings,
        draws=draws,
        fixed_seed=fixed_seed,
        judges=judges,
    )
    done, failures = run_study(study, store=store, records=records, reporter=reporter)
    if failures:
        raise failures[0].error
    return done


def explain(study: Study, *, store: str = STORE) -> list[Status]:
    """Which steps are in the store, and why the others are not."""
    return status(plan_study(study), Store(store))


def discard_damaged(plan: Planned, store: Store) -> list[str]:
    """Drop artefacts of this plan whose marker or parts are damaged; returns their labels."""
    dropped = []
    for step in plan.steps():
        try:
            found = store.find(step.stage, step.plugin, step.key)
            names = found.parts if found else tuple(store.parts(step.key).values())
            for name in names:
                store.read_part(step.key, name)
        except StoreError:
            store.discard(step.stage, step.plugin, step.key)
            dropped.append(step.label)
    return dropped


def _export(record: Record, scores: bytes, folder: Path) -> Record:
    """Write a record and, beside it, the scores it rests on."""
    name = f"{record.name}.scores.safetensors"
    full = record.model_copy(
        update={"scores": {"file": name, "sha256": hashlib.sha256(scores).hexdigest()}}
    )
    path = write_record(full, folder)
    try:
        path.with_name(name).write_bytes(scores)
    except OSError as error:
        raise RecordError(f"Cannot write the scores of {path}: {error}") from error
    return full
