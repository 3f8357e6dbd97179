"""The results of a run as one HTML file: no scripts, nothing loaded from elsewhere.

Every text from a record passes `_text`, for ids and settings may be anyone's.
"""

from __future__ import annotations

import base64
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from privbench.ladder import (
    Ladder,
    in_words,
    judged,
    ladders,
    rank1,
    released_as,
    reversal,
    reversal_in_words,
    with_interval,
)
from privbench.record import Record
from privbench.types import Estimate

_STYLE = """\
:root { color-scheme: light dark; --ink: #1b1c1e; --paper: #fff; --line: #d3d5d9; --soft: #f3f4f6;
  --link: #0b57a4; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e7e9; --paper: #17181a; --line: #3d4045; --soft: #232529; --link: #8ab8f0; }
}
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
main { max-width: 72rem; margin: 0 auto; padding: 1rem; }
h1, h2, h3 { line-height: 1.25; }
h2 { margin-top: 2.5rem; padding-top: 1rem; border-top: 1px solid var(--line); }
a { color: var(--link); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1rem; }
dt { font-weight: 600; }
dd { margin: 0; }
figure { margin: 1rem 0; }
.box { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: .25rem 0; }
caption, figcaption { font-size: .9rem; }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
.prose th, .prose td { white-space: normal; }
thead th { border-bottom-width: 2px; }
tfoot th, tfoot td { font-weight: 700; background: var(--soft); }
@media (max-width: 40rem) { dl { grid-template-columns: 1fr; } dd { margin-bottom: .5rem; } }
"""

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

_BOUND = (
    "A privacy number is an upper bound on protection under the attacks tried: a better attack can "
    "only show less protection, never more. Rank-1 is the share of released images whose person "
    "the attacker names first; the higher, the less protected. Intervals are 95 % and resample "
    "people. Controls count in no worst case."
)
_INVERSION = (
    "A reconstruction is judged by recognisers that the attack has never seen. Gain: rank-1 of the "
    "reconstructions minus that of the releases as they are, on the same images; reversible means "
    "that its interval is above 0 for the judge that attacker-validation chose. Matched: share of "
    "reconstructions that match their own person at a false match rate of 1 %. Similarity: to the "
    "source, in brackets to other people."
)


def render(
    records: Sequence[Record],
    galleries: Mapping[str, bytes],
    unfinished: Sequence[tuple[str, str]] = (),
) -> str:
    """The page.

    Args:
        records: of one run; those of one release under several attacks share a section.
        galleries: name of a record -> PNG of what its attack reconstructed.
        unfinished: what could not be finished, and what happened.
    """
    found = ladders(records)
    sections = "".join(_release(i, ladder, galleries) for i, ladder in enumerate(found, 1))
    legend = _paragraph(_INVERSION) if any(judged(record) for record in records) else ""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>privbench report</title>\n<style>\n{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>privbench report</h1>\n{_paragraph(_BOUND)}"
        f"<h2>What was run</h2>\n{_facts(records)}"
        f"<h2>Overview</h2>\n{_overview(found)}{_unfinished(unfinished)}{legend}{sections}"
        "</main>\n</body>\n</html>\n"
    )


def _facts(records: Sequence[Record]) -> str:
    """What holds for the whole run; several values of one fact are all named."""
    facts = {
        "Data set": (
            f"{r.dataset['id']}, version {r.dataset['version']}, SHA-256 {r.dataset['digest'][:12]}"
            for r in records
        ),
        "Licence of the data": (r.dataset.get("licence", "") for r in records),
        "Faces that no detector found": (_undetected(r) for r in records),
        "Protocol": (f"{r.protocol['name']} v{r.protocol['version']}" for r in records),
        "Probes": (
            f"{r.parts['probes'].images:,} of {r.parts['gallery'].identities:,} enrolled people"
            for r in records
        ),
        "Chance at rank-1": (f"{1 / r.parts['gallery'].identities:.3f}" for r in records),
        "Seed": (str(r.seed) for r in records),
        "Precision": (r.dtype for r in records),
        "Versions": (", ".join(f"{n} {v}" for n, v in sorted(r.packages.items())) for r in records),
    }
    lines = [
        f"<dt>{_text(name)}</dt><dd>{_text('; '.join(different))}</dd>\n"
        for name, values in facts.items()
        if (different := [v for v in dict.fromkeys(values) if v])
    ]
    return f"<dl>\n{''.join(lines)}</dl>\n" if lines else _paragraph("Nothing was finished.")


