"""What a study says, in sentences made from its numbers by fixed rules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from privbench_leaderboard.frontier import pareto
from privbench_leaderboard.markdown import escape, estimate, number
from privbench_leaderboard.studies import (
    Attacked,
    Inversion,
    Reversal,
    Shown,
    Study,
    Sweep,
    Trial,
    Variant,
    Verdict,
    reversal,
)

LEVEL = 0.05
"""Family-wise error of the statements about differences."""

_WORDS: tuple[tuple[Verdict, str], ...] = (
    ("violates", "does not keep it"),
    ("within", "keeps it"),
    ("undecided", "undecided"),
)

Row = tuple[Variant, Attacked, Trial]


def sentences(study: Study) -> list[str]:
    """Paragraphs in Markdown, escaped."""
    parts = [
        *_verdicts(study),
        *_ladder(study),
        *_given_back(study),
        *_budgets(study),
        *_sweeps(study),
        *_stricter(study),
        *_differences(study),
        *_front(study),
        *_checks(study),
        *_inversion_checks(study),
    ]
    if study.quick:
        parts.insert(
            0,
            "**This is the quick form**: fewer variants and a shorter attack. A weaker attack "
            "makes everything look better protected than it is; quote the whole study instead.",
        )
    return parts


def _verdicts(study: Study) -> Iterator[str]:
    k = study.definition.k
    yield (
        f"**The boundary.** Among k = {k} people an attacker may be right once in {k}: rank-1 of "
        f"{1 / k:.3f}. A variant *does not keep* a person within k-anonymity if even the lower end "
        "of its interval is above that, *keeps* it if even the upper end is below, and is "
        "*undecided* otherwise. Kept means kept under the attacks tried here."
    )
    for title, group in (("Conditions", "condition"), ("Baselines", "baseline")):
        rows = study.rows(group)  # type: ignore[arg-type]
        if rows:
            yield f"**{title}.** {_by_verdict(rows)}."


def _ladder(study: Study) -> Iterator[str]:
    """Which attack is strongest where, and what the weakest attacker alone would have said."""
    if not study.ladder:
        return
    primary = study.results.primary_trial
    strongest: dict[str, list[str]] = {}
    missed = []
    for v, _, trial in study.rows("condition", "sweep", "baseline", "control"):
        tried = [a for a in v.attacks if a.control is None and primary in a.trials]
        best = [escape(a.attack) for a in tried if a.trials[primary].value == trial.value]
        name = _listed(best) + (" alike" if len(best) > 1 else "")
        strongest.setdefault(name, []).append(escape(v.label))
        naive = [a.trials[primary] for a in tried if a.threat_model == "none"]
        if v.control is None and trial.verdict == "violates":
            missed += [escape(v.label) for t in naive if t.verdict != "violates"]
    said = [f"{name} on {_listed(labels)}" for name, labels in strongest.items()]
    yield f"**The strongest attack** is {'; '.join(said)}."
    if missed:
        yield (
            "**What a naive attacker would not have seen.** A recogniser that knows nothing of "
            "the anonymizer does not show that k-anonymity is violated by "
            f"{_listed(missed)}; a stronger attack does."
        )


def _given_back(study: Study) -> Iterator[str]:
    """How many releases some inversion gave back in part, and what the other judges say."""
    tried: dict[str, list[tuple[str, Inversion]]] = {}
    for v, a, inversion in study.inversions("condition", "sweep", "baseline"):
        tried.setdefault(escape(v.label), []).append((escape(a.attack), inversion))
    if not tried:
        return
    groups: dict[Reversal, list[str]] = {"reversible": [], "not shown": [], "worse": []}
    agreed = []
    for label, inversions in tried.items():
        attack, best = max(inversions, key=lambda found: _strength(found[1]))
        gain = best.chosen.gain.value
        shown = "" if gain is None else f"{gain:+.3f} by "
        groups[best.verdict].append(f"{label} ({shown}{attack})")
        if all(reversal(judged.gain) == "reversible" for judged in best.judges):
            agreed.append(label)
    back = groups["reversible"]
    text = (
        f"**Given back.** {len(back)} of {len(tried)} releases {_are(back)} at least partly "
        f"reversible by some inversion{': ' if back else ''}{_listed(back) if back else ''}"
    )
    if back and any(len(i.judges) > 1 for found in tried.values() for _, i in found):
        text += f"; every judge says so of {_listed(agreed) if agreed else 'none of them'}"
    if missing := groups["not shown"]:
        text += f". Not shown to be reversible: {_listed(missing)}"
    if worse := groups["worse"]:
        text += f". Recognised less often after every inversion than before: {_listed(worse)}"
    most = max(len(inversions) for inversions in tried.values())
    if most > 1:
        text += f". Of up to {most} inversions of a release the best counts, uncorrected for that"
    yield f"{text}."


def _strength(inversion: Inversion) -> tuple[int, float]:
    """Orders inversions of one release: by verdict, then by gain."""
    order: tuple[Reversal, ...] = ("worse", "not shown", "reversible")
    return order.index(inversion.verdict), inversion.chosen.gain.value or 0.0


def _budgets(study: Study) -> Iterator[str]:
    """From which value on, of queries as a rule, each inversion gives something back."""
    candidates = {
        v.label for v in study.results.variants if v.group not in ("control", "diagnostic")
    }
    said: dict[str, list[str]] = {}
    for curve in study.results.curves:
        if curve.variant not in candidates or not curve.points:
            continue
        enough = [p.place for p in curve.points if reversal(p.gain) == "reversible"]
        words = f"{enough[0]:,}" if enough else f"none up to {curve.points[-1].place:,}"
        said.setdefault(escape(curve.title), []).append(f"{escape(curve.variant)} {words}")
    if said:
        texts = [f"{title}: {_listed(found)}" for title, found in said.items()]
        yield (
            "**How much it takes.** The smallest value tried at which the gain is positive beyond "
            f"its interval: {'; '.join(texts)}."
        )


def _by_verdict(rows: Sequence[Row]) -> str:
    found = []
    for verdict, words in _WORDS:
        names = [
            f"{escape(v.label)} ({number(t.value)})" for v, _, t in rows if t.verdict == verdict
        ]
        if names:
            found.append(f"{words}: {_listed(names)}")
    text = "; ".join(found)
    return text[:1].upper() + text[1:]


def _sweeps(study: Study) -> Iterator[str]:
    rows = {v.label: t for v, _, t in study.rows("condition", "sweep", "baseline")}
    for sweep in study.results.sweeps:
        points = [(p.value, rows[p.variant]) for p in sweep.points if p.variant in rows]
        if len(points) < 2:
            continue
        found = []
        for verdict, words in _WORDS:
            values = [f"{x:g}" for x, t in points if t.verdict == verdict]
            if values:
                found.append(f"{words} at {_listed(values)}")
        yield f"**{escape(_name(sweep))}.** {_capital('; '.join(found))}."


def _stricter(study: Study) -> Iterator[str]:
    names = [
        escape(v.label)
        for v, a, t in study.rows("condition", "baseline")
        if t.verdict != "violates" and a.worst == "violates"
    ]
    if names:
        yield (
            "**Easier for the attacker.** With the very photograph that was anonymized among the "
            "references, or with references that are anonymized as well, k-anonymity is violated "
            f"by {_listed(names)}, too."
        )


def _differences(study: Study) -> Iterator[str]:
    for reference in study.definition.references:
        groups: dict[str, list[str]] = {"below": [], "above": [], "same": []}
        for v, _, _ in study.rows("condition", "control"):
            d = study.difference(v, reference)
            if d is None or d.value is None:
                continue
            side = "same" if d.p_holm >= LEVEL else "below" if d.value < 0 else "above"
            groups[side].append(f"{escape(v.label)} ({d.value:+.3f})")
        texts = [
            f"{words}: {_listed(groups[side])}"
            for side, words in (
                ("below", "identified less often"),
                ("above", "identified more often"),
                ("same", "no difference shown"),
            )
            if groups[side]
        ]
        attack = f" under {escape(study.judge(reference))}" if study.ladder else ""
        if texts:
            yield (
                f"**Against {escape(reference)}**, on the same probes{attack} (Holm-adjusted "
                f"p < {LEVEL:g}): {'; '.join(texts)}."
            )


def _front(study: Study) -> Iterator[str]:
    for name in study.definition.frontier:
        rows = [
            (v.label, u, t)
            for v, a, t in study.rows("condition", "sweep", "baseline")
            if (u := a.useful(name)) is not None and u.value is not None and t.value is not None
        ]
        if len(rows) < 2:
            continue
        front = pareto([(u.value or 0.0, t.value or 0.0) for _, u, t in rows], rows[0][1].protects)
        names = [f"{escape(rows[i][0])}" for i in front]
        yield (
            f"**Worth considering by {escape(rows[0][1].title)}.** No other condition or baseline "
            f"is both more useful and better protected than: {_listed(names)}."
        )


def _checks(study: Study) -> Iterator[str]:
    """Controls and diagnostics: does the attack work, and does nothing else leak?"""
    texts = [
        f"{escape(v.label)} {words}"
        for v, _, t in study.rows("control", "diagnostic")
        if (words := _against_chance(v, t))
    ]
    if texts:
        yield f"**Controls and diagnostics.** {_capital('; '.join(texts))}."


def _inversion_checks(study: Study) -> Iterator[str]:
    """Controls: what an inverter makes of clear photographs, and of releases without a source."""
    texts = [
        f"{escape(a.attack)} on {escape(v.label)} {words}"
        for v, a, inversion in study.inversions("control", "diagnostic")
        if (words := _against_chance(v, inversion.chosen.inverted))
    ]
    if texts:
        yield (
            f"**Controls of the inversions.** {'; '.join(texts)}. What comes of clear "
            "photographs is the most that an inverter could give back; where a release shows "
            "somebody else, reconstructions must be at chance."
        )


def _against_chance(variant: Variant, rank1: Shown) -> str:
    """A control's rank-1, where it lies, and a warning if it should not; "" without interval."""
    if rank1.value is None or rank1.chance is None or rank1.low is None or rank1.high is None:
        return ""
    above = rank1.low > rank1.chance
    words = (
        "above chance" if above else "at chance" if rank1.high >= rank1.chance else "below chance"
    )
    odd = (variant.control == "positive" and not above) or (variant.control == "negative" and above)
    warning = " (**not as it should be: do not trust the other rows**)" if odd else ""
    return f"{estimate(rank1)}, {words}{warning}"


def _name(sweep: Sweep) -> str:
    return f"{sweep.variant}, {sweep.setting.replace('_', ' ')}"


def _listed(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def _are(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
