"""The command line: parse, call one function, print."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, CycloptsError, Parameter

from privbench import __version__
from privbench.errors import ConfigError, PrivbenchError

if TYPE_CHECKING:
    from privbench.plan import Study
    from privbench.progress import Reporter
    from privbench.record import Record
    from privbench.timing_record import TimingRecord

app = App(
    name="privbench",
    version=__version__,
    help="Does a face-image anonymizer protect anyone? Run anonymizers under attacks.",
)

Ids = Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="")]


@Parameter(name="*")
@dataclass(frozen=True)
class What:
    """What to run."""

    study: Annotated[Path | None, Parameter(name="STUDY")] = None
    """TOML file with the study, instead of the options below."""
    anonymizer: Ids = ()
    """Anonymizers, by id."""
    attack: Ids = ()
    """Attacks, by id."""
    metric: Ids = ()
    """Metrics, by id; all installed ones by default."""
    dataset: str = "synthfaces"
    """Data set, by id."""
    protocol: str = "quick"
    """Protocol preset: smoke, quick, standard, full."""
    seed: int = 0
    """Seed of the run."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    set: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="")] = ()
    """Settings: key=value, or plugin.key=value."""
    store: str = ".privbench/store"
    """Where artefacts are kept: a directory, or an fsspec URL."""


def _study(what: What) -> Study:
    from privbench.api import make_study
    from privbench.plan import load_study

    if what.study is not None:
        if what.anonymizer or what.attack or what.metric or what.set:
            raise ConfigError(
                "Give a study file or --anonymizer/--attack/--metric/--set, not both."
            )
        return load_study(what.study)
    if not what.anonymizer or not what.attack:
        raise ConfigError(
            "Say what to run: --anonymizer ID ... --attack ID ..., or a study file. "
            "`privbench list` shows what there is."
        )
    return make_study(
        what.anonymizer,
        what.attack,
        what.metric,
        dataset=what.dataset,
        protocol=what.protocol,
        seed=what.seed,
        device=what.device,
        settings=what.set,
    )


