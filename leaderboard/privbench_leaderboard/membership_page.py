"""A study about membership as a page: sentences, plots and tables, all from `study.json`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from privbench_leaderboard.errors import LeaderboardError
from privbench_leaderboard.markdown import BOUND, escape, estimate, inert, pipe_table
from privbench_leaderboard.membership_figures import (
    plot_epochs,
    plot_guidance,
    plot_power,
    plot_rows,
)
from privbench_leaderboard.membership_sets import set_section
from privbench_leaderboard.membership_study import (
    CHANCE,
    MembershipStudy,
    Part,
    Result,
    Row,
    Trial,
    load_membership,
)
from privbench_leaderboard.membership_words import sentences

ROWS, GUIDANCE, EPOCHS, POWER = "rows.png", "guidance.png", "epochs.png", "power.png"
PICTURE = "samples.jpg"
RATES = (0.01, 0.001)
PORTRAITS = "build/portraits"

_MODELS = {"mia-generated": "ResNet-18", "mia-zero-shot": "CLIP"}
"""What the paper calls its counterparts."""


def write_membership(folder: Path | str) -> Path:
    """Write `README.md` and the plots beside `study.json` of a study about membership.

    Args:
        folder: holds `study.json`, and `samples.jpg` if there are pictures of samples.

    Raises:
        LeaderboardError: `study.json` cannot be read, or a file cannot be written.
    """
    root = Path(folder)
    study = load_membership(root / "study.json")
    plots = {ROWS: plot_rows, GUIDANCE: plot_guidance, EPOCHS: plot_epochs, POWER: plot_power}
    images = [name for name, plot in plots.items() if plot(study, root / name)]
    if (root / PICTURE).is_file():
        images.append(PICTURE)
    text = render_membership(study, images)
    path = root / "README.md"
    try:
        path.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise LeaderboardError(f"Cannot write {path}: {error}") from error
    return path


def render_membership(study: MembershipStudy, images: Sequence[str] = ()) -> str:
    """The page as Markdown. Names from `study.json` are escaped.

    Args:
        images: file names of the plots and pictures beside the page.
    """
    asked, form = study.definition, " --quick" if study.quick else ""
    parts = [
        f"# {escape(asked.title)}",
        f"<!-- Written by `privbench study {escape(study.name)}{form}`. Do not edit. -->",
        inert(asked.question),
        _facts(study),
        "## What it says",
        *sentences(study),
        "## The paper's table",
        _paper_table(study),
        _paper_legend(study),
        *_image(images, ROWS, "AUC of every row, ours and the paper's", "The table without its "
                "sweep, under the first attack. Lines are our 95 % intervals."),
        *_image(images, GUIDANCE, "AUC over guidance, ours and the paper's", "The sweep. Lines "
                "are our 95 % intervals."),
        "## Membership alone",
        "Members against people of their own population whom nobody was trained on, under every "
        "attack: nothing but membership tells the two sets apart.",
        *_alone(study),
        _alone_legend(study),
        *_image(images, EPOCHS, "AUC of single images over epochs of fine-tuning", "Membership "
                "alone, single images. Lines are 95 % intervals."),
        *set_section(study, POWER if POWER in images else ""),
        *_image(images, PICTURE, "Samples of the targets", "What the targets released; "
                "above it photographs of the members' population, where they may be shown.",
                "## Pictures"),
        "## Settings and cost",
        *_settings(study),
    ]  # fmt: skip
    if asked.notes:
        parts += ["## Notes", "\n".join(f"- {inert(note)}" for note in asked.notes)]
    if missing := _missing(study):
        parts += ["## What is missing", "\n".join(missing)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _facts(study: MembershipStudy) -> str:
    found = study.results
    return (
        f"Protocol {escape(found.protocol.name)} v{found.protocol.version} on "
        f"{escape(found.dataset.get('id', '?'))} (SHA-256 "
        f"{escape(found.dataset.get('digest', '')[:12])}). ROC AUC throughout, of which {CHANCE} "
        f"is chance. {BOUND}"
    )


def _image(
    images: Sequence[str], name: str, what: str, caption: str, title: str = ""
) -> Iterator[str]:
    if name in images:
        yield from (title, f"![{what}]({name})", caption)


def _paper_table(study: MembershipStudy) -> str:
    """Rows in the paper's order; those beside which every other is to be read are bold."""
    bold = {row.id for row in (study.membership, study.nobody) if row}
    head = ["Row", "What", "Members / others", "R", "N"]
    for attack in study.attacks:
        head += [f"AUC ↓ of {escape(attack)}", f"paper, {_MODELS.get(attack, 'reported')}"]
    rows = []
    for row in study.table():
        trial, first = study.trial(row), next(iter(row.results.values()), None)
        cells = [
            escape(row.id),
            escape(row.what) + (" (control)" if row.group == "control" else ""),
            _sides(trial, row) if trial else "",
            str(first.auc.targets) if first and first.auc else "",
            _count(first.n if first else None),
        ]
        for attack in study.attacks:
            cells += [estimate(row.auc(attack)), escape(row.reported.get(attack, ""))]
        rows.append([f"**{c}**" if c and row.id in bold else c for c in cells])
    return pipe_table(head, rows)


