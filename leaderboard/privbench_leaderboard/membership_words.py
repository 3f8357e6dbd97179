"""What a study about membership says, in sentences made from its numbers by fixed rules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from privbench_leaderboard.markdown import escape, estimate
from privbench_leaderboard.membership_phrases import (
    Order,
    against_chance,
    capital,
    compared,
    first_up,
    percent,
)
from privbench_leaderboard.membership_sets import false_alarms, p_values, set_words
from privbench_leaderboard.membership_study import (
    Auc,
    MembershipStudy,
    Row,
    figure,
    parent,
)

RATE = 0.01
"""FPR of the TPR that is told."""

BLIND, RANDOM = "mia-blind", "mia-random"
"""Controls: an attack that never sees the target, and scores by chance."""


def sentences(study: MembershipStudy) -> list[str]:
    """Paragraphs in Markdown, escaped. Without its rows a paragraph is left out."""
    parts = [
        *_membership(study),
        *_best(study),
        *_thresholds(study),
        *_controls(study),
        *_distribution(study),
        *_negatives(study),
        *set_words(study),
        *false_alarms(study),
        *_epochs(study),
        *_guidance(study),
        *_watermarks(study),
        *_changes(study),
        *_paper(study),
    ]
    if parts:
        parts.append(
            "Two numbers are said to differ where their intervals do not overlap, which is "
            "stricter than a test; *not shown* is no proof of the contrary."
        )
    if study.quick:
        parts.insert(
            0,
            "**This is the quick form**: fewer people and targets, and shorter training. "
            "Its intervals are wide; quote the whole study instead.",
        )
    return parts


def _membership(study: MembershipStudy) -> Iterator[str]:
    row = study.membership
    found = _under(row, study.attacks)
    if row is None or not found:
        return
    told = [f"{escape(a)} {estimate(auc)}, {against_chance(auc)}" for a, auc in found]
    yield (
        "**What is membership.** Members against people of their own population whom nobody was "
        f"trained on (row {escape(row.id)}): AUC of {'; '.join(told)}."
    )


def _best(study: MembershipStudy) -> Iterator[str]:
    """The strongest attack on single images, of each model that all attacks met."""
    said = []
    for row in study.of("peer"):
        aucs = [(attack, auc) for attack, result in study.ordered(row)
                if not result.control and (auc := row.auc(attack))]  # fmt: skip
        if not aucs:
            continue
        attack, best = max(aucs, key=lambda pair: pair[1].value or 0)
        above = sum(against_chance(auc) == "above chance" for _, auc in aucs)
        counted = f" ({above} of {len(aucs)} attacks are above)" if len(aucs) > 1 else ""
        rate = next((e for e in row.results[attack].exact if e.rate == RATE and e.tpr), None)
        tpr = f", TPR {estimate(rate.shown)} at FPR {percent(RATE)}" if rate else ""
        said.append(
            f"{escape(row.what)}: {escape(attack)} {estimate(best)}, {against_chance(best)}"
            f"{counted}{tpr}"
        )
    if said:
        yield (
            f"**The strongest attack on single images**, of membership alone. {capital(said)}. "
            "The best of several counts, uncorrected for that."
        )


def _thresholds(study: MembershipStudy) -> Iterator[str]:
    """What becomes of the attacker's own thresholds on another population."""
    row, said = study.membership, []
    for attack in study.attacks:
        numbers = row.results[attack].numbers if row and attack in row.results else {}
        tpr, fpr = (numbers.get(f"{side}@calibrated={RATE}") for side in ("tpr", "fpr"))
        if tpr is None or fpr is None or fpr.low is None or fpr.high is None:
            continue
        verdict = "lower" if fpr.high < RATE else "higher" if fpr.low > RATE else "as meant"
        said.append(
            f"{escape(attack)} attains an FPR of {estimate(fpr)}, {verdict}, with a TPR of "
            f"{estimate(tpr)}"
        )
    if row and said:
        yield (
            f"**Thresholds.** Fixed for an FPR of {percent(RATE)} on photographs of the attacker's "
            f"own population, and used on the members' (row {escape(row.id)}): {'; '.join(said)}."
        )


def _controls(study: MembershipStudy) -> Iterator[str]:
    """Whether members and others of one population can be told apart without the target."""
    verdicts = {
        BLIND: {
            "above chance": "which never sees the target, tells the two sets apart: a score "
            "above chance may here be no membership at all",
            "below chance": "which never sees the target, tells them apart the wrong way round",
            "not told from chance": "which never sees the target, does not tell the two sets "
            "apart: they differ in nothing that it can see",
        },
        RANDOM: {
            "above chance": "guesses, and is above chance, as one guess in forty may be",
            "below chance": "guesses, and is below chance, as one guess in forty may be",
            "not told from chance": "guesses, as it should",
        },
    }
    said = [
        f"{escape(attack)} on {escape(row.what)}, {estimate(auc)}: {words[against_chance(auc)]}"
        for row in study.alone()
        if row.trained
        for attack, words in verdicts.items()
        if (auc := row.auc(attack))
    ]
    if said:
        yield f"**Controls.** {'; '.join(said)}."