@app.command
def run(
    what: What | None = None,
    *,
    records: str = ".privbench/records",
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    repair: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Run anonymizers under attacks; finished work is never computed again.

    Parameters
    ----------
    records
        Directory for the records and their scores.
    dry_run
        Print the plan with what is in the store and why the rest is not; run nothing.
    repair
        Check every stored file this run uses and recompute what is damaged.
    """
    from privbench.api import explain as find_status
    from privbench.api import run_study

    what = what or What()
    study = _study(what)
    if dry_run:
        _print_status(find_status(study, store=what.store), detail=False)
        return 0
    with _reporter() as reporter:
        done, failures = run_study(
            study, store=what.store, records=records, repair=repair, reporter=reporter
        )
    _print_records(done)
    for record in done:
        print(f"{records}/{record.name}.json")
    for failure in failures:
        _complain(f"{failure.label}: {failure.error}")
    return 2 if failures else 0


@app.command(name="time")
def time_alone(
    *anonymizers: str,
    set: Annotated[  # noqa: A002 - the flag's name
        tuple[str, ...], Parameter(consume_multiple=True, negative="")
    ] = (),
    device: str = "auto",
    images: int | None = None,
    batch: Annotated[tuple[int, ...], Parameter(consume_multiple=True, negative="")] = (),
    warmup: int = 1,
    seed: int = 0,
    dataset: str = "synthfaces",
    protocol: str = "quick",
    records: str = ".privbench/timings",
) -> int:
    """Measure speed and memory of anonymizers alone; says nothing about privacy.

    Parameters
    ----------
    anonymizers
        Their ids.
    set
        Settings: key=value, or plugin.key=value. model=random:sd15 and model=random:sdxl build
        the true architecture with random weights.
    device
        auto, cpu, cuda, cuda:1, ...
    images
        At least so many images are timed, in whole batches; by default five batches.
    batch
        Batch sizes, each measured; by default the anonymizer's own.
    warmup
        Batches before the clock counts.
    seed
        Seed of the anonymizers' randomness.
    dataset
        Data set whose images are anonymized, by id.
    protocol
        Preset whose background images fit what must be fitted on some.
    records
        Directory for the timing records.
    """
    from privbench.measure import time_anonymizers

    with _reporter() as reporter:
        done = list(
            time_anonymizers(
                anonymizers,
                settings=set,
                dataset=dataset,
                protocol=protocol,
                device=device,
                images=images,
                batch=batch,
                warmup=warmup,
                seed=seed,
                records=records,
                reporter=reporter,
            )
        )
    _print_timings(done)
    for record in done:
        print(f"{records}/{record.name}.json")
    return 0


@app.command
def explain(what: What | None = None) -> int:
    """Say of every step of a run whether it is in the store, and if not, why."""
    from privbench.api import explain as find_status

    what = what or What()
    _print_status(find_status(_study(what), store=what.store), detail=True)
    return 0


@app.command(name="list")
def list_plugins() -> int:
    """List plugins, protocols aside: id, version, summary, and why one is unavailable."""
    from rich.markup import escape

    from privbench.registry import load_registry
    from privbench.spec import KINDS

    registry = load_registry()
    console, table = _console(), _table("kind", "id", "version", "summary")
    for kind in KINDS:
        for plugin in registry.of_kind(kind):
            why = f" [unavailable: {plugin.unavailable}]" if plugin.unavailable else ""
            table.add_row(
                kind, plugin.spec.id, str(plugin.spec.version), escape(plugin.spec.summary + why)
            )
    console.print(table)
    for name, reason in registry.failures.items():
        _complain(f"not loaded: {name}: {reason}")
    return 0


@app.command
def describe(plugin: str) -> int:
    """Show a plugin's settings, defaults and facts.

    Parameters
    ----------
    plugin
        Its id.
    """
    from rich.markup import escape

    from privbench.errors import UnknownPluginError, did_you_mean
    from privbench.registry import load_registry, setting_type

    registry = load_registry()
    found = [p for (_, name), p in sorted(registry.plugins.items()) if name == plugin]
    if not found:
        names = {name for _, name in registry.plugins}
        raise UnknownPluginError(f"There is no plugin {plugin!r}. {did_you_mean(plugin, names)}")
    console = _console()
    for entry in found:
        spec = entry.spec
        console.print(f"[bold]{spec.id}[/] ({spec.kind}, version {spec.version})")
        console.print(escape(spec.summary))
        facts = {
            "from": entry.distribution,
            "threat model": spec.tags.knowledge,
            "control": spec.tags.control,
            "fitted on": spec.tags.fit_on,
            "licence": spec.licence,
            "unavailable": entry.unavailable,
        }
        for name, value in facts.items():
            if value:
                console.print(f"{name}: {escape(str(value))}")
        if spec.config.model_fields:
            table = _table("setting", "type", "default", "meaning")
            for name, info in spec.config.model_fields.items():
                words = (setting_type(info), str(info.default), info.description or "")
                table.add_row(name, *map(escape, words))
            console.print(table)
    return 0


@app.command
def leaderboard(
    *,
    records: Path = Path("leaderboard/records"),
    out: Path = Path("leaderboard/LEADERBOARD.md"),
) -> int:
    """Make the leaderboard from committed records.

    Parameters
    ----------
    records
        Directory of record files.
    out
        Markdown file to write.
    """
    import privbench_leaderboard

    try:
        privbench_leaderboard.write(records, out)
    except privbench_leaderboard.LeaderboardError as error:
        raise PrivbenchError(str(error)) from error
    print(out)
    return 0


@app.command
def study(
    name: str = "",
    *,
    quick: Annotated[bool, Parameter(negative="")] = False,
    committed: Annotated[bool, Parameter(negative="")] = False,
    out: Path | None = None,
    store: str = ".privbench/store",
    device: str = "auto",
) -> int:
    """Run a study and write its tables, plots and pictures; without a name, list the studies.

    Parameters
    ----------
    name
        An installed study, or the path of a study file that ends in .toml (docs/studies.md).
    quick
        Fewer variants and a shorter attack: a first look.
    committed
        Make tables and plots anew from the files in --out; run nothing and read no store.
    out
        Folder to write; docs/studies/NAME by default, .privbench/studies/NAME for the quick form.
    store
        Where artefacts are kept: a directory, or an fsspec URL.
    device
        auto, cpu, cuda, cuda:1, ...
    """
    import privbench_leaderboard
    from privbench.registry import load_registry
    from privbench.studyfile import load_study_file, select

    known = load_registry().studies
    if not name:
        table = _table("study", "variants", "question")
        for each in sorted(known):
            _, found = load_study_file(each, known)
            table.add_row(each, str(len(select(found, quick=False))), found.question)
        _console().print(table)
        return 0
    short, definition = load_study_file(name, known)
    folder = out or Path(".privbench/studies" if quick else "docs/studies") / short
    from privbench.study import recompute, run_study_file

    if committed:
        outcomes = recompute(folder)
    else:
        with _reporter() as reporter:
            outcomes = run_study_file(
                short,
                definition,
                folder,
                quick=quick,
                store=store,
                device=device,
                reporter=reporter,
            )
    try:
        print(privbench_leaderboard.write_study(folder))
    except privbench_leaderboard.LeaderboardError as error:
        raise PrivbenchError(str(error)) from error
    for outcome in outcomes:
        if outcome.error:
            _complain(f"{outcome.variant.label}: {outcome.error}")
    return 2 if any(o.error for o in outcomes) else 0


def main(tokens: Sequence[str] | None = None) -> None:
    """Entry point. Exit code 2 and one message for anything that we or the user did wrong."""
    try:
        code = app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
    except (PrivbenchError, CycloptsError) as error:
        _complain(str(error))
        code = 2
    except KeyboardInterrupt:
        _complain("Interrupted. What is finished is kept; run the same command to go on.")
        code = 130
    except BrokenPipeError:
        code = 1
    sys.exit(code or 0)


def _complain(text: str) -> None:
    print(f"privbench: {text}", file=sys.stderr)


def _console() -> Any:
    from rich.console import Console

    # A pipe has no width of its own; the tables fit in 120 columns.
    return Console(highlight=False, width=None if sys.stdout.isatty() else 120)


def _table(*columns: str) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


@contextmanager
def _reporter() -> Iterator[Reporter]:
    from privbench.progress import PlainLines, RichBars

    if sys.stderr.isatty():
        with RichBars() as bars:
            yield bars
    else:
        yield PlainLines(sys.stderr)


def _print_status(found: Sequence[Any], detail: bool) -> None:
    table = _table("step", "", "why", *(["key"] if detail else []))
    for entry in found:
        row = [f"{entry.step.stage} {entry.step.label}", "hit" if entry.hit else "miss"]
        table.add_row(*row, entry.reason, *([entry.step.key[:16]] if detail else []))
    _console().print(table)


COLUMNS = {"rank-1": "rank-1", "rank-10": "rank-10", "mAP": "mAP", "auc": "ROC AUC"}
"""What the run's table shows; the record holds everything."""


def _print_records(records: Sequence[Record]) -> None:
    console = _console()
    for record in records:
        protocol = record.protocol
        probes = record.parts["probes"]
        console.print(
            f"\n[bold]{record.anonymizer.id}[/] under [bold]{record.attack.id}[/] "
            f"({record.threat_model}, {record.oracle_queries:,} oracle queries)\n"
            f"protocol {protocol['name']} v{protocol['version']}: {probes.images} probes of "
            f"{probes.identities} people, all enrolled; 95 % intervals resample people"
        )
        table = _table("trial", *COLUMNS.values())
        for trial, metrics in record.estimates.items():
            numbers = {e.name: e for group in metrics.values() for e in group}
            table.add_row(trial, *(_shown(numbers.get(n)) for n in COLUMNS))
        chances = (numbers[n].chance if n in numbers else None for n in COLUMNS)
        table.add_row("chance", *("" if c is None else f"{c:.3f}" for c in chances), style="dim")
        console.print(table)
        utility = [n for group in record.utility.values() for n in group]
        console.print("; ".join(f"{n.name} to the source {_shown(n)}" for n in utility))
        for timing in record.timing:
            if timing["summary"]:
                rate = timing["summary"]["images_per_second"]
                console.print(f"{timing['stage']}: {rate:.1f} images/s", style="dim")


def _print_timings(done: Sequence[TimingRecord]) -> None:
    from rich.markup import escape

    names = ("batch", "image", "median", "p95", "images/s", "peak memory", "batches", "")
    console, table = _console(), _table("anonymizer", *names)
    for record in done:
        timing, numbers = record.timing, record.timing["summary"]
        size, ran = timing["batch_size"], timing["at_once"]
        table.add_row(
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
    console.print(table)
    device = done[0].timing["device"]
    console.print("; ".join(f"{k} {escape(v)}" for k, v in device.items()))
    console.print(
        "median and p95 per image; batches: timed + warm-up; memory: "
        + ("peak on the GPU" if "cuda" in device else "resident set of the whole process"),
        style="dim",
    )
    if any(record.label == "timing-only" for record in done):
        console.print("timing-only: random weights; what they release means nothing", style="dim")


def _digits(number: float) -> str:
    """Three significant digits, and never an exponent."""
    return f"{number:.3g}" if number < 1000 else f"{number:,.0f}"


def _shown(number: Any) -> str:
    if number is None or number.value is None:
        return ""
    text = f"{number.value:.3f}"
    return text if number.low is None else f"{text} [{number.low:.3f}, {number.high:.3f}]"


if __name__ == "__main__":
    main()
