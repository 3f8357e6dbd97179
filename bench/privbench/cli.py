"""The command line: parse, call one function, print."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, CycloptsError, Parameter

from privbench import __version__, cli_plugins, cli_publish, cli_study, show
from privbench.cli_options import Limits, What
from privbench.errors import ConfigError, PrivbenchError

if TYPE_CHECKING:
    from privbench.isolate import Failure, Isolation
    from privbench.plan import Status, Study
    from privbench.record import Result
    from privbench.timing_record import TimingRecord

app = App(
    name="privbench",
    version=__version__,
    help="Does a face-image anonymizer protect anyone? Run anonymizers under attacks.",
    suppress_keyboard_interrupt=False,  # `main` has something to say
)

app.command(cli_plugins.list_plugins, name="list")
app.command(cli_plugins.describe)
app.command(cli_plugins.plugin_app)
app.command(cli_publish.compare)
app.command(cli_publish.leaderboard)
app.command(cli_publish.schema)
app.command(cli_publish.submit)
app.command(cli_publish.verify)
app.command(cli_publish.withdraw)
app.command(cli_study.study)


def _study(what: What) -> Study:
    from privbench.api import make_study
    from privbench.plan import load_study

    if what.study is not None:
        if what.anonymizer or what.attack or what.metric or what.judge or what.set:
            raise ConfigError(
                "Give a study file or --anonymizer/--attack/--metric/--judge/--set, not both."
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
        draws=what.draws,
        fixed_seed=what.fixed_seed,
        judges=what.judge,
    )


@app.command
def run(
    what: What | None = None,
    *,
    records: str = ".privbench/records",
    report: str = "",
    own_images: Annotated[bool, Parameter(negative="")] = False,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    repair: Annotated[bool, Parameter(negative="")] = False,
    limits: Limits | None = None,
) -> int:
    """Run anonymizers under attacks; finished work is never computed again.

    Parameters
    ----------
    records
        Directory for the records and their scores.
    report
        HTML file to write: all tables, and galleries of what inversion attacks reconstruct. Each
        gallery is also written beside its record, as PNG.
    own_images
        Show images in galleries even where the data set does not say that they are rendered.
    dry_run
        Print the plan with what is in the store and why the rest is not; run nothing.
    repair
        Check every stored file this run uses and recompute what is damaged.
    """
    from privbench.api import run_study
    from privbench.audit import asks_membership

    what = what or What()
    isolate = (limits or Limits()).isolation()
    study = _study(what)
    audit = asks_membership(study)
    if dry_run:
        show.statuses(_status(study, what.store, audit), detail=False)
        return 0
    if audit:
        if report:
            raise ConfigError(
                "--report shows attacks on identity; membership has a study of its own: "
                "privbench study face-mia."
            )
        return _audit(study, what.store, records, repair, isolate)
    with show.reporter() as reporter:
        done, failures = run_study(
            study,
            store=what.store,
            records=records,
            report=report or None,
            own_images=own_images,
            repair=repair,
            reporter=reporter,
            isolate=isolate,
        )
    show.results(done)
    return _told(done, failures, records)


def _told(done: Sequence[Result | TimingRecord], failures: Sequence[Failure], records: str) -> int:
    """What failed and where the records are; the exit code."""
    show.failures(failures)
    for record in done:
        print(f"{records}/{record.name}.json")
    if not failures:
        return 0
    show.complain(
        f"Not finished: {len(failures)}, listed above. The same command tries them again."
    )
    return 2


def _status(study: Study, store: str, audit: bool) -> list[Status]:
    """Which steps are in the store, of either kind of run."""
    if audit:
        from privbench.audit import explain_audit, membership_study

        return explain_audit(membership_study(study), store=store)
    from privbench.api import explain as find_status

    return find_status(study, store=store)


def _audit(study: Study, store: str, records: str, repair: bool, isolate: Isolation | None) -> int:
    """A run about membership."""
    from privbench.audit import membership_study, run_audit

    with show.reporter() as reporter:
        done, failures = run_audit(
            membership_study(study),
            store=store,
            records=records,
            repair=repair,
            reporter=reporter,
            isolate=isolate,
        )
    show.memberships(done)
    return _told(done, failures, records)


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
    protocol: str = "auto",
    records: str = ".privbench/timings",
    limits: Limits | None = None,
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
    from privbench.measure import plan_timings, run_timings

    isolate = (limits or Limits()).isolation()
    timings = plan_timings(
        anonymizers,
        settings=set,
        dataset=dataset,
        protocol=protocol,
        device=device,
        images=images,
        batch=batch,
        warmup=warmup,
        seed=seed,
    )
    with show.reporter() as reporter:
        done, failures = run_timings(timings, records=records, reporter=reporter, isolate=isolate)
    show.timings(done)
    return _told(done, failures, records)


@app.command
def explain(what: What | None = None) -> int:
    """Say of every step of a run whether it is in the store, and if not, why."""
    from privbench.audit import asks_membership

    what = what or What()
    study = _study(what)
    show.statuses(_status(study, what.store, asks_membership(study)), detail=True)
    return 0


@app.command
def match(
    probes: Path,
    gallery: Path,
    *,
    k: Annotated[tuple[int, ...], Parameter(consume_multiple=True, negative="")] = (1, 5, 10),
    fpir: Annotated[tuple[float, ...], Parameter(consume_multiple=True, negative="")] = (0.01, 0.1),
    fmr: Annotated[tuple[float, ...], Parameter(consume_multiple=True, negative="")] = (
        0.001,
        0.01,
    ),
    device: str = "auto",
) -> int:
    """Compare two files of embeddings: identification and verification at scale.

    Each is a safetensors file with features (n, D), float16 or float32, and subject (n,), int64.

    Parameters
    ----------
    probes
        Embeddings of released images; people who are not in the gallery are non-mated probes.
    gallery
        Embeddings of known people, up to a million and more; read block by block.
    k
        Ranks at which to count hits.
    fpir
        False positive identification rates at which to give the detection rate.
    fmr
        False match rates at which to give the false non-match rate.
    device
        auto, cpu, cuda, cuda:1, ...
    """
    from privbench.match import match_files, print_matches, rates

    with show.reporter() as reporter:
        found = match_files(probes, gallery, device=device, reporter=reporter)
    print_matches(found, rates(found, k, fpir, fmr))
    return 0


def main(tokens: Sequence[str] | None = None) -> None:
    """Entry point. Exit code 2 and one message for anything that we or the user did wrong."""
    try:
        code = app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
    except (PrivbenchError, CycloptsError) as error:
        show.complain(str(error))
        code = 2
    except KeyboardInterrupt:
        show.complain("Interrupted. What is finished is kept; run the same command to go on.")
        code = 130
    except BrokenPipeError:
        code = 1
    sys.exit(code or 0)


if __name__ == "__main__":
    main()