def _sides(trial: Trial, row: Row) -> str:
    """The two query sets: parts, and what is put on them."""
    nobody = " (no members)" if row.results and not row.trained else ""
    ours = f" + {escape(trial.mark)}" if trial.mark else ""
    theirs = ours if trial.mark_others else ""
    return f"{escape(trial.suspects)}{ours}{nobody} / {escape(trial.others)}{theirs}"


def _paper_legend(study: MembershipStudy) -> str:
    beside = [escape(row.id) for row in (study.membership, study.nobody) if row]
    read = (
        f"**Read every other row beside row{'s' * (len(beside) > 1)} {' and '.join(beside)}**: "
        "there the two sets differ in nothing but membership, or nobody is a member. "
        if beside
        else ""
    )
    return (
        f"{read}**R**: retrained targets, over which the AUC is a mean. **N**: images asked about, "
        "members and others together. Intervals are 95 % and cover the choice of people and the "
        "training of the target; with R = 1 they cover people only. The paper's cover seeds of its "
        f"attack model. Chance: {CHANCE}. The direction of scores is fixed beforehand: an AUC "
        f"below chance stays there. The parts are listed under settings.{_seeds(study)}"
    )


def _seeds(study: MembershipStudy) -> str:
    """Where attack models are fewer than elsewhere, the attack is weaker."""
    found: dict[str, list[str]] = {}
    for row in study.table():
        result = row.results.get(study.attacks[0])
        seeds = result.config.get("seeds") if result else None
        if seeds is not None:
            found.setdefault(escape(str(seeds)), []).append(escape(row.id))
    told = [f"{seeds} in {', '.join(rows)}" for seeds, rows in sorted(found.items())]
    return f" Attack models (seeds) by row: {'; '.join(told)}." if len(found) > 1 else ""


def _alone(study: MembershipStudy) -> Iterator[str]:
    for row in study.alone():
        if not row.results:
            continue
        first = next(iter(row.results.values()))
        targets = max((r.auc.targets for r in row.results.values() if r.auc), default=0)
        yield f"### {escape(row.what)} (row {escape(row.id)})"
        yield f"R = {targets}, N = {_count(first.n)}" + (
            "." if row.trained else ". Nobody here is a member: every attack should be at chance."
        )
        head = ["Attack", "Knows", "Asks", "AUC ↓", "TPR at FPR 1 % ↓", "TPR at FPR 0.1 % ↓",
                "At its own threshold for 1 %: TPR ↓ / FPR"]  # fmt: skip
        yield pipe_table(head, [_alone_cells(*found) for found in study.ordered(row)])


def _alone_cells(attack: str, found: Result) -> list[str]:
    asks = [f"{found.answers:,} images" if found.answers else "",
            f"{found.predictions:,} predictions" if found.predictions else ""]  # fmt: skip
    auc = found.auc if found.auc and found.auc.value is not None else None
    tpr, fpr = (found.numbers.get(f"{side}@calibrated=0.01") for side in ("tpr", "fpr"))
    return [
        escape(attack) + (" (control)" if found.control else ""),
        escape(found.threat_model),
        ", ".join(a for a in asks if a),
        estimate(auc),
        *(_at(found, rate) for rate in RATES),
        f"{estimate(tpr)} / {estimate(fpr)}" if tpr and fpr else "",
    ]


