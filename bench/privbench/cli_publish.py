"""Commands that publish results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from unicodedata import category

from cyclopts import Parameter

from privbench import show
from privbench.errors import ConfigError, PrivbenchError

if TYPE_CHECKING:
    from privbench.verify import Verdict

Flag = Annotated[bool, Parameter(negative="")]
Settings = Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="")]


def leaderboard(
    *,
    records: Path = Path("leaderboard/records"),
    out: Path = Path("leaderboard/LEADERBOARD.md"),
    site: Path | None = None,
) -> int:
    """Make the leaderboard from committed records: a Markdown page and a static site.

    Parameters
    ----------
    records
        Directory of record files; grades, withdrawals and galleries lie beside it.
    out
        Markdown file to write.
    site
        Directory of the site; `site` beside the Markdown file by default.
    """
    import privbench_leaderboard
    from privbench.ranking import rank_rows

    try:
        privbench_leaderboard.write(records, out, rank_rows, site)
    except privbench_leaderboard.LeaderboardError as error:
        raise PrivbenchError(str(error)) from error
    print(out)
    print((site or out.parent / "site") / "index.html")
    return 0


def compare(old: Path, new: Path, *, verdicts: Path | None = None, changed: Flag = False) -> int:
    """Say what a change of records changes on the board, as Markdown for a pull request.

    Exit code 2 if no board can be made of the new records.

    Parameters
    ----------
    old
        Folder of records as they are; grades and withdrawals lie beside it.
    new
        The same as proposed.
    verdicts
        Text that `privbench verify` printed, to be quoted.
    changed
        Print the files of new and changed records instead, one a line.
    """
    import privbench_leaderboard
    from privbench.ranking import rank_rows

    try:
        if changed:
            for path in privbench_leaderboard.changed_files(old, new):
                print(path)
            return 0
        said = verdicts.read_text(encoding="utf-8") if verdicts else ""
        text, sound = privbench_leaderboard.compare(old, new, rank_rows, said)
    except privbench_leaderboard.LeaderboardError as error:
        raise PrivbenchError(str(error)) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"Cannot read {verdicts}: {error}") from error
    print(text, end="")
    return 0 if sound else 2


def submit(
    *records: Path,
    out: Path = Path("leaderboard/records"),
    store: str = ".privbench/store",
    dataset: str = "",
    set: Settings = (),  # noqa: A002 - the flag's name
    consent: str = "",
    own_images: Flag = False,
) -> int:
    """Bundle records with what their numbers rest on, ready to be published.

    Parameters
    ----------
    records
        Record files that `privbench run` wrote; each with its scores beside it.
    out
        Folder for the records and their evidence; galleries go to `galleries` beside it.
    store
        Of the run: a directory, or an fsspec URL.
    dataset
        Where the records' images are: an id, or folder:PATH; by default what the record names.
    set
        Settings of the data set: key=value.
    consent
        What the people in the images agreed to, where the data set does not say it.
    own_images
        Show images in galleries even where the data set does not say that they are rendered.
    """
    from privbench.registry import load_registry
    from privbench.submission import chosen_data
    from privbench.submission import submit as bundle_up

    registry = load_registry()
    where = chosen_data(dataset, set, registry)
    failed = False
    for path in _files(records):
        try:
            done = bundle_up(
                path,
                out,
                store=store,
                dataset=where,
                consent=consent,
                own_images=own_images,
                registry=registry,
            )
        except PrivbenchError as error:  # the others may be fine
            show.complain(str(error))
            failed = True
            continue
        for file in done.files:
            print(file)
        for note in done.notes:
            show.complain(f"{path.name}: {note}")
    return 2 if failed else 0


def verify(
    *records: Path,
    rerun: float = 0.0,
    dataset: str = "",
    set: Settings = (),  # noqa: A002 - the flag's name
    device: str = "auto",
    seed: int = 0,
    grades: Path | None = None,
) -> int:
    """Check published records: hashes, protocol, arithmetic; recompute all numbers.

    Parameters
    ----------
    records
        Record files, or folders of them.
    rerun
        Share of the probes to anonymize again and compare, such as 0.1.
    dataset
        Where the records' images are: an id, or folder:PATH; by default what the record names.
    set
        Settings of the data set: key=value.
    device
        Where to anonymize again: auto, cpu, cuda, cuda:1, ...
    seed
        Which probes are anonymized again.
    grades
        File to keep the grades in, such as leaderboard/grades.json; the board shows them.
    """
    from privbench.grades import Grades, merged, read, write
    from privbench.registry import load_registry
    from privbench.submission import chosen_data
    from privbench.timing import pick_device
    from privbench.verify import verify as check

    registry = load_registry()
    where = chosen_data(dataset, set, registry)
    verdicts = []
    with show.reporter() as reporter:
        files = list(_files(records))
        with reporter.task("verifying", len(files), "records") as task:
            for path in files:
                verdict = check(
                    path,
                    fraction=rerun,
                    dataset=where,
                    device=pick_device(device),
                    seed=seed,
                    registry=registry,
                    reporter=reporter,
                )
                verdicts.append(_on_the_board(verdict, path))
                task.advance()
    _verdicts(verdicts)
    if grades is not None:
        write(merged(read(Grades, grades), {v.name: v.grade for v in verdicts}), grades)
    return 2 if any(v.grade is None for v in verdicts) else 0


def _on_the_board(verdict: Verdict, path: Path) -> Verdict:
    """The verdict; a refusal where the board could not read the record."""
    import privbench_leaderboard

    try:
        privbench_leaderboard.read(path)
    except privbench_leaderboard.LeaderboardError as error:
        problems = verdict.problems or (str(error),)
        return replace(verdict, grade=None, problems=problems)
    return verdict


def _verdicts(found: Sequence[Verdict]) -> None:
    """One line a record, and below it why it is refused or what is worth knowing."""
    for verdict in found:
        grade = verdict.grade
        again = grade and grade.rerun
        ran = (
            f" ({again.images} of {again.of} probes, {again.identical} bit for bit)"
            if again
            else ""
        )
        print(f"{_plain(verdict.name)}: {grade.grade if grade else 'refused'}{ran}")
        for text in (*verdict.problems, *verdict.notes):
            print(f"  {_plain(text)}")
    levels = Counter(v.grade.grade if v.grade else "refused" for v in found)
    print(", ".join(f"{count} {level}" for level, count in sorted(levels.items())))


def _plain(text: str) -> str:
    """Text that may be anyone's, on one line of a terminal: no control or format characters."""
    return "".join(" " if category(c)[0] in "CZ" else c for c in text)[:1000]


