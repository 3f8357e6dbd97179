"""What inversion attacks gave back, as a section of a study's page."""

from __future__ import annotations

from collections.abc import Sequence

from privbench_leaderboard.markdown import escape, estimate, number, pipe_table, signed
from privbench_leaderboard.studies import (
    Attacked,
    Curve,
    Inversion,
    Judged,
    Shown,
    Study,
    Tried,
    Variant,
)

Row = tuple[Variant, Attacked, Inversion]

_LEGEND = (
    "An inversion attack reconstructs sources from releases; a **judge**, a recogniser that the "
    "attack has never seen, then looks for the person of each reconstruction among clear "
    "references, none of them the source. Of several judges the row shows the one that does best "
    "on attacker-validation. **Gain**: rank-1 of the reconstructions minus rank-1 of the releases "
    "as they are, by the same judge on the same probes. *Reversible*: the whole interval of the "
    "gain is above 0; *worse*: it is wholly below, so that the attacker had better leave the "
    "release as it is; *not shown* proves nothing, least of all where the releases are recognised "
    "as they are. **Matched**: share of reconstructions that match their own person above the "
    "score which 1 % of the pairs of different attacker-validation people exceed. **Similarity**: "
    "the judge's mean score against the source (in brackets: of the reconstruction against other "
    "people). Intervals are 95 % and resample people; each row's is its own, so that of forty "
    "rows with nothing to give back about one would be called reversible by chance."
)
_CURVES = (
    "Rank-1 of reconstructions by the judge that attacker-validation chose at each point, named in "
    "the table; bands are 95 % intervals, dashed lines the releases as they are, the dotted line "
    "chance. **Queries**: images of its own that the attack may have anonymized."
)


def inversion_section(study: Study, pictures: str = "", curves: str = "") -> list[str]:
    """Paragraphs in Markdown, escaped; none where no attack inverted anything.

    Args:
        pictures: file of the galleries beside the page; "" for none.
        curves: file of the plot over query budgets; "" for none.
    """
    rows = study.inversions("condition", "sweep", "baseline", "control", "diagnostic")
    if not rows and not study.results.curves:
        return []
    parts = ["## Given back"]
    if rows:
        parts += [_table(rows), _judges_table(rows), _LEGEND]
    if pictures:
        what = "Source, release and reconstruction: best, median and worst of each release"
        chosen = "by similarity to the source; of several attacks the one with the largest gain"
        parts += [f"![{what}]({pictures})", f"{what}, {chosen}."]
    if curves:
        parts += [
            f"![Rank-1 of reconstructions against what the attacker is granted]({curves})",
            _CURVES,
        ]
    return [*parts, _curve_table(study)]


def _table(rows: Sequence[Row]) -> str:
    head = ["Release", "Attack", "Judge", "Rank-1, released → reconstructed", "Gain ↓",
            "Matched at FMR 1 % ↓", "Similarity, released → reconstructed (others)",
            "PSNR, dB", "SSIM", "LPIPS", "Verdict"]  # fmt: skip
    cells = [_cells(*row) for row in rows]
    used = [i for i, name in enumerate(head) if name != "LPIPS" or any(c[i] for c in cells)]
    return pipe_table([head[i] for i in used], [[row[i] for i in used] for row in cells])


def _cells(variant: Variant, attacked: Attacked, inversion: Inversion) -> list[str]:
    judged = inversion.chosen
    others = number(judged.similarity_others.value)
    return [
        escape(variant.label),
        escape(attacked.attack),
        escape(judged.name),
        f"{estimate(judged.released)} → {estimate(judged.inverted)}",
        signed(judged.gain),
        estimate(judged.matched),
        _change(judged.similarity_released, judged.similarity, 3)
        + (f" ({others})" if others else ""),
        _change(inversion.psnr_released, inversion.psnr, 1),
        _change(inversion.ssim_released, inversion.ssim, 3),
        _change(inversion.lpips_released, inversion.lpips, 3),
        variant.group if variant.group in ("control", "diagnostic") else inversion.verdict,
    ]


def _judges_table(rows: Sequence[Row]) -> str:
    """What every judge says, the chosen one's in bold; "" if there is only one."""
    names = list(dict.fromkeys(judged.name for _, _, i in rows for judged in i.judges))
    if len(names) < 2:
        return ""
    head = ["Gain ↓ by each judge", "Attack", *map(escape, names)]
    body = []
    for variant, attacked, inversion in rows:
        found = {judged.name: _gain(judged, inversion.judge) for judged in inversion.judges}
        cells = [found.get(name, "") for name in names]
        body.append([escape(variant.label), escape(attacked.attack), *cells])
    return pipe_table(head, body)


def _gain(judged: Judged, chosen: str) -> str:
    text = f"{signed(judged.gain)}, to {number(judged.inverted.value)}"
    return f"**{text}**" if judged.name == chosen else text


def _curve_table(study: Study) -> str:
    """Gains of each release under each attack, across the values of the setting."""
    curves = study.results.curves
    places = sorted({point.place for curve in curves for point in curve.points})
    head = ["Gain ↓ of", "Attack, setting", *(f"{place:,}" for place in places)]
    rows = []
    for curve in curves:
        found = {point.place: _point(curve, point) for point in curve.points}
        cells = [found.get(place, "") for place in places]
        rows.append([escape(curve.variant), escape(curve.title), *cells])
    return pipe_table(head, rows) if rows else ""


def _point(curve: Curve, point: Tried) -> str:
    """The gain, its judge, and how many were asked if not as many as were granted."""
    fewer = curve.setting == "queries" and point.queries != point.place
    asked = f", {point.queries:,} asked" if fewer else ""
    return f"{signed(point.gain)} ({escape(point.judge)}{asked})"


def _change(before: Shown | None, after: Shown | None, digits: int) -> str:
    """`before → after` without intervals, which are in `study.json`."""
    shown = [
        "" if n is None or n.value is None else f"{n.value:.{digits}f}" for n in (before, after)
    ]
    return " → ".join(text or "?" for text in shown) if any(shown) else ""
