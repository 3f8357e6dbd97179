"""The page of one anonymizer as plain values for its template."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from privbench_leaderboard.markdown import facts_of
from privbench_leaderboard.records import Entry, Number, Picture, Plugin
from privbench_leaderboard.site.cells import Cell, Column, columns, estimated
from privbench_leaderboard.site.curves import Series, cmc_picture, roc_picture
from privbench_leaderboard.site.frontiers import device_facts
from privbench_leaderboard.site.index_view import CONTROL, SHORT, bar, section_id
from privbench_leaderboard.standing import Withdrawn
from privbench_leaderboard.subjects import canonical, ref
from privbench_leaderboard.tables import (
    LINKABILITY,
    OPEN_SET,
    RANKED_BY,
    SMALL_SET,
    Row,
    SummaryTable,
)
from privbench_leaderboard.text import plain

MEASURES = (
    ("Rank-1", *RANKED_BY),
    ("Rank-5", "identification", "rank-5"),
    ("ROC AUC", "verification", "auc"),
    ("TAR at FAR 1 %", "verification", "tar@far=0.01"),
    ("Set < 10", *SMALL_SET),
    ("DIR at FPIR 10 %", *OPEN_SET),
    ("D_sys", *LINKABILITY),
)
"""What is shown of every trial of a record: heading, metric, output."""

TRIALS = ("full-ref", "few-ref", "single-ref")
LONGEST_COMMAND = 4000


@dataclass(frozen=True, slots=True)
class Standing:
    """One row of the board."""

    attacker: str
    cells: tuple[tuple[Column, Cell], ...]
    control: str


@dataclass(frozen=True, slots=True)
class Run:
    """One record.

    Attributes:
        id: of its part of the page.
        attack: label.
        control: whether the attack is a control, which counts in no row.
        trials: name of each trial -> its numbers, in the order of `MEASURES`.
        facts: name -> value, of what identifies the record.
        stages: name, median and p95 ms per image, peak MiB, device.
        settings: name -> value, of the anonymizer and the attack.
    """

    id: str
    entry: Entry
    attack: str
    attacker: str
    control: str
    style: int
    main: tuple[Cell, ...]
    bar: Markup
    trials: tuple[tuple[str, tuple[Cell, ...]], ...]
    facts: tuple[tuple[str, str], ...]
    stages: tuple[tuple[str, ...], ...]
    settings: tuple[tuple[str, str], ...]
    command: str


@dataclass(frozen=True, slots=True)
class Part:
    """All runs of one protocol version on one data set."""

    id: str
    title: str
    facts: str
    licences: tuple[tuple[str, str], ...]
    columns: tuple[Column, ...]
    standings: tuple[Standing, ...]
    runs: tuple[Run, ...]
    cmc: str
    roc: str
    drawn: tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class AnonymizerView:
    """The whole page.

    Attributes:
        picture: the one that most records share: what the anonymizer releases. Others, of what
            an attack made of it, stand by their records.
    """

    name: str
    plugin: Plugin
    control: str
    settings: tuple[tuple[str, str], ...]
    weights: tuple[tuple[str, str], ...]
    picture: Picture | None
    parts: tuple[Part, ...]
    withdrawn: tuple[Withdrawn, ...]


@dataclass(frozen=True, slots=True)
class Slice:
    """What one table holds of one anonymizer."""

    table: SummaryTable
    entries: Sequence[Entry]
    rows: Sequence[Row]


def anonymizer_view(
    name: str,
    slices: Sequence[Slice],
    withdrawn: Iterable[Withdrawn],
    styles: Mapping[str, int],
    galleries: Mapping[str, tuple[int, int]],
) -> AnonymizerView:
    """The page of one anonymizer.

    Args:
        name: its label.
        slices: of all tables that hold records of it.
        withdrawn: records of it that count no more.
        styles: id of an attack -> style of its curves, the same on every page.
        galleries: SHA-256 of the pictures that are there -> width and height.
    """
    parts = tuple(_part(found, styles) for found in slices)
    entries = [run.entry for part in parts for run in part.runs]
    plugin = max(entries, key=lambda e: (e.created, e.sha256)).anonymizer
    return AnonymizerView(
        name=plain(name),
        plugin=plugin,
        control=CONTROL.get(plugin.control or "", ""),
        settings=_settings(plugin),
        weights=tuple(sorted((plain(k), plain(v)) for k, v in plugin.weights.items())),
        picture=_commonest(
            e.gallery for e in entries if e.gallery and e.gallery.sha256 in galleries
        ),
        parts=parts,
        withdrawn=tuple(withdrawn),
    )


def _commonest(pictures: Iterable[Picture]) -> Picture | None:
    counted = Counter((p.sha256, p.file, p.alt) for p in pictures)
    if not counted:
        return None
    sha256, file, alt = min(counted, key=lambda facts: (-counted[facts], facts))
    return Picture(file=file, sha256=sha256, alt=alt)


def _part(found: Slice, styles: Mapping[str, int]) -> Part:
    table, rows = found.table, found.rows
    runs = sorted(
        (_run(e, table.attacks[ref(e.attack)], styles) for e in found.entries),
        key=lambda run: (bool(run.control), -_share(run.entry), run.attack, run.entry.seed),
    )
    used = columns(rows)
    drawn = _first_of_each(runs)
    series = [
        Series(run.attack, run.style, curves.cmc, curves.roc)
        for run in drawn
        if (curves := run.entry.curves.get(run.entry.primary_trial))
    ]
    id_ = section_id(table)
    people = next((row.people for row in rows if row.people), None)
    return Part(
        id=id_,
        title=f"{plain(table.protocol)} v{table.version} on {plain(table.data)}",
        facts=facts_of(table),
        licences=tuple((plain(d.licence), plain(d.consent, 400)) for d in table.datasets),
        columns=used,
        standings=tuple(
            Standing(
                SHORT[row.threat_model],
                tuple((column, column.cell(row)) for column in used),
                CONTROL.get(row.control or "", ""),
            )
            for row in rows
        ),
        runs=tuple(runs),
        cmc=cmc_picture(series, people, f"cmc-{id_}"),
        roc=roc_picture(series, f"roc-{id_}"),
        drawn=drawn if series else (),
    )


def _first_of_each(runs: Iterable[Run]) -> tuple[Run, ...]:
    """The run that did worst of each attack, in their order; controls last."""
    found: dict[str, Run] = {}
    for run in runs:
        found.setdefault(run.attack, run)
    return tuple(found.values())


def _run(entry: Entry, attack: str, styles: Mapping[str, int]) -> Run:
    primary = entry.primary_trial
    return Run(
        id=f"r{entry.sha256[:12]}",
        entry=entry,
        attack=plain(attack),
        attacker=SHORT[entry.threat_model],
        control=CONTROL.get(entry.attack.control or "", ""),
        style=styles[entry.attack.id],
        main=_numbers(entry, primary),
        bar=bar(entry.number(primary, *RANKED_BY)),
        trials=tuple((plain(t), _numbers(entry, t)) for t in _ordered(entry.estimates)),
        facts=_facts(entry),
        stages=_stages(entry),
        settings=_settings(entry.attack),
        command=plain(entry.command, LONGEST_COMMAND),
    )


def _numbers(entry: Entry, trial: str) -> tuple[Cell, ...]:
    return tuple(estimated(entry.number(trial, *what)) for _, *what in MEASURES)


def _ordered(trials: Iterable[str]) -> list[str]:
    """Most references first, each followed by the same with the source photo."""

    def place(trial: str) -> tuple[int, str]:
        plain_name = trial.removesuffix("+source")
        known = TRIALS.index(plain_name) if plain_name in TRIALS else len(TRIALS)
        return known, trial

    return sorted(trials, key=place)


def _share(entry: Entry) -> float:
    found: Number | None = entry.number(entry.primary_trial, *RANKED_BY)
    return -1.0 if found is None or found.value is None else found.value


def _facts(entry: Entry) -> tuple[tuple[str, str], ...]:
    told = [
        ("Record", entry.stem),
        ("SHA-256", entry.sha256),
        ("Grade", f"{entry.grade} ({entry.checked})" if entry.checked else entry.grade),
        ("Made", entry.created),
        ("privbench", entry.privbench),
        ("Seed", str(entry.seed)),
        ("Data type", entry.dtype),
        ("Questions to the anonymizer", f"{entry.oracle_queries:,}"),
        ("Attack", f"{entry.attack.id}, version {entry.attack.version}"),
        ("Attack from", entry.attack.distribution),
        ("Licence of its weights", entry.attack.licence),
        ("Packages", ", ".join(f"{k} {v}" for k, v in sorted(entry.packages.items()))),
    ]
    return tuple((name, plain(value, 400)) for name, value in told if value)


def _stages(entry: Entry) -> tuple[tuple[str, ...], ...]:
    def shown(value: float | None) -> str:
        return "" if value is None else f"{value:.3g}"

    return tuple(
        (
            plain(stage.stage),
            shown(stage.summary.median_ms_per_image),
            shown(stage.summary.p95_ms_per_image),
            f"{stage.peak_bytes / 2**20:.0f}",
            plain(", ".join(device_facts(stage.device, entry.dtype))),
        )
        for stage in entry.timing
    )


def _settings(plugin: Plugin) -> tuple[tuple[str, str], ...]:
    return tuple(
        (plain(key), plain(value if isinstance(value, str) else canonical(value)))
        for key, value in sorted(plugin.config.items())
    )