def withdraw(
    record: Path,
    *,
    reason: str,
    withdrawn: Path = Path("leaderboard/withdrawn.json"),
) -> int:
    """Withdraw a published record: the board lists it with the reason, and counts it no longer.

    Parameters
    ----------
    record
        Its file.
    reason
        What readers of the board are told.
    withdrawn
        The list of withdrawn records.
    """
    from privbench.grades import withdraw as strike

    made = strike(record, reason, withdrawn)
    print(f"{made.record}: withdrawn in {withdrawn}. `privbench leaderboard` renders it.")
    return 0


def schema() -> int:
    """Print the JSON Schema of records."""
    from privbench.record_schema import schema_text

    print(schema_text(), end="")
    return 0


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    """Record files, those in folders included."""
    if not paths:
        raise ConfigError("Say which: record files (.json, .json.gz), or a folder of them.")
    for path in paths:
        if path.is_dir():
            found = sorted([*path.rglob("*.json"), *path.rglob("*.json.gz")])
            if not found:
                raise ConfigError(f"There is no record in {path} (*.json, *.json.gz).")
            yield from found
        elif path.is_file():
            if path.suffix not in (".xz", ".safetensors"):  # `*` names what lies beside, too
                yield path
        else:
            raise ConfigError(f"There is no record {path}.")
