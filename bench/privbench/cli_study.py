"""The command `study`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from privbench import show
from privbench.cli_options import Ids, Limits
from privbench.errors import ConfigError, PrivbenchError

if TYPE_CHECKING:
    from privbench.audit_studyfile import AuditStudyFile
    from privbench.isolate import Isolation


def study(
    name: str = "",
    *,
    quick: Annotated[bool, Parameter(negative="")] = False,
    committed: Annotated[bool, Parameter(negative="")] = False,
    only: Ids = (),
    out: Path | None = None,
    store: str = ".privbench/store",
    device: str = "auto",
    limits: Limits | None = None,
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
    only
        Of a study about membership: compute these rows, by id, and write nothing to --out; for work
        that several processes share.
    out
        Folder to write; docs/studies/NAME by default, .privbench/studies/NAME for the quick form.
    store
        Where artefacts are kept: a directory, or an fsspec URL.
    device
        auto, cpu, cuda, cuda:1, ...
    """
    import privbench_leaderboard
    from privbench.audit_studyfile import AuditStudyFile
    from privbench.registry import load_registry
    from privbench.studyfile import load_study_file, select

    isolate = (limits or Limits()).isolation()
    known = load_registry().studies
    if not name:
        table = show.table("study", "variants", "question")
        for each in sorted(known):
            _, found = load_study_file(each, known)
            if isinstance(found, AuditStudyFile):
                size = f"{len(found.rows)} rows"
            else:
                size = str(len(select(found, quick=False)))
            table.add_row(each, size, found.question)
        show.console().print(table)
        return 0
    short, definition = load_study_file(name, known)
    folder = out or Path(".privbench/studies" if quick else "docs/studies") / short
    if isinstance(definition, AuditStudyFile):
        return _audit_study(
            short, definition, folder, committed, quick, only, store, device, isolate
        )
    if only:
        raise ConfigError("--only is for studies about membership; this one has no rows to choose.")
    from privbench.study import recompute, run_study_file

    if committed:
        outcomes = recompute(folder)
    else:
        with show.reporter() as reporter:
            outcomes = run_study_file(
                short,
                definition,
                folder,
                quick=quick,
                store=store,
                device=device,
                reporter=reporter,
                isolate=isolate,
            )
    try:
        print(privbench_leaderboard.write_study(folder))
    except privbench_leaderboard.LeaderboardError as error:
        raise PrivbenchError(str(error)) from error
    for outcome in outcomes:
        if outcome.error:
            show.complain(f"{outcome.variant.label}: {outcome.error}")
    return 2 if any(o.error for o in outcomes) else 0


def _audit_study(
    name: str,
    definition: AuditStudyFile,
    folder: Path,
    committed: bool,
    quick: bool,
    only: tuple[str, ...],
    store: str,
    device: str,
    isolate: Isolation | None,
) -> int:
    """A study about membership."""
    import privbench_leaderboard
    from privbench.audit_study import recompute_audit, run_audit_study

    if committed:
        outcomes = recompute_audit(folder)
    else:
        with show.reporter() as reporter:
            outcomes = run_audit_study(
                name,
                definition,
                folder,
                quick=quick,
                only=only,
                store=store,
                device=device,
                reporter=reporter,
                isolate=isolate,
            )
    if not only:
        try:
            print(privbench_leaderboard.write_membership(folder))
        except privbench_leaderboard.LeaderboardError as error:
            raise PrivbenchError(str(error)) from error
    for outcome in outcomes:
        if outcome.error:
            show.complain(f"row {outcome.row.id}: {outcome.error}")
    return 2 if any(o.error for o in outcomes) else 0
