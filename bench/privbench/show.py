"""What the command line prints: tables on standard output, messages and progress on the other."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from privbench.audit_record import MembershipRecord
    from privbench.isolate import Failure
    from privbench.plan import Status
    from privbench.progress import Reporter
    from privbench.record import Record
    from privbench.timing_record import TimingRecord
    from privbench.types import Estimate


def complain(text: str) -> None:
    """One message on standard error."""
    print(f"privbench: {text}", file=sys.stderr)


def console() -> Any:
    """Where tables go: standard output."""
    from rich.console import Console

    # A pipe has no width of its own; the tables fit in 120 columns.
    return Console(highlight=False, width=None if sys.stdout.isatty() else 120)


def table(*columns: str) -> Any:
    """An empty table."""
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD)
    for column in columns:
        made.add_column(column, overflow="fold")
    return made


@contextmanager
def reporter() -> Iterator[Reporter]:
    """Bars on a terminal, plain lines elsewhere; on standard error."""
    from privbench.progress import PlainLines, RichBars

    if sys.stderr.isatty():
        with RichBars() as bars:
            yield bars
    else:
        yield PlainLines(sys.stderr)


def statuses(found: Sequence[Status], detail: bool) -> None:
    """Which steps are in the store, and why the others are not."""
    rows = table("step", "", "why", *(["key"] if detail else []))
    for entry in found:
        row = [f"{entry.step.stage} {entry.step.label}", "hit" if entry.hit else "miss"]
        rows.add_row(*row, entry.reason, *([entry.step.key[:16]] if detail else []))
    console().print(rows)


def failures(found: Sequence[Failure]) -> None:
    """A row for each cell that could not be finished: what happened."""
    from rich.markup import escape

    if found:
        rows = table("not finished", "what happened")
        for failure in found:
            rows.add_row(escape(failure.label), f"[red]{escape(str(failure.error))}[/]")
        console().print(rows)


COLUMNS = {"rank-1": "rank-1", "rank-10": "rank-10", "mAP": "mAP", "auc": "ROC AUC"}
"""What the run's table shows; the record holds everything."""


CONTROLS = {"positive": "none", "negative": "ldm-unconditional"}
"""Anonymizers that show whether a table can be believed."""


def results(records: Sequence[Record]) -> None:
    """Each record's trials, utility and speed, then what all attacks say together."""
    from privbench.ladder import with_interval

    timed = set()
    for record in records:
        protocol = record.protocol
        probes = record.parts["probes"]
        console().print(
            f"\n[bold]{record.anonymizer.id}[/] under [bold]{record.attack.id}[/] "
            f"({record.threat_model}, {record.oracle_queries:,} oracle queries)\n"
            f"protocol {protocol['name']} v{protocol['version']}: {probes.images} probes of "
            f"{probes.identities} people, all enrolled; 95 % intervals resample people"
        )
        rows = table("trial", *COLUMNS.values())
        for trial in sorted(record.estimates, key=lambda t: (t != record.primary_trial, t)):
            metrics = record.estimates[trial]
            numbers = {e.name: e for group in metrics.values() for e in group}
            rows.add_row(trial, *(with_interval(numbers.get(n)) for n in COLUMNS))
        chances = (numbers[n].chance if n in numbers else None for n in COLUMNS)
        rows.add_row("chance", *("" if c is None else f"{c:.3f}" for c in chances), style="dim")
        console().print(rows)
        _inversion(record)
        _utility(record)
        for timing in record.timing:
            if timing["summary"] and timing["stage"] not in timed:
                timed.add(timing["stage"])
                rate = timing["summary"]["images_per_second"]
                console().print(f"{timing['stage']}: {rate:.1f} images/s", style="dim")
    for facts in dict.fromkeys(line for record in records for line in _facts(record)):
        console().print(facts)
    _ladders(records)
    missing = [name for name in CONTROLS
               if not any(r.anonymizer.control == name for r in records)]  # fmt: skip
    if missing and records:
        ids = " ".join(CONTROLS[name] for name in missing)
        console().print(
            f"No {' and no '.join(missing)} control in this run: add --anonymizer {ids} to see "
            "that the attacks work and that nothing else leaks.",
            style="dim",
        )


