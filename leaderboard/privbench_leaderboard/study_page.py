"""A study as a page: sentences, pictures, plots and tables, all from `study.json`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from privbench_leaderboard.curve_figures import plot_curves
from privbench_leaderboard.errors import LeaderboardError
from privbench_leaderboard.inversion_page import inversion_section
from privbench_leaderboard.ladder_figures import plot_det, plot_ladder
from privbench_leaderboard.markdown import (
    BOUND,
    escape,
    estimate,
    inert,
    number,
    pipe_table,
    signed,
)
from privbench_leaderboard.studies import Attacked, Study, Utility, Variant, load_study
from privbench_leaderboard.study_figures import plot_frontier, plot_sweeps
from privbench_leaderboard.study_words import sentences

SWEEPS, FRONTIER, PICTURE = "sweeps.png", "frontier.png", "people.jpg"
LADDER, DET = "ladder.png", "det.png"
INVERSIONS, CURVES = "inversions.png", "curves.png"

_DET = (
    "Each release against its own person (mated) and against everyone else, under the attack with "
    "the highest rank-1. A lower curve gives more away."
)
_OPTIONAL = {"DIR at FPIR 10 % ↓", "D_sys ↓"}
"""Columns that appear where some row has a value."""

_OTHER = ("few-ref", "single-ref", "few-ref+source", "single-ref+source")


def write_study(folder: Path | str) -> Path:
    """Write `README.md` and the plots beside `study.json`.

    Args:
        folder: holds `study.json`, and `people.jpg` if there is a picture grid.

    Raises:
        LeaderboardError: `study.json` cannot be read, or a file cannot be written.
    """
    root = Path(folder)
    study = load_study(root / "study.json")
    text = render_study(
        study,
        sweeps=plot_sweeps(study, root / SWEEPS),
        front=bool(plot_frontier(study, root / FRONTIER)),
        picture=(root / PICTURE).is_file(),
        ladder=plot_ladder(study, root / LADDER),
        det=plot_det(study, root / DET),
        inversions=INVERSIONS if (root / INVERSIONS).is_file() else "",
        curves=CURVES if plot_curves(study, root / CURVES) else "",
    )
    path = root / "README.md"
    try:
        path.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise LeaderboardError(f"Cannot write {path}: {error}") from error
    return path


def render_study(
    study: Study,
    sweeps: bool = False,
    front: bool = False,
    picture: bool = False,
    ladder: bool = False,
    det: bool = False,
    inversions: str = "",
    curves: str = "",
) -> str:
    """The page as Markdown. Names from `study.json` are escaped.

    Args:
        sweeps: there is a plot of the sweeps.
        front: there is a frontier plot.
        picture: there is a picture grid.
        ladder: there is a plot of the attacks.
        det: there is a plot of detection error tradeoffs.
        inversions: file of the galleries of reconstructions; "" for none.
        curves: file of the plot over query budgets; "" for none.
    """
    asked = study.definition
    form = " --quick" if study.quick else ""
    parts = [
        f"# {escape(asked.title)}",
        f"<!-- Written by `privbench study {escape(study.name)}{form}`. Do not edit. -->",
        inert(asked.question),
        _facts(study),
        "## What it says",
        *sentences(study),
    ]
    if sweeps:
        parts += ["## Strength", f"![Rank-1 against the strength of a setting]({SWEEPS})",
                  "Bands are 95 % intervals."]  # fmt: skip
    if front:
        parts += [
            "## Privacy and utility",
            f"![Rank-1 against utility, with the Pareto front]({FRONTIER})",
            "Filled points may be on the front (yellow): nothing else is both more useful and "
            "better protected. Hollow ones are controls and diagnostics, which nobody would "
            "release. Bars are 95 % intervals.",
        ]
    if picture:
        parts += ["## Pictures", f"![Sources and what each method released]({PICTURE})"]
    if study.ladder:
        parts += ["## The ladder of attacks", _ladder_table(study), _ladder_legend(study)]
        parts += [f"![Rank-1 of each attack on each variant]({LADDER})"] if ladder else []
    parts += inversion_section(study, inversions, curves)
    if det:
        parts += ["## Verification", f"![Detection error tradeoff]({DET})", _DET]
    parts += ["## Who is recognised", _main_table(study), _reported(study), _legend(study)]
    parts += ["## Other reference protocols", _trials_table(study)]
    if asked.references:
        parts += ["## Paired differences", _difference_table(study), _tests(study)]
    if table := _utility_table(study):
        parts += ["## Utility", table]
    if asked.notes:
        parts += ["## Notes", "\n".join(f"- {inert(note)}" for note in asked.notes)]
    parts += _failures(study)
    return "\n\n".join(part for part in parts if part) + "\n"


def _facts(study: Study) -> str:
    found = study.results
    attacks = {
        a.attack: a for v in found.variants for a in v.attacks if a.control is None
    }  # the settings are in the records
    steps = [f"{escape(name)}{_steps(a)}" for name, a in sorted(attacks.items())]
    return (
        f"Protocol {escape(found.protocol.name)} v{found.protocol.version} on "
        f"{escape(found.dataset.get('id', '?'))} (SHA-256 "
        f"{escape(found.dataset.get('digest', '')[:12])}): {found.probes} probes of "
        f"{found.people} people, all enrolled; chance {number(1 / found.people)}; attack: "
        f"{', '.join(steps)}. All variants met the same photographs. {BOUND}"
    )


def _steps(attacked: Attacked) -> str:
    steps = attacked.config.get("steps")
    return f" ({escape(str(steps))} training steps)" if steps is not None else ""


def _main_table(study: Study) -> str:
    trial, k = study.results.primary_trial, study.definition.k
    several = any(len(v.attacks) > 1 for v in study.results.variants)
    head = ["Group", "Variant", "Rank-1 ↓", "Source among references ↓", "Cross ↓", "ROC AUC ↓",
            "DIR at FPIR 10 % ↓", "D_sys ↓", f"k = {k}", f"k = {k}, every trial",
            "ms/image ↓"]  # fmt: skip
    rows = []
    for v in study.results.variants:
        a = v.hardest(trial)
        cells = [v.group, escape(v.label)]
        if a is None:
            why = "control attacks only" if v.attacks else "not finished"
            rows.append([*cells, why, *[""] * (len(head) - 3 + several)])
            continue
        shown = [a.trials.get(name) for name in (trial, f"{trial}+source", "cross")]
        cells += [estimate(t) for t in shown]
        cells += [estimate(a.auc), estimate(a.dir), estimate(a.d_sys)]
        cells += [a.trials[trial].verdict, a.worst]
        cells += ["" if a.ms_per_image is None else f"{a.ms_per_image:.3g}"]
        rows.append(cells + ([escape(a.attack)] if several else []))
    full = head + (["Worst attack"] if several else [])
    used = [i for i, name in enumerate(full) if name not in _OPTIONAL or any(r[i] for r in rows)]
    return pipe_table([full[i] for i in used], [[row[i] for i in used] for row in rows])


def _ladder_table(study: Study) -> str:
    """Variants down, attacks across, weakest first, then the maximum over all but controls."""
    trial = study.results.primary_trial
    rows = []
    for v in study.results.variants:
        by_attack = {a.attack: a.trials.get(trial) for a in v.attacks}
        cells = [estimate(by_attack.get(name)) for name in study.ladder]
        rows.append([escape(v.label), *cells, estimate(v.worst_case)])
    return pipe_table(["Rank-1 ↓ under", *map(escape, study.ladder), "worst case"], rows)


def _ladder_legend(study: Study) -> str:
    facts = {a.attack: a for v in study.results.variants for a in v.attacks}
    said = []
    for name in study.ladder:
        a = facts[name]
        asked = f", {a.queries:,} queries" if a.queries else ""
        control = ", a control: no part of the worst case" if a.control else ""
        said.append(f"{escape(name)} ({escape(a.threat_model)}{asked}{control})")
    return (
        f"Attacks by what they know of the anonymizer: {'; '.join(said)}. The worst case is the "
        "largest of the rank-1; its interval allows for the choice among several."
    )


def _trials_table(study: Study) -> str:
    trial = study.results.primary_trial
    rows = [
        [escape(v.label), *(estimate(a.trials.get(name)) for name in _OTHER)]
        for v in study.results.variants
        if (a := v.hardest(trial))
    ]
    return pipe_table(["Rank-1 ↓ of", *_OTHER], rows)


def _difference_table(study: Study) -> str:
    references = study.definition.references
    head = ["Rank-1 of"]
    for name in references:
        under = f" under {escape(study.judge(name))}" if study.ladder else ""
        head += [f"minus {escape(name)}{under}", "p", "p, Holm"]
    rows = []
    for v in study.results.variants:
        if v.hardest(study.results.primary_trial) is None:
            continue
        cells = [escape(v.label)]
        for name in references:
            d = study.difference(v, name)
            if d is None or d.value is None:
                cells += ["", "", ""]
                continue
            cells += [signed(d), _p(d.p), _p(d.p_holm)]
        rows.append(cells)
    return pipe_table(head, rows)


def _utility_table(study: Study) -> str:
    found = [(v, a) for v in study.results.variants
             if (a := v.hardest(study.results.primary_trial)) and a.utility]  # fmt: skip
    names = study.definition.utility or tuple(
        dict.fromkeys(f"{u.metric}/{u.name}" for _, a in found for u in a.utility)
    )
    columns = {
        name: u for name in names if (u := next(_uses(found, name), None)) is not None
    }  # a metric that no record holds has no column
    if not columns:
        return ""
    head = ["Variant"] + [
        f"{escape(u.title)} {'↑' if u.protects == 'higher' else '↓'}" for u in columns.values()
    ]
    rows = [[escape(v.label), *(_bare(a.useful(n)) for n in columns)] for v, a in found]
    return pipe_table(head, rows) + "\n\nIntervals are in `study.json`."


def _uses(found: Sequence[tuple[Variant, Attacked]], name: str) -> Iterator[Utility]:
    return (u for _, a in found if (u := a.useful(name)) is not None)


def _bare(u: Utility | None) -> str:
    return "" if u is None or u.value is None else f"{u.value:.3f}"


def _reported(study: Study) -> str:
    lines = []
    for r in study.definition.reported:
        caveats = "; ".join(inert(c) for c in r.caveats)
        lines.append(
            f"> **Reported elsewhere: {r.value:.3f}** ({inert(r.what)}; {inert(r.source)}). "
            f"Not comparable row by row: {caveats}."
        )
    return "\n>\n".join(lines)


def _legend(study: Study) -> str:
    k = study.definition.k
    return (
        f"**Rank-1**: share of released images whose person the attacker names first, with all "
        f"reference photographs of each person, none of them the source; of several attacks the "
        f"worst. **Source among references**: the very photograph that was anonymized takes the "
        f"place of one reference. **Cross**: the references are anonymized, too. **k = {k}**: by "
        f"the interval of rank-1 against {1 / k:.3f}; **every trial**: the worst verdict over all "
        f"reference protocols. Intervals are 95 % and resample people; each row's is its own, not "
        f"widened for the number of rows. They do not cover other training runs of the attack."
    )


def _tests(study: Study) -> str:
    tests = study.results.tests
    return (
        f"Differences of rank-1 on the same probes, under the same attack. Intervals: "
        f"{study.results.protocol.resamples:,} resamples of people. p: two-sided, "
        f"{tests.flips:,} random sign flips of people; Holm's correction over all {tests.count} "
        f"differences of the table together."
    )


def _failures(study: Study) -> list[str]:
    lines = [f"- {escape(v.label)}: {inert(v.error)}" for v in study.results.variants if v.error]
    if study.absent_metrics:
        names = ", ".join(escape(m) for m in study.absent_metrics)
        lines.append(f"- metrics that are not installed: {names}")
    return ["## What is missing", "\n".join(lines)] if lines else []


def _p(value: float) -> str:
    return f"{value:.4f}" if value < 0.001 else f"{value:.3f}"