def _distribution(study: MembershipStudy) -> Iterator[str]:
    """What is left of the headline without members, and what of it is membership."""
    alone, nobody, headline = study.membership, study.nobody, study.headline
    attack = study.attacks[0]
    there, none, own = _auc(headline, attack), _auc(nobody, attack), _auc(alone, attack)
    if headline is None or nobody is None or there is None or none is None:
        return
    text = (
        f"**What is only distribution.** Against people of another population {escape(attack)} has "
        f"AUC {estimate(there)} (row {escape(headline.id)}). On a model that never saw the "
        f"suspects (row {escape(nobody.id)}) it has {estimate(none)}, {against_chance(none)}: "
    )
    if against_chance(none) == "above chance":
        text += "without a single member, so that such a score is no evidence of membership."
    elif compared(there, none) == "higher":
        text += (
            "the difference comes with fine-tuning, be it from the look of the population or from "
            "the person."
        )
    else:
        text += "the first is not shown to be higher than without any member."
    if alone is not None and own is not None:
        text += (
            f" On members against their own population (row {escape(alone.id)}) it has "
            f"{estimate(own)}: "
        )
        text += {
            "lower": f"what row {escape(headline.id)} has above that is the look of populations",
            "higher": "membership shows more there than across populations",
            "not apart": "not shown to differ from the first",
        }[compared(own, there)] + "."
    yield text


def _negatives(study: MembershipStudy) -> Iterator[str]:
    """Generated against real negatives, wherever both were asked the same."""
    attack = study.attacks[0]
    rows = [r for r in study.of("paper", "control") if r.auc(attack) and not r.settings]
    kinds = {r.id: r.results[attack].config.get("negatives") for r in rows}
    said = []
    for real in rows:
        other = next((r for r in rows if kinds[r.id] == "generated" and r.trial == real.trial
                      and r.targets == real.targets), None)  # fmt: skip
        first, second = _auc(other, attack), _auc(real, attack)
        if kinds[real.id] != "real" or other is None or first is None or second is None:
            continue
        verdict = {"higher": "better than", "lower": "worse than"}.get(
            compared(first, second), "not shown to differ from"
        )
        said.append(
            f"on the trial {escape(real.trial)}, generated negatives {estimate(first)} (row "
            f"{escape(other.id)}) are {verdict} real ones {estimate(second)} (row "
            f"{escape(real.id)})"
        )
    if said:
        yield f"**What the attack model learns from.** {capital(said)}."


def _epochs(study: MembershipStudy) -> Iterator[str]:
    """Fewest against most epochs, on single images and on the set."""
    said = []
    for attack, points in study.epochs().items():
        (few, first), (many, last) = points[0], points[-1]
        verdict = {"higher": "which is more", "lower": "which is less"}.get(
            compared(last, first), "no difference shown"
        )
        said.append(
            f"{escape(attack)} {estimate(first)}{_set_of(study, few, attack)} after {few:g}, "
            f"{estimate(last)}{_set_of(study, many, attack)} after {many:g}, {verdict}"
        )
    if said:
        yield (
            "**Do fewer epochs protect?** AUC of membership alone, and in brackets p of the whole "
            f"set, by epochs: {'; '.join(said)}."
        )


def _set_of(study: MembershipStudy, epochs: float, attack: str) -> str:
    """p of the set under the model of so many epochs, in brackets."""
    rows = [row.id for row in study.of("epochs", "peer") if row.x == epochs]
    tests = [e for e in study.tests() if e.row in rows and e.attack == attack and e.p]
    return f" ({p_values(tests[0].p)})" if tests else ""


def _guidance(study: MembershipStudy) -> Iterator[str]:
    """Least and most guidance against the value at which the attack does best."""
    attack = study.attacks[0]
    lines = study.guidance(attack).items()
    if not lines:
        return
    told = [_best_guidance(attack, others, points) for others, points in lines]
    text = f"**Does guidance protect?** {' '.join(told)}"
    printed = study.reported_guidance(attack)
    if printed:
        x, value = max(printed, key=lambda point: point[1])
        text += f" The paper's attack does best at {x:g} ({value:.2f})"
        last, value = printed[-1]
        text += f", and has {value:.2f} at {last:g}." if last != x else "."
    yield text