def _ladders(records: Sequence[Record]) -> None:
    """The attacks on each release side by side, and their maximum."""
    from privbench.ladder import in_words, ladders, rank1, released_as, with_interval

    for ladder in ladders(records):
        first = ladder.records[0]
        if len(ladder.records) > 1:
            console().print(f"\n[bold]{released_as(first)}[/] under all attacks, rank-1")
            rows = table("attack", "knows", "queries", first.primary_trial, "cross", "ROC AUC")
            for record in ladder.records:
                auc = record.estimates[record.primary_trial].get("verification", [None])[0]
                rows.add_row(
                    record.attack.id + (" (control)" if record.attack.control else ""),
                    record.threat_model,
                    f"{record.oracle_queries:,}",
                    with_interval(rank1(record)),
                    with_interval(rank1(record, "cross")),
                    with_interval(auc),
                    style="dim" if record.attack.control else None,
                )
            rows.add_row("worst case", "", "", with_interval(ladder.worst), style="bold")
            console().print(rows)
        if ladder.worst is not None:
            console().print(f"{released_as(first)}: {in_words(ladder.worst, ladder.people)}")


def _facts(record: Record) -> Iterator[str]:
    """What of the data set took no part, or is not as one would think."""
    from rich.markup import escape

    looked = {n: p for n, p in record.parts.items() if p.undetected is not None}
    if looked:
        missed = ", ".join(f"{n} {p.undetected} of {p.images}" for n, p in looked.items())
        yield f"images without a detected face (they take part all the same): {missed}"
    name, left_out = record.dataset["id"], record.dataset_facts.get("left_out", {})
    if left_out.get("files"):
        yield escape(f"{name}: {left_out['files']:,} files left out: {' '.join(left_out['first'])}")
    if few := record.dataset_facts.get("people_with_too_few_images"):
        yield f"{name}: {few:,} people have too few images and take no part"


def _inversion(record: Record) -> None:
    """What each judge makes of the reconstructions, the verdict in words, and their fidelity."""
    from rich.markup import escape

    from privbench.ladder import judged, reversal_in_words, with_interval

    if judges := judged(record):
        rows = table("judge", "released", "reconstructed", "gain", "matched", "likeness")
        for judge, numbers in judges.items():
            rows.add_row(
                escape(judge),
                with_interval(numbers["rank-1-released"]),
                with_interval(numbers["rank-1"]),
                with_interval(numbers["gain"], sign="+"),
                _plain(numbers["matched@fmr=0.01"], 3),
                ", ".join(_plain(numbers[n], 2) for n in ("similarity", "similarity-others")),
            )
        chosen, first = next(iter(judges.items()))
        guesses = ("rank-1-released", "rank-1", "gain", "matched@fmr=0.01")
        rows.add_row("chance", *(f"{first[name].chance:.3f}" for name in guesses), style="dim")
        console().print(
            "judged by recognisers that the attack has never seen: rank-1, matches at FMR 1 %, "
            "likeness to source, others"
        )
        console().print(rows)
        console().print(escape(reversal_in_words(chosen, first["gain"])))
    if fidelity := {e.name: e for e in record.inversion.get("reconstruction", [])}:
        before, after = (
            f"PSNR {_plain(fidelity[f'psnr{side}'], 1)} dB, "
            f"SSIM {_plain(fidelity[f'ssim{side}'], 3)}"
            for side in ("-released", "")
        )
        console().print(f"to the source: released {before}; reconstructed {after}", style="dim")


def _utility(record: Record) -> None:
    """The first number of each utility metric; the record holds the others."""
    from privbench.ladder import with_interval

    leading = {name: group[0] for name, group in record.utility.items() if group}
    if leading:
        rows = table("utility", "", "value")
        for name, number in leading.items():
            title = name if number.name == name else f"{name}: {number.name}"
            rows.add_row(title, f"{number.protects} is more useful", with_interval(number))
        console().print(rows)


MEMBERSHIP_COLUMNS = {"auc": "ROC AUC", "tpr@fpr=0.01": "TPR at FPR 1 %",
                      "tpr@calibrated=0.01": "TPR *", "fpr@calibrated=0.01": "FPR *"}  # fmt: skip
