"""Tests of whole sets: sentences, and a section of a membership study's page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from privbench_leaderboard.markdown import escape, estimate, inert, pipe_table
from privbench_leaderboard.membership_phrases import (
    against_chance,
    first_up,
    listed,
    percent,
)
from privbench_leaderboard.membership_study import MembershipStudy, Row, SetEntry

ENOUGH = 0.8
"""Power from which a set counts as detected with so many people."""


_KINDS = {
    "non-members": "people whom no target was trained on, group against group",
    "strangers": "suspects under a target that never saw them, against others",
}


def set_words(study: MembershipStudy) -> Iterator[str]:
    """Which attacks detect the whole set, with how few people, and what they do with one image."""
    alpha, lines = study.results.alpha, []
    for row in study.of("peer"):
        tests = [e for e in study.tests() if e.row == row.id and e.trained and e.p
                 and not study.control(e.row, e.attack)]  # fmt: skip
        found = {e.attack: sum(p < alpha for p in e.p) for e in tests}
        hit = [_detected(row, e, found[e.attack]) for e in tests if found[e.attack]]
        missed = [f"{escape(e.attack)} ({p_values(e.p)})" for e in tests if not found[e.attack]]
        said = [f"detected by {'; '.join(hit)}"] if hit else []
        said += [f"not detected by {listed(missed)}"] if missed else []
        if said:
            lines.append(f"- {escape(row.what)}: {'. '.join(map(first_up, said))}.")
    if lines:
        yield (
            f"**Whole sets.** Does a test at {percent(alpha)} say that the target was trained on "
            "this set? In brackets also what the same attack does with single images.\n\n"
        ) + "\n".join(lines)


def _detected(row: Row, entry: SetEntry, found: int) -> str:
    """The attack with p, the people that are enough, and its AUC."""
    facts = [p_values(entry.p)]
    if found < len(entry.p):
        facts.append(f"{found} of {len(entry.p)} targets")
    if (enough := people_enough(entry)) is not None:
        facts.append(f"{enough:,} people are enough in {percent(ENOUGH)} of draws")
    if (auc := row.auc(entry.attack)) is not None:
        facts.append(f"AUC {estimate(auc)}, {against_chance(auc)}")
    return f"{escape(entry.attack)} ({'; '.join(facts)})"


def people_enough(entry: SetEntry) -> int | None:
    """The fewest people tried whose set is detected in `ENOUGH` of the draws.

    Where only one pair of sets shares nobody, the draws are one, and do not count.
    """
    curve = entry.curve(0.0)
    if curve is None:
        return None
    enough = [n for n, share in curve.points.items() if share >= ENOUGH and curve.disjoint[n] > 1]
    return min(enough, default=None)


def false_alarms(study: MembershipStudy) -> Iterator[str]:
    """How often the set test rejects where nobody is a member."""
    alpha, said = study.results.alpha, []
    for kind, who in _KINDS.items():
        series = [entry for entry in study.results.null if entry.kind == kind]
        if not series:
            continue
        odd = [f"{escape(e.attack)} on {escape(e.what)} ({estimate(e.shown)})"
               for e in series if not e.nominal_within]  # fmt: skip
        most = max(series, key=lambda e: e.share)
        verdict = (
            f"{percent(alpha)} is not within the interval of {listed(odd)}"
            if odd
            else f"{percent(alpha)} is within the interval of each"
        )
        said.append(
            f"{first_up(who)}: {len(series):,} series of tests, the most rejections by "
            f"{escape(most.attack)}, {estimate(most.shown)}; {verdict}."
        )
    p = [p for e in study.tests() if not e.trained for p in e.p]
    if p:
        below = sum(value < alpha for value in p)
        said.append(
            f"The whole suspect set under those targets: {below} of {len(p)} tests reject, "
            f"{p_values(p)}."
        )
    if said:
        yield f"**False alarms of the set test.** {' '.join(said)}"


def set_section(study: MembershipStudy, power: str = "") -> Iterator[str]:
    """Paragraphs in Markdown, escaped; none where no attack scored a set.

    Args:
        power: file of the power curves beside the page; "" for none.
    """
    if study.tests():
        yield "## Whole sets"
        yield (
            "Are the suspects as a set more like members than unpublished photographs of their "
            "population? One score per person, Welch's test, one-sided; attacks that learn fit a "
            "score on one half of the people and test the other."
        )
        for trained in (True, False):
            entries = [e for e in study.tests() if e.trained == trained]
            if entries:
                yield _p_table(study, entries, trained)
        yield _p_legend(study)
        yield _power_table(study)
        yield _power_legend(study)
        if power:
            yield f"![Power of the set tests over the number of people]({power})"
            yield "The first share of each cell, by people on each side."
    if study.results.null:
        yield "### False alarms"
        yield _null_table(study)
        yield (
            f"How often a test at {percent(study.results.alpha)} rejects where nobody is a member, "
            "with an exact 95 % interval. Within a row no two tests of one target share a person; "
            "rows share people, so they are not added up, and of twenty about one interval misses."
        )


def _p_table(study: MembershipStudy, entries: Sequence[SetEntry], trained: bool) -> str:
    """p of each target; a rejection where nobody is a member is marked."""
    most = max(len(e.p) for e in entries)
    title = "Trained on the suspects" if trained else "Never saw the suspects"
    head = [title, "Attack", "Knows", "People, suspects / others",
            *("p" if most == 1 else f"p, target {i + 1}" for i in range(most))]  # fmt: skip
    rows = []
    for e in entries:
        control = study.control(e.row, e.attack)
        cells = [_p_cell(p, study.results.alpha, trained and not control) for p in e.p]
        rows.append([
            f"{escape(e.what)} (row {escape(e.row)})",
            escape(e.attack) + (" (control)" if control else "") + (", learns" if e.learns else ""),
            escape(e.threat_model),
            f"{e.people:,} / {e.unpublished:,}",
            *cells,
            *[""] * (most - len(cells)),
        ])  # fmt: skip
    return pipe_table(head, rows)


def _p_cell(p: float, alpha: float, member: bool) -> str:
    if p >= alpha:
        return p_value(p)
    return f"**{p_value(p)}**" if member else f"{p_value(p)} (false alarm)"


def _p_legend(study: MembershipStudy) -> str:
    alpha = study.results.alpha
    return (
        f"Bold: detected, p < {alpha}. False alarm: p < {alpha} where the target never saw the "
        "suspects, or the attack guesses; of twenty such tests about one is to be expected. "
        "p-values are not corrected for their number."
    )


def _power_table(study: MembershipStudy) -> str:
    """Shares of draws detected, by people, and by contamination within a cell."""
    entries = [e for e in study.tests() if e.trained and e.power]
    sizes = sorted({n for e in entries for c in e.power for n in c.points})
    if not sizes:
        return ""
    rows = [
        [
            f"{escape(e.what)} (row {escape(e.row)})",
            escape(e.attack) + (" (control)" if study.control(e.row, e.attack) else ""),
            *(" / ".join(_power_cell(e, i, n) for i in range(len(e.power))) for n in sizes),
        ]
        for e in entries
    ]
    return pipe_table(["Power ↓", "Attack", *(f"n = {n:,}" for n in sizes)], rows)


def _power_cell(entry: SetEntry, place: int, n: int) -> str:
    curve = entry.power[place]
    if n not in curve.points:
        return "–"
    return f"{curve.points[n]:.2f}" + ("\\*" if curve.disjoint.get(n) == 1 else "")


def _power_legend(study: MembershipStudy) -> str:
    curves = [c for e in study.tests() if e.trained for c in e.power]
    if not curves:
        return ""
    shares = " / ".join(percent(share) for share in dict.fromkeys(c.contamination for c in curves))
    left_out = {(c.contamination, n, why) for c in curves for n, why in c.left_out.items()}
    reasons = [f"n = {n:,} at {percent(c)}: {inert(why)}" for c, n, why in sorted(left_out)]
    out = f" Left out (–): {'; '.join(reasons)}." if reasons else ""
    return (
        "Power: share of draws of n people a side in which the set is detected, mean over targets; "
        f"where {shares} of the suspects are no members. \\*: there is only one pair of sets of "
        f"that size that share nobody, so the draws are nearly one and the same.{out}"
    )


def _null_table(study: MembershipStudy) -> str:
    head = ["Nobody is a member", "Target", "Attack", "People a side", "Rejected", "Share",
            f"Holds {percent(study.results.alpha)}"]  # fmt: skip
    rows = [
        [
            _KINDS[e.kind],
            f"{escape(e.what)} (row {escape(e.row)})",
            escape(e.attack),
            f"{e.size:,}",
            f"{e.rejected:,} of {e.trials:,}",
            estimate(e.shown),
            "yes" if e.nominal_within else "**no**",
        ]
        for e in sorted(study.results.null, key=lambda e: e.kind)
    ]
    return pipe_table(head, rows)


def p_value(p: float) -> str:
    """Three decimals, or that it is below them."""
    return "< .001" if p < 0.001 else f"{p:.3f}"


def p_values(p: Sequence[float]) -> str:
    """The p-values, or the range of several."""
    ends = dict.fromkeys((p_value(min(p)), p_value(max(p))))
    text = " to ".join(ends)
    return f"p {text}" if text.startswith("<") else f"p = {text}"