def _best_guidance(attack: str, others: str, points: list[tuple[float, Auc]]) -> str:
    """Where the attack does best against some others, and whether the ends are worse."""
    best, top = max(points, key=lambda point: point[1].value or 0)
    said = []
    for x, auc in (points[0], points[-1]):
        verdict = "weakens it" if compared(auc, top) == "lower" else "is not shown to weaken it"
        said += [f"{x:g} {verdict} ({estimate(auc)})"] if x != best else []
    return (
        f"Against {escape(others)}, {escape(attack)} does best at guidance {best:g}, "
        f"{estimate(top)}; beside that, {' and '.join(said)}."
    )


def _watermarks(study: MembershipStudy) -> Iterator[str]:
    """What a mark gives away, and whether it is the mark or the person."""
    attack, plain = study.attacks[0], _auc(study.headline, study.attacks[0])
    paper = list(study.of("paper"))
    for row in paper:
        trial, auc = study.trial(row), row.auc(attack)
        if trial is None or not trial.mark or auc is None:
            continue
        text = f"**{first_up(escape(row.what))}** (row {escape(row.id)}): {estimate(auc)}"
        text += f", {_beside(auc, plain)}" if plain else ""
        for control in study.of("control"):
            checked, told = control.auc(attack), study.trial(control)
            if parent(control, paper) != row.id or checked is None or told is None:
                continue
            text += f". {first_up(escape(control.what))} (row {escape(control.id)}): "
            text += f"{estimate(checked)}, "
            if told.mark_others:
                text += against_chance(checked)
                if "above chance" in (against_chance(auc), against_chance(checked)):
                    text += _mark_or_person(checked)
            else:
                text += _beside(checked, plain) if plain else against_chance(checked)
        yield f"{text}."


def _mark_or_person(both: Auc) -> str:
    """What is recognised where both sets bear the mark."""
    if against_chance(both) == "above chance":
        return ": more than the mark is recognised"
    return ": nothing but the mark is shown to be recognised"


def _beside(auc: Auc, plain: Auc) -> str:
    """An AUC with a mark against that without."""
    return {
        "higher": "easier for the attacker than without a mark",
        "lower": "harder for the attacker than without a mark",
        "not apart": "not shown to differ from no mark",
    }[compared(auc, plain)] + f" ({estimate(plain)})"


def _changes(study: MembershipStudy) -> Iterator[str]:
    """Rows that ask the headline's question of other releases."""
    headline, attack = study.headline, study.attacks[0]
    plain = _auc(headline, attack)
    if headline is None or plain is None:
        return
    groups: dict[Order, list[str]] = {}
    for row in study.of("paper"):
        auc = row.auc(attack)
        if auc is None or row.trial != headline.trial or row is headline or not row.trained:
            continue
        words = f"{escape(row.what)} {estimate(auc)} (row {escape(row.id)})"
        groups.setdefault(compared(auc, plain), []).append(words)
    titles: tuple[tuple[Order, str], ...] = (
        ("lower", "lower"), ("higher", "higher"), ("not apart", "not shown to differ"),
    )  # fmt: skip
    said = [f"{title}: {'; '.join(groups[order])}" for order, title in titles if order in groups]
    if said:
        yield (
            f"**What else changes it.** {escape(attack)} against the other population, beside row "
            f"{escape(headline.id)} ({estimate(plain)}). {'. '.join(map(first_up, said))}."
        )


def _paper(study: MembershipStudy) -> Iterator[str]:
    """Where our interval does not hold the paper's figure."""
    held, apart, lines = 0, 0, []
    for attack in study.attacks:
        found: dict[str, list[str]] = {"higher": [], "lower": []}
        for row in study.table():
            value, auc = figure(row.reported.get(attack, "")), row.auc(attack)
            if value is None or auc is None or auc.low is None or auc.high is None:
                continue
            if auc.low <= value <= auc.high:
                held += 1
                continue
            text = f"{escape(row.id)} ({estimate(auc)}, paper {escape(row.reported[attack])})"
            found["lower" if auc.high < value else "higher"].append(text)
        lines += [
            f"- {escape(attack)}, ours {order}: row{'s' * (len(rows) > 1)} {'; '.join(rows)}."
            for order, rows in found.items()
            if rows
        ]
        apart += sum(map(len, found.values()))
    if held + apart:
        text = f"**Against the paper.** Our interval holds {held} of its {held + apart} figures. "
        text += (
            "Models, photographs and attack model are not the paper's: order and direction can be "
            "compared, single figures hardly."
        )
        yield "\n\n".join([text, *(["\n".join(lines)] if lines else [])])


def _under(row: Row | None, attacks: Sequence[str]) -> list[tuple[str, Auc]]:
    return [(a, auc) for a in attacks if row is not None and (auc := row.auc(a))]


def _auc(row: Row | None, attack: str) -> Auc | None:
    return row.auc(attack) if row is not None else None