OWN_THRESHOLD = (
    "* at a threshold that the attacker fixed on photographs of its own, for an FPR of 1 %"
)


def memberships(records: Sequence[MembershipRecord]) -> None:
    """Each record's trials, what they say in words, and speed."""
    from privbench.audit_words import CAVEAT, together, verdict
    from privbench.ladder import with_interval

    timed = set()
    for record in records:
        protocol, target = record.protocol, record.target
        on = " and ".join(target["trained_on"]) if target["epochs"] else "nothing here"
        console().print(
            f"\n[bold]{record.anonymizer.id}[/] under [bold]{record.attack.id}[/] "
            f"({record.threat_model}, {record.answers:,} answers, {record.predictions:,} "
            f"predictions)\nprotocol {protocol['name']} v{protocol['version']}, fold "
            f"{record.fold}; fine-tuned on {on}; 95 % intervals resample people"
        )
        rows = table("members against", "images", *MEMBERSHIP_COLUMNS.values())
        for trial in sorted(record.pairs, key=lambda t: (t != record.primary_trial, t)):
            suspects, others = record.pairs[trial]
            counts = (record.parts[s.partition("+")[0]].images if s.partition("+")[0] in
                      record.parts else record.anonymizer.config["samples"]
                      for s in (suspects, others))  # fmt: skip
            rows.add_row(
                trial,
                " / ".join(f"{n:,}" for n in counts),
                *(with_interval(record.number(name, trial)) for name in MEMBERSHIP_COLUMNS),
            )
        chances = [record.number(name) for name in MEMBERSHIP_COLUMNS]
        known = ["" if n is None or n.chance is None else f"{n.chance:.3f}" for n in chances]
        rows.add_row("chance", "", *known, style="dim")
        console().print(rows)
        console().print(OWN_THRESHOLD, style="dim")
        for refused in (r.refused for r in record.exact[record.primary_trial] if r.refused):
            console().print(f"{record.primary_trial}: {refused}", style="dim")
        for sentence in verdict(record):
            console().print(sentence)
        for timing in record.timing:
            if timing["summary"] and timing["stage"] not in timed:
                timed.add(timing["stage"])
                rate = timing["summary"]["images_per_second"]
                console().print(f"{timing['stage']}: {rate:.1f} images/s", style="dim")
    for sentence in together(records):
        console().print(sentence)
    if records:
        console().print(CAVEAT, style="dim")


def timings(done: Sequence[TimingRecord]) -> None:
    """Speed and memory of anonymizers alone."""
    from rich.markup import escape

    names = ("batch", "image", "median", "p95", "images/s", "peak memory", "batches", "")
    screen, rows = console(), table("anonymizer", *names)
    for record in done:
        timing, numbers = record.timing, record.timing["summary"]
        size, ran = timing["batch_size"], timing["at_once"]
        rows.add_row(
            record.anonymizer.id,
            f"{size}" if ran == size else f"{size} ({ran} at once)",
            "{}x{}".format(*timing["resolution"]),
            f"{_digits(numbers['median_ms_per_image'])} ms",
            f"{_digits(numbers['p95_ms_per_image'])} ms",
            _digits(numbers["images_per_second"]),
            f"{timing['peak_bytes'] / 2**20:,.0f} MiB",
            f"{numbers['samples']} + {numbers['warmup']}",
            "" if record.label == "measured" else record.label,
        )
    if not done:
        return
    screen.print(rows)
    device = done[0].timing["device"]
    screen.print("; ".join(f"{k} {escape(v)}" for k, v in device.items()))
    screen.print(
        "median and p95 per image; batches: timed + warm-up; memory: "
        + ("peak on the GPU" if "cuda" in device else "resident set of the whole process"),
        style="dim",
    )
    if any(record.label == "timing-only" for record in done):
        screen.print("timing-only: random weights; what they release means nothing", style="dim")


def _digits(number: float) -> str:
    """Three significant digits, and never an exponent."""
    return f"{number:.3g}" if number < 1000 else f"{number:,.0f}"


def _plain(number: Estimate, digits: int) -> str:
    """The value alone."""
    return "" if number.value is None else f"{number.value:.{digits}f}"