def _undetected(record: Record) -> str:
    looked = {n: p for n, p in record.parts.items() if p.undetected is not None}
    return ", ".join(f"{name} {p.undetected} of {p.images:,}" for name, p in looked.items())


def _overview(found: Sequence[Ladder]) -> str:
    rows = []
    for ladder in found:
        tried = [r.attack.id for r in ladder.records if r.attack.control is None]
        strongest = tried[-1] if tried else ""
        rows.append([_title(ladder), with_interval(ladder.worst), strongest, _given_back(ladder)])
    head = ("Release", "Rank-1, worst case", "Strongest attack", "By inversion")
    links = [f"#release-{i}" for i in range(1, len(rows) + 1)]
    return _table("All releases", head, rows, links=links)


def _unfinished(rows: Sequence[tuple[str, str]]) -> str:
    """What is missing from the page, and why."""
    return _table("Not finished", ("What", "What happened"), rows, wide=True) if rows else ""


def _given_back(ladder: Ladder) -> str:
    """The strongest verdict of all inversions; "" for controls, and where none was tried."""
    if ladder.records[0].anonymizer.control is not None:
        return ""
    verdicts = {reversal(record) for record in ladder.records if record.attack.control is None}
    return next((v for v in ("reversible", "not shown", "worse") if v in verdicts), "")


def _release(number: int, ladder: Ladder, galleries: Mapping[str, bytes]) -> str:
    """One section: the ladder of attacks, then what inversions gave back."""
    first = ladder.records[0]
    plugin = first.anonymizer
    settings = [f"{name} = {value}" for name, value in sorted(plugin.config.items())]
    version = f"version {plugin.version} ({plugin.distribution})"
    parts = [
        _paragraph(plugin.summary),
        f"<details><summary>Settings</summary>{_paragraph(', '.join([version, *settings]))}"
        "</details>\n",
        _ladder(ladder),
    ]
    if ladder.worst is not None:
        parts.append(_paragraph(f"{in_words(ladder.worst, ladder.people)}."))
    inverted = [record for record in ladder.records if judged(record)]
    if inverted:
        parts += ["<h3>Given back by inversion</h3>\n", _inversions(inverted)]
        parts += [_paragraph(_verdict(record)) for record in inverted]
    parts += [_gallery(r, galleries[r.name]) for r in ladder.records if r.name in galleries]
    return (
        f'<section aria-labelledby="release-{number}">\n'
        f'<h2 id="release-{number}">{_text(_title(ladder))}</h2>\n{"".join(parts)}</section>\n'
    )


def _title(ladder: Ladder) -> str:
    """The anonymizer, and what is unusual about its release."""
    record = ladder.records[0]
    control = record.anonymizer.control
    kind = [control if control == "diagnostic" else f"{control} control"] if control else []
    return released_as(record, kind)


def _ladder(ladder: Ladder) -> str:
    rows = [
        [
            r.attack.id + (" (control)" if r.attack.control else ""),
            with_interval(rank1(r)),
            with_interval(_auc(r)),
            f"{r.oracle_queries:,}",
            r.threat_model,
        ]
        for r in ladder.records
    ]
    head = ("Attack", "Rank-1", "ROC AUC", "Queries", "Knows of the anonymizer")
    caption = f"Attacks, weakest first; trial {ladder.records[0].primary_trial}"
    return _table(caption, head, rows, foot=["Worst case", with_interval(ladder.worst), "", "", ""])


def _auc(record: Record) -> Estimate | None:
    try:
        return record.estimate("verification", "auc")
    except KeyError:
        return None