def _at(found: Result, rate: float) -> str:
    exact = next((e for e in found.exact if e.rate == rate), None)
    if exact is None:
        return ""
    return "refused" if exact.refused else estimate(exact.shown)


def _alone_legend(study: MembershipStudy) -> str:
    reasons = dict.fromkeys(
        e.refused for row in study.alone() for r in row.results.values() for e in r.exact
        if e.refused
    )  # fmt: skip
    refused = f" Refused: {' '.join(map(inert, reasons))}" if reasons else ""
    return (
        "**TPR at FPR**: share of members above the threshold that so many non-members exceed, "
        "with an interval that covers the threshold as well (exact, people counted, not images). "
        "**At its own threshold**: the attacker fixes a threshold for an FPR of 1 % on photographs "
        "of its own; the rates are those attained on the two sets. Rates are of the first target, "
        "AUCs of all. **Control**: no attack, but a check; one never sees the target, one guesses."
        f"{refused}"
    )


def _settings(study: MembershipStudy) -> Iterator[str]:
    found, asked = study.results, study.definition
    protocol = found.protocol
    yield pipe_table(
        ["Part", "People", "Images", "Who"],
        [[escape(name), f"{part.identities:,}", f"{part.images:,}", _PARTS.get(name, "")]
         for name, part in sorted(found.parts.items(), key=_place)],
    )  # fmt: skip
    names = [(who, name) for who, name in (("targets'", protocol.target),
             ("attacker's", protocol.auxiliary), ("wild", protocol.wild)) if name]  # fmt: skip
    populations = ", ".join(f"{who} {escape(name)}" for who, name in names)
    yield (
        f"Populations: {populations or 'as given'}. Targets: {_pairs(asked.settings)}; the "
        f"attacker's own models: {_pairs(asked.attackers)}. Seed {asked.seed}; "
        f"{protocol.resamples:,} resamples of people."
    )
    if found.devices:
        rates = [f"{escape(d.stage)} {d.images_per_second:.3g} images/s on {escape(d.device)}"
                 for d in found.devices]  # fmt: skip
        yield f"Measured: {'; '.join(rates)}."
    name = study.name if re.fullmatch(r"[\w-]+", study.name, re.ASCII) else "FILE"
    yield (
        f"Run it again with `privbench study {name}`, or a short form with `privbench study {name} "
        "--quick`."
        + (
            " The portraits are rendered by `python -m privbench_plugins.synthfaces.build "
            f"portraits --out {PORTRAITS}`, which needs `privbench[render]`."
            if asked.dataset.settings.get("path") == PORTRAITS
            else ""
        )
    )
    yield (
        "More: [docs/membership.md](../../membership.md), [docs/metrics.md](../../metrics.md), "
        "[docs/attacks.md](../../attacks.md)."
    )


_PARTS = {
    "seen": "members: a target is trained on them",
    "unseen": "their population, nobody is trained on them",
    "unpublished": "likewise, for the set test",
    "auxiliary": "the attacker's own, of another population",
    "calibration": "the attacker's own, for choices and thresholds",
    "foreign": "unseen people of the attacker's population",
    "wild": "a third population",
}


def _place(part: tuple[str, Part]) -> int:
    """Parts in the order of `_PARTS`."""
    names = list(_PARTS)
    return names.index(part[0]) if part[0] in names else len(names)


def _pairs(settings: dict[str, object]) -> str:
    told = [
        f"{escape(name.replace('_', ' '))} {escape(str(value))}" for name, value in settings.items()
    ]
    return ", ".join(told) or "as by default"


def _missing(study: MembershipStudy) -> list[str]:
    """Rows without results, and why others are not whole."""
    lines = []
    for asked in study.definition.rows:
        row = study.row(asked.id)
        place = f"row {escape(asked.id)}, {escape(asked.what)}"
        if row is None or not row.results:
            why = f": {inert(row.error)}" if row and row.error else ""
            lines.append(f"- not finished: {place}{why}")
        elif row.error:
            lines.append(f"- not finished in part: {place}: {inert(row.error)}")
    return lines


def _count(n: int | None) -> str:
    return "" if n is None else f"{n:,}"