def _inversions(records: Sequence[Record]) -> str:
    rows = []
    for record in records:
        for judge, numbers in judged(record).items():
            own, others = numbers.get("similarity"), numbers.get("similarity-others")
            rows.append(
                [
                    record.attack.id,
                    judge,
                    with_interval(numbers.get("gain"), "+"),
                    with_interval(numbers.get("rank-1-released")),
                    with_interval(numbers.get("rank-1")),
                    with_interval(numbers.get("matched@fmr=0.01")),
                    f"{_plain(own)} ({_plain(others)})",
                ]
            )
    head = ("Attack", "Judge", "Gain", "Rank-1, released", "Rank-1, reconstructed",
            "Matched at FMR 1 %", "Similarity (others)")  # fmt: skip
    return _table("Reconstructions; of each attack first the judge that decides", head, rows)


def _verdict(record: Record) -> str:
    """What the chosen judge says, and how near the pictures came to their sources."""
    judge, numbers = next(iter(judged(record).items()))
    words = reversal_in_words(judge, numbers["gain"])
    near = {e.name: e for e in record.inversion.get("reconstruction", [])}
    changes = [
        f"{title} {_plain(near[f'{name}-released'], digits)} → {_plain(near[name], digits)}{unit}"
        for name, title, digits, unit in (("psnr", "PSNR", 1, " dB"), ("ssim", "SSIM", 3, ""))
        if name in near and f"{name}-released" in near
    ]
    return f"{record.attack.id}: {'; '.join([words, *changes])}."


def _gallery(record: Record, png: bytes) -> str:
    what = (
        f"Source, release and reconstruction by {record.attack.id} from {record.anonymizer.id}: "
        "the best, the median and the worst by similarity to the source"
    )
    data = base64.b64encode(png).decode()
    image = f'<img src="data:image/png;base64,{data}" alt="{_text(what)}">'
    return f"<figure>\n{_box(image, 'Gallery')}<figcaption>{_text(what)}.</figcaption>\n</figure>\n"


def _table(
    caption: str,
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    foot: Sequence[str] = (),
    links: Sequence[str] = (),
    wide: bool = False,
) -> str:
    """A table of plain texts in a box that scrolls.

    Args:
        links: addresses for the rows' first cells; none if empty.
        wide: cells hold sentences, which may wrap.
    """
    titles = "".join(f'<th scope="col">{_text(title)}</th>' for title in head)
    body = [_row(row, links[i] if links else "") for i, row in enumerate(rows)]
    end = f"<tfoot>\n{_row(foot)}</tfoot>\n" if foot else ""
    kind = ' class="prose"' if wide else ""
    inside = (
        f"<table{kind}>\n<caption>{_text(caption)}</caption>\n"
        f"<thead>\n<tr>{titles}</tr>\n</thead>\n"
        f"<tbody>\n{''.join(body)}</tbody>\n{end}</table>"
    )
    return _box(inside, caption)


def _row(cells: Sequence[str], link: str = "") -> str:
    first = f'<a href="{link}">{_text(cells[0])}</a>' if link else _text(cells[0])
    rest = "".join(f"<td>{_text(cell)}</td>" for cell in cells[1:])
    return f'<tr><th scope="row">{first}</th>{rest}</tr>\n'


def _box(inside: str, name: str) -> str:
    """Scrolls sideways, by keyboard too."""
    return (
        f'<div class="box" role="region" tabindex="0" aria-label="{_text(name)}">{inside}</div>\n'
    )


def _paragraph(text: str) -> str:
    return f"<p>{_text(text)}</p>\n"


def _text(text: str) -> str:
    """Inert in a text and in a quoted attribute: escaped, without control or direction marks."""
    return escape("".join(" " if unicodedata.category(c)[0] == "C" else c for c in text))


def _plain(number: Estimate | None, digits: int = 3, sign: str = "") -> str:
    return "–" if number is None or number.value is None else f"{number.value:{sign}.{digits}f}"
