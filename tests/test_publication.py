"""From a run to a verified publication: bundles, submission, verification, grades, withdrawal."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import lzma
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_curve

from privbench import bundle
from privbench.api import make_study, run_study
from privbench.audit import run_audit
from privbench.audit_plan import MembershipStudy, Target
from privbench.audit_publication import read_result
from privbench.cli import main
from privbench.curves import curves
from privbench.errors import ConfigError, RecordError
from privbench.grades import Grade, Grades, Withdrawals, merged, read, write
from privbench.plan import Choice
from privbench.record import Record, read_record, write_record
from privbench.registry import load_registry
from privbench.submission import Submitted, command_of, submit
from privbench.types import Identification
from privbench.verify import LARGEST_RECORD, Verdict, verify

METRICS = ["identification", "verification", "open-set", "k-anonymity", "ssim"]


@pytest.fixture(scope="module")
def home(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store and the records of two small runs."""
    folder = tmp_path_factory.mktemp("publication")
    study = make_study(
        ["pixelate"],
        ["random-guess", "edge-match"],
        METRICS,
        protocol="smoke",
        settings=[f"synthfaces.path={faces}", "cells=6"],
    )
    done, failures = run_study(study, store=str(folder / "store"), records=str(folder / "runs"))
    assert len(done) == 2
    assert not failures
    return folder


@pytest.fixture(scope="module")
def data(faces: Path) -> Choice:
    """Where the records' images are."""
    return Choice(id="synthfaces", settings={"path": str(faces)})


@pytest.fixture(scope="module")
def published(home: Path, data: Choice) -> list[Submitted]:
    """Both records, submitted."""
    return [
        submit(
            path,
            home / "board" / "records",
            store=str(home / "store"),
            dataset=data,
            consent="drawings, of nobody",
            own_images=True,
        )
        for path in sorted((home / "runs").glob("*.json"))
    ]


@pytest.fixture
def board(home: Path, published: list[Submitted], tmp_path: Path) -> Path:
    """A copy of the published files that a test may spoil."""
    shutil.copytree(home / "board", tmp_path / "board")
    return tmp_path / "board" / "records"


def first(board: Path) -> Path:
    """The record of the attack that is not a guess."""
    return next(board.glob("*edge-match*.json.gz"))


def check(path: Path, data: Choice, **more: Any) -> Verdict:
    """The verdict on one file."""
    return verify(path, dataset=data, **more)


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a packed record's JSON in place."""
    body = json.loads(gzip.decompress(path.read_bytes()))
    change(body)
    path.write_bytes(gzip.compress(json.dumps(body).encode()))


def spoil(path: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    """Change a record's evidence, and its hash in the record: a careful forger."""
    file = path.with_name(path.name.replace(".json.gz", bundle.SUFFIX))
    arrays = bundle.unpack(file.read_bytes(), file.name)
    change(arrays)
    data = bundle.pack(arrays)
    file.write_bytes(data)
    edit(path, lambda body: body["scores"].update(sha256=hashlib.sha256(data).hexdigest()))


def test_what_is_submitted_is_recomputed(board: Path, data: Choice) -> None:
    """Both records verify: every number follows from the evidence, and all is checked."""
    for path in board.glob("*.json.gz"):
        verdict = check(path, data)
        assert verdict.problems == ()
        assert verdict.notes == ()
        assert verdict.grade is not None
        assert verdict.grade.grade == "recomputed"
        assert verdict.grade.sha256 == hashlib.sha256(
            gzip.decompress(path.read_bytes())
        ).hexdigest()  # fmt: skip


def test_submission_changes_no_number(home: Path, published: list[Submitted]) -> None:
    """The record that is published claims what the run's record says."""
    for made in published:
        run = read_record(home / "runs" / f"{made.record.name}.json")
        added = {"scores", "curves", "command", "gallery", "dataset"}
        assert run.model_dump(exclude=added) == made.record.model_dump(exclude=added)
        assert made.record.dataset["consent"] == "drawings, of nobody"


def test_images_are_anonymized_again(board: Path, data: Choice) -> None:
    """`--rerun 1` anonymizes all probes and finds each bit for bit."""
    verdict = check(first(board), data, fraction=1.0)
    assert verdict.grade is not None
    assert verdict.grade.grade == "re-run"
    assert verdict.grade.rerun is not None
    assert (
        verdict.grade.rerun.images == verdict.grade.rerun.identical == verdict.grade.rerun.of == 8
    )


def test_a_release_of_other_settings_is_found_out(board: Path, data: Choice) -> None:
    """A record that names another strength than it was released with fails the rerun alone."""

    def claim(body: dict[str, Any]) -> None:
        body["anonymizer"]["config"]["cells"] = 16
        body["command"] = body["command"].replace("pixelate.cells=6", "pixelate.cells=9")

    edit(first(board), claim)
    edit(first(board), lambda b: b["anonymizer"]["config"].update(cells=9))
    assert check(first(board), data).problems == ()
    problems = check(first(board), data, fraction=0.5).problems
    assert problems
    assert "come out otherwise" in problems[0]


def test_prints_of_other_images_are_found_out(board: Path, data: Choice) -> None:
    """Prints that were shuffled among the probes fail the rerun."""

    def shuffle(arrays: dict[str, np.ndarray]) -> None:
        for name in (bundle.SHA, bundle.SMALL):
            arrays[name] = np.roll(arrays[name], 1, axis=0)

    spoil(first(board), shuffle)
    assert "8 of 8 images" in check(first(board), data, fraction=1.0).problems[0]


def _estimate(body: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = body["estimates"]["full-ref"]["identification"][0]
    return found


TAMPERED: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "an edited estimate": (lambda b: _estimate(b).update(value=0.05), "rank-1 on full-ref: value"),
    "an edited interval": (lambda b: _estimate(b).update(high=0.99), "rank-1 on full-ref: high"),
    "an edited chance": (lambda b: _estimate(b).update(chance=0.9), "rank-1 on full-ref: chance"),
    "an edited direction": (
        lambda b: _estimate(b).update(protects="higher"), "rank-1 on full-ref: protects"),
    "an edited utility": (
        lambda b: b["utility"]["ssim"][0].update(value=0.99), "ssim ssim on utility: value"),
    "a dropped number": (
        lambda b: b["estimates"]["full-ref"]["identification"].pop(), "must have"),
    "a dropped metric": (
        lambda b: [t.pop("verification") for t in b["estimates"].values()],
        "metrics that it names"),
    "edited hits": (lambda b: b["hits"]["rank1"].__setitem__(0, 0.123), "hits"),
    "an edited curve": (
        lambda b: b["curves"]["full-ref"]["cmc"]["value"].__setitem__(0, 0.0), "curves"),
    "a forged hash of the evidence": (
        lambda b: b["scores"].update(sha256="0" * 64), "other SHA-256"),
    "a hash that is none": (lambda b: b["keys"].update(record="x" * 64), "hashes are no SHA-256"),
    "a foreign protocol version": (lambda b: b["protocol"].update(version=9), "smoke v9"),
    "an unknown protocol": (lambda b: b["protocol"].update(name="easy"), "no protocol easy"),
    "a changed protocol": (lambda b: b["protocol"].update(evaluation=4), "is not ours"),
    "another schema": (lambda b: b.update(schema_version=2), "record schema 2"),
    "an unknown field": (lambda b: b.update(verdict="safe"), "not a record"),
    "an attack called a control": (
        lambda b: b["attack"].update(control="negative"), "has control"),
    "another threat model": (lambda b: b.update(threat_model="adaptive"), "threat model"),
    "forged weights": (
        lambda b: b["anonymizer"]["weights"].update(model="1" * 64), "weights of pixelate"),
    "other parts": (lambda b: b["parts"]["probes"].update(images=800), "part probes"),
    "a rosier timing": (
        lambda b: b["timing"][0]["summary"].update(images_per_second=1e6), "timing of"),
    "another picture": (lambda b: b["gallery"].update(sha256="2" * 64), "gallery"),
    "HTML for a name": (
        lambda b: b["attack"].update(id="<img src=x onerror=alert(1)>"), "must be named after"),
    "Markdown for a metric": (
        lambda b: b["metrics"]["ssim"].update(id="[x](javascript:alert(1))"), "is no plugin id"),
}  # fmt: skip


@pytest.mark.parametrize("what", TAMPERED)
def test_a_tampered_record_is_refused(what: str, board: Path, data: Choice) -> None:
    """One edit of the record, and it is refused with a sentence that names it."""
    change, words = TAMPERED[what]
    edit(first(board), change)
    verdict = check(first(board), data)
    assert verdict.grade is None
    assert words in " ".join(verdict.problems)


UNCHECKED = {
    "created", "privbench", "packages/*", "oracle_queries", "attack_report/*", "attack_report/*/*",
    "dataset/version", "dataset/consent", "dataset/digest", "parts/*/undetected",
    "keys/*", "gallery/alt",
    "anonymizer/code", "anonymizer/distribution", "attack/code", "attack/distribution",
    "metrics/*/code", "metrics/*/config/*", "metrics/*/distribution", "metrics/*/licence",
    "metrics/*/summary", "metrics/*/control",
    "timing/*/stage", "timing/*/images/*", "timing/*/resolution/*", "timing/*/peak_bytes",
    "timing/*/at_once", "timing/*/warmup", "timing/*/device/*",
    "utility/*/*/chance", "utility/*/*/protects", "utility/*/*/unit", "utility/*/*/worst",
    "utility/*/*/name",
}  # fmt: skip
"""Leaves of a record that nobody can check from the evidence; docs/publishing.md names them."""

NAMED = {"estimates", "curves", "utility", "inversion", "metrics", "keys", "packages", "parts",
         "attack_report", "config", "device", "timing"}  # fmt: skip
"""Mappings and lists whose entries are alike: one of them stands for all."""


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every plain value."""
    if isinstance(value, dict | list):
        entries = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in entries:
            yield from leaves(inner, (*path, key))
    else:
        yield path


def kind_of(path: tuple[Any, ...]) -> str:
    """What leaves that are alike have in common."""
    found, alike = [], False
    for part in path:
        found.append("*" if alike or isinstance(part, int) else part)
        deeper = found[0] in ("estimates", "curves", "utility", "inversion") and len(found) == 2
        alike = part in NAMED or (deeper and found[0] != "curves") or found[0] == "attack_report"
    return "/".join(map(str, found))


def other(value: Any) -> Any:
    """Another value of the same form."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str() if value in ("lower", "higher"):
            return "higher" if value == "lower" else "lower"
        case str() if len(value) == 64:
            return value[1:] + ("0" if value[0] != "0" else "1")
        case str():
            return f"{value}x"
        case _:
            return None


def test_every_leaf_of_a_record_is_checked_or_named(board: Path, data: Choice) -> None:
    """One value after the other is changed: the record is refused or only claimed, but for values
    that the documentation names."""
    path = first(board)
    whole = gzip.decompress(path.read_bytes())
    body = json.loads(whole)
    spared, seen = set(), set()
    for leaf in leaves(body):
        kind = kind_of(leaf)
        if kind in seen or leaf[0] == "schema_version":
            continue
        changed = json.loads(whole)
        place = changed
        for part in leaf[:-1]:
            place = place[part]
        if (new := other(place[leaf[-1]])) is None:
            continue
        seen.add(kind)
        place[leaf[-1]] = new
        path.write_bytes(gzip.compress(json.dumps(changed).encode(), 1))
        grade = check(path, data).grade
        if grade is not None and grade.grade != "claimed":
            spared.add(kind)
    assert spared == UNCHECKED & seen
    assert len(seen) > 80
    text = (Path(__file__).parents[1] / "docs" / "publishing.md").read_text(encoding="utf-8")
    missing = {kind.partition("/")[0] for kind in spared} - set(re.findall(r"`(\w+)", text))
    assert not missing


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_numbers_that_are_none_are_refused(number: str, board: Path, data: Choice) -> None:
    """What JSON does not know, or no float holds, is no record."""
    path = first(board)
    text = gzip.decompress(path.read_bytes()).decode()
    spoiled = text.replace('"oracle_queries": 0', f'"oracle_queries": {number}')
    path.write_bytes(gzip.compress(spoiled.encode()))
    verdict = check(path, data)
    assert verdict.grade is None
    assert "is not a record" in verdict.problems[0]


def test_a_million_rows_are_refused(board: Path, data: Choice) -> None:
    """A record of unheard-of size is not parsed, and rows that the protocol lacks are refused."""
    path = first(board)
    edit(path, lambda b: b["hits"].update(subject=[1] * 10**6, rank1=[0.0] * 10**6))
    assert f"larger than {LARGEST_RECORD:,} bytes" in check(path, data).problems[0]


def test_swapped_scores_are_refused(board: Path, data: Choice) -> None:
    """Another record's evidence, with its hash put into the record: the numbers do not follow."""
    path = first(board)
    other = next(board.glob(f"*random-guess*{bundle.SUFFIX}"))
    mine = path.with_name(path.name.replace(".json.gz", bundle.SUFFIX))
    shutil.copy(other, mine)
    assert "other SHA-256" in check(path, data).problems[0]
    digest = hashlib.sha256(other.read_bytes()).hexdigest()
    edit(path, lambda b: b["scores"].update(sha256=digest))
    assert "when recomputed" in check(path, data).problems[0]


def test_other_people_are_refused(board: Path, data: Choice) -> None:
    """Probes of people whom the protocol does not draw are found where the data are at hand."""
    spoil(first(board), lambda a: a.update(subject=a["subject"] + 1))
    assert "not the people whom the protocol draws" in " ".join(check(first(board), data).problems)


SPOILED: dict[str, tuple[Callable[[dict[str, np.ndarray]], object], str]] = {
    "NaN": (lambda a: a["full-ref/scores"].__setitem__((0, 0), np.nan), "NaN or infinity"),
    "a missing trial": (lambda a: a.pop("cross/scores"), "cross/scores must be"),
    "too many probes": (lambda a: a.update(subject=np.zeros(10**6, np.int64)), "subject must be"),
    "a column nobody has": (lambda a: a.update(mated=a["mated"] + 100), "must name columns"),
    "other rows": (lambda a: a.update({"rows/ssim": a["rows/ssim"][:3]}), "one for each of 8"),
}


@pytest.mark.parametrize("what", SPOILED)
def test_spoiled_evidence_is_refused(what: str, board: Path, data: Choice) -> None:
    """Arrays of another shape or with no numbers in them."""
    change, words = SPOILED[what]
    spoil(first(board), change)
    assert words in check(first(board), data).problems[0]


def test_a_bundle_that_swells_is_refused() -> None:
    """Ten megabytes of zeros in a kilobyte stop at the limit, and cut files are refused."""
    bomb = lzma.compress(bytes(10**7))
    with pytest.raises(RecordError, match="unpacks to more than 1,000,000 bytes"):
        bundle.unpack(bomb, "bomb", limit=10**6)
    good = bundle.pack({"a": np.arange(9.0)})
    with pytest.raises(RecordError, match="cut short"):
        bundle.unpack(good[:-20], "half")
    with pytest.raises(RecordError, match="not a bundle"):
        bundle.unpack(b"no xz file" * 9, "text")


def test_a_rerun_that_cannot_be_done_refuses_nothing(board: Path, data: Choice) -> None:
    """Where the data are not at hand, the record is recomputed and a note says what is missing."""
    verdict = verify(first(board), fraction=0.5)
    assert verdict.problems == ()
    assert verdict.grade is not None
    assert verdict.grade.grade == "recomputed"
    assert "nothing was anonymized again" in " ".join(verdict.notes)
    with pytest.raises(ConfigError, match="share from 0 to 1"):
        verify(first(board), fraction=2.0)


def test_evidence_is_used_once(board: Path, data: Choice) -> None:
    """A record under another key rests on its own evidence, or is refused: withdrawn ones, too."""
    path = first(board)
    body = json.loads(gzip.decompress(path.read_bytes()))
    body["keys"]["record"] = "0" * 64
    name = f"{path.name.rpartition('--')[0]}--00000000"
    body["scores"]["file"] = f"{name}{bundle.SUFFIX}"
    mine = path.with_name(path.name.replace(".json.gz", bundle.SUFFIX))
    shutil.copy(mine, board / body["scores"]["file"])
    again = board / f"{name}.json.gz"
    again.write_bytes(gzip.compress(json.dumps(body).encode()))
    assert "its evidence is that of" in check(again, data).problems[0]


def test_a_gallery_is_a_picture(board: Path, data: Choice) -> None:
    """Text, another format, or a picture of four billion pixels is no gallery."""
    path = first(board)
    huge = io.BytesIO()
    Image.new("1", (5000, 8)).save(huge, "JPEG")
    for content, words in ((b"<script>", "no JPEG"), (huge.getvalue(), "more than 4000 pixels")):
        digest = hashlib.sha256(content).hexdigest()
        (board.parent / "galleries" / f"{digest[:16]}.jpg").write_bytes(content)
        new = {"sha256": digest, "file": f"{digest[:16]}.jpg"}
        edit(path, lambda b, new=new: b["gallery"].update(new))
        assert words in check(path, data).problems[0]


def test_a_plugin_of_another_version_leaves_a_claim(board: Path, data: Choice) -> None:
    """What an attack may know, or whether an anonymizer is a control, cannot be checked then."""
    for side in ("attack", "anonymizer"):
        whole = first(board).read_bytes()
        edit(first(board), lambda b, side=side: b[side].update(version=99, control="negative"))
        verdict = check(first(board), data)
        assert verdict.grade is not None
        assert verdict.grade.grade == "claimed"
        first(board).write_bytes(whole)


def test_data_that_are_here_keep_their_name(home: Path, tmp_path: Path) -> None:
    """A committed record that calls the shipped faces otherwise is refused."""
    source = sorted((Path(__file__).parents[1] / "leaderboard" / "records").glob("pixelate--*.gz"))
    path = tmp_path / "board" / "records" / source[0].name
    path.parent.mkdir(parents=True)
    evidence = source[0].name.replace(".json.gz", bundle.SUFFIX)
    for name in (source[0].name, evidence):
        shutil.copy(source[0].with_name(name), path.with_name(name))
    edit(path, lambda b: b["dataset"].update(id="lfw"))
    assert "its data are those of synthfaces" in " ".join(verify(path).problems)


HOSTILE: dict[str, Callable[[bytes], bytes]] = {
    "half a character": lambda d: d.replace(b'"quick', b'"\\ud800').replace(
        b'"created": "', b'"created": "\\ud800'),
    "UTF-16": lambda d: d.decode().encode("utf-16"),
    "a byte order mark": lambda d: b"\xef\xbb\xbf" + d,
    "a huge protocol": lambda d: d.replace(b'"name": "smoke"', b'"name": "fit"').replace(
        b'"evaluation": 8', b'"evaluation": 1000000000000'),
    "a list": lambda d: b"[" * 100_000,
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_files_get_a_sentence_and_stop_no_other(
    what: str, board: Path, faces: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, the file named, the other record verified all the same."""
    path = first(board)
    path.write_bytes(gzip.compress(HOSTILE[what](gzip.decompress(path.read_bytes()))))
    where = ["--dataset", "synthfaces", "--set", f"path={faces}"]
    code, out, _ = call(capsys, "verify", str(board), *where)
    assert code == 2
    assert out.endswith("1 recomputed, 1 refused\n")


def test_evidence_that_no_metric_takes_stops_no_other(
    board: Path, faces: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """People with negative numbers raise inside a metric: one refusal, with the record's name."""
    spoil(first(board), lambda a: a.update(subject=-1 - a["subject"]))
    where = ["--dataset", "synthfaces", "--set", f"path={faces}"]
    code, out, _ = call(capsys, "verify", str(board), *where)
    assert code == 2
    assert out.endswith("1 recomputed, 1 refused\n")


def test_a_record_cannot_write_to_the_terminal(
    board: Path, faces: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Escape codes and line ends in a name do not reach it: no verdict can be forged."""
    stage = "x\n\x1b[2Jforged: re-run (200 of 200 probes)"
    edit(first(board), lambda b: b["timing"][0].update(stage=stage, seconds=[1.0, 9.0]))
    code, out, _ = call(capsys, "verify", str(first(board)))
    assert code == 2
    assert "\x1b" not in out
    assert not any(line.startswith("forged") for line in out.splitlines())


def test_what_the_board_cannot_read_is_refused(
    board: Path, faces: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A record that would stop the whole board does not verify."""
    edit(first(board), lambda b: b.update(oracle_queries=-5))
    where = ["--dataset", "synthfaces", "--set", f"path={faces}"]
    code, out, _ = call(capsys, "verify", str(first(board)), *where)
    assert code == 2
    assert "oracle_queries" in out


def test_without_evidence_a_record_is_only_claimed(board: Path, data: Choice) -> None:
    """Nothing is refused, and nothing is vouched for."""
    path = first(board)
    path.with_name(path.name.replace(".json.gz", bundle.SUFFIX)).unlink()
    verdict = check(path, data)
    assert verdict.grade is not None
    assert verdict.grade.grade == "claimed"
    assert "no evidence" in verdict.notes[0]


def test_a_metric_that_is_not_here_leaves_a_claim(board: Path, data: Choice) -> None:
    """Of a metric whose version is another, nothing can be said: the record stays a claim."""
    edit(first(board), lambda b: b["metrics"]["ssim"].update(version=99))
    verdict = check(first(board), data)
    assert verdict.problems == ()
    assert verdict.grade is not None
    assert verdict.grade.grade == "claimed"
    assert "version 99 made it" in verdict.notes[0]


def test_a_submission_needs_its_scores_and_store(
    home: Path, published: list[Submitted], tmp_path: Path
) -> None:
    """Without the scores beside it, with others, or with another store: a sentence each."""
    source = next((home / "runs").glob("*edge-match*.json"))
    path = tmp_path / source.name
    shutil.copy(source, path)
    with pytest.raises(RecordError, match="Cannot read the scores"):
        submit(path, tmp_path / "out", store=str(home / "store"))
    scores = source.with_name(source.name.replace(".json", ".scores.safetensors"))
    path.with_name(scores.name).write_bytes(scores.read_bytes() + b"x")
    with pytest.raises(RecordError, match="its SHA-256 differs"):
        submit(path, tmp_path / "out", store=str(home / "store"))
    shutil.copy(scores, path.with_name(scores.name))
    with pytest.raises(RecordError, match="does not hold 'pixelate: probes'"):
        submit(path, tmp_path / "out", store=str(tmp_path / "empty"))
    assert not (tmp_path / "out").exists()


def test_an_edited_record_cannot_be_submitted(home: Path, data: Choice, tmp_path: Path) -> None:
    """What does not follow from its scores is not written."""
    source = next((home / "runs").glob("*edge-match*.json"))
    record = read_record(source)
    record.estimates["full-ref"]["identification"][0] = record.estimates["cross"][
        "identification"
    ][1]  # fmt: skip
    write_record(record, tmp_path)
    scores = source.with_name(source.name.replace(".json", ".scores.safetensors"))
    shutil.copy(scores, tmp_path / scores.name)
    with pytest.raises(RecordError, match="do not follow from its scores"):
        submit(tmp_path / source.name, tmp_path / "out", store=str(home / "store"), dataset=data)
    assert not (tmp_path / "out").exists()


def test_the_command_makes_the_record_again(
    home: Path, published: list[Submitted], faces: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its words, with the store of the run, find every step done."""
    for made in published:
        words = made.record.command.split()[1:]
        assert "pixelate.cells=6" in words
        more = ["--metric", *METRICS, "--store", str(home / "store"), "--dry-run"]
        with pytest.raises(SystemExit) as stop:
            main([*words, f"synthfaces.path={faces}", *more])
        assert stop.value.code in (0, None)
        assert "miss" not in capsys.readouterr().out


def test_commands_name_members_draws_and_arguments(published: list[Submitted]) -> None:
    """What else a run can have is in the command."""
    record = published[0].record
    fused = record.model_copy(
        update={
            "keys": record.keys | {"member:edge-match": "0" * 64},
            "release": {"draws": 3, "fixed_seed": True},
            "attack": record.attack.model_copy(update={"id": "ensemble", "config": {}}),
        }
    )
    command = command_of(fused, load_registry())
    assert "--attack edge-match ensemble" in command
    assert "--draws 3 --fixed-seed" in command
    judged = record.model_copy(
        update={
            "attack": record.attack.model_copy(
                update={"id": "naive-recogniser", "config": {"recognisers": "dlib"}}
            ),
            "dataset": record.dataset | {"id": "folder"},
        }
    )
    assert "naive-recogniser:dlib" in command_of(judged, load_registry())
    assert "--dataset folder:PATH" in command_of(judged, load_registry())


def test_curves_agree_with_an_independent_implementation() -> None:
    """CMC by sorting, ROC by scikit-learn; bands hold the curve; ties are shared."""
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(40, 25))
    mated = rng.integers(0, 25, 40)
    scores[np.arange(40), mated] += 1.5
    found = curves(Identification(scores, mated, np.repeat(np.arange(20), 2)), 200, 0)
    order = np.argsort(-scores, axis=1)
    rank = np.argmax(order == mated[:, None], axis=1) + 1
    assert found["cmc"].x == [float(k) for k in range(1, 26)]
    assert found["cmc"].value == pytest.approx([(rank <= k).mean() for k in range(1, 26)], abs=1e-4)
    truth = np.arange(25)[None, :] == mated[:, None]
    fmr, tmr, _ = roc_curve(truth.ravel(), scores.ravel(), drop_intermediate=False)
    for x, value in zip(found["roc"].x, found["roc"].value, strict=True):
        assert value == pytest.approx(tmr[fmr <= x + 1e-9].max(), abs=1e-4)
    for curve in found.values():
        assert (np.array(curve.low) <= np.array(curve.value) + 1e-9).all()
        assert (np.array(curve.high) >= np.array(curve.value) - 1e-9).all()
        assert (np.diff(curve.value) >= 0).all()
    tied = curves(Identification(np.zeros((10, 5)), np.arange(10) % 5, np.arange(10)), 50, 0)
    assert tied["cmc"].value == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


def test_a_grade_is_of_one_file(tmp_path: Path) -> None:
    """A re-run outlives a recomputation of the same bytes, and of no others; refusal removes it."""
    ran = Grade(sha256="a", grade="re-run", privbench="1")
    again = Grade(sha256="a", grade="recomputed", privbench="2")
    other = Grade(sha256="b", grade="recomputed", privbench="2")
    known = Grades(grades={"r": ran})
    assert merged(known, {"r": again}).grades["r"] == ran
    assert merged(known, {"r": other}).grades["r"] == other
    assert merged(known, {"r": None}).grades == {}
    assert merged(known, {"s": ran.model_copy(update={"grade": "claimed"})}) == known
    write(known, tmp_path / "grades.json")
    assert read(Grades, tmp_path / "grades.json") == known
    (tmp_path / "grades.json").write_text('{"grades": {"r": {"grade": "perfect"}}}')
    with pytest.raises(RecordError, match="Cannot read"):
        read(Grades, tmp_path / "grades.json")


def call(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Run a command in this process: exit code, stdout, stderr."""
    with pytest.raises(SystemExit) as stop:
        main(list(words))
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    assert isinstance(stop.value.code, int)
    return stop.value.code, out, err


def test_the_commands(
    home: Path, faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Submit, verify with grades, withdraw: what a maintainer types."""
    records, grades = tmp_path / "board" / "records", tmp_path / "board" / "grades.json"
    where = ["--dataset", "synthfaces", "--set", f"path={faces}"]
    runs = sorted(map(str, (home / "runs").glob("*.json")))
    submitting = ["--out", str(records), "--store", str(home / "store"), *where]
    stray = tmp_path / "stray.json"
    stray.write_text("{}")
    code, out, err = call(capsys, "submit", str(stray), *runs, *submitting)
    assert code == 2  # the stray file is named, and stops no other
    assert "stray.json" in err
    code, again, _ = call(capsys, "submit", *runs, *submitting)
    assert code == 0
    assert again == out
    assert out.count(".json.gz") == out.count(bundle.SUFFIX) == 2
    everything = map(str, sorted(records.iterdir()))  # a shell's `*` names the evidence, too
    code, out, _ = call(capsys, "verify", *everything, "--grades", str(grades), *where)
    assert code == 0
    assert out.endswith("2 recomputed\n")
    assert len(read(Grades, grades).grades) == 2
    path = first(records)
    edit(path, lambda b: _estimate(b).update(value=0.0))
    code, out, _ = call(capsys, "verify", str(path), "--grades", str(grades), *where)
    assert code == 2
    assert "refused" in out
    assert len(read(Grades, grades).grades) == 1
    gone = tmp_path / "board" / "withdrawn.json"
    strike = ["withdraw", str(path), "--withdrawn", str(gone), "--reason"]
    assert call(capsys, *strike, "wrong data")[0] == 0
    assert read(Withdrawals, gone).withdrawn[0].reason == "wrong data"
    code, _, err = call(capsys, *strike, "again")
    assert code == 2
    assert "withdrawn already" in err
    code, _, err = call(capsys, "withdraw", f"{path}x", "--reason", "typo")
    assert code == 2
    assert "Did you mean" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["verify"], "Say which"),
        (["verify", "nowhere.json"], "There is no record nowhere.json"),
        (["verify", "{runs}", "--dataset", "synthface"], "Did you mean synthfaces"),
        (["verify", "{runs}", "--set", "path=x"], "name the data set"),
        (["submit", "{empty}"], "There is no record in"),
    ],
)
def test_mistakes_get_a_sentence(
    words: list[str], message: str, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 and what to do."""
    full = [w.format(runs=home / "runs", empty=tmp_path) for w in words]
    code, _, err = call(capsys, *full)
    assert code == 2
    assert message in err


def test_the_schema_accepts_records_and_refuses_others(published: list[Submitted]) -> None:
    """The generated JSON Schema, by an independent validator."""
    from jsonschema import Draft202012Validator

    from privbench.record_schema import schema_text

    validator = Draft202012Validator(json.loads(schema_text()))
    for made in published:
        body = made.record.model_dump(mode="json")
        validator.validate(body)
        for spoiled in (
            body | {"schema_version": 2},
            body | {"more": 1},
            {k: v for k, v in body.items() if k != "estimates"},
            body | {"seed": "zero"},
        ):
            assert not validator.is_valid(spoiled)


def test_a_record_keeps_its_curves_in_json(published: list[Submitted]) -> None:
    """Reading back gives the same object."""
    for made in published:
        assert read_record(made.files[0]) == made.record
        assert isinstance(made.record, Record)


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published record of an audit of membership: nine people, a model of one epoch."""
    folder = tmp_path_factory.mktemp("membership")
    tiny = {"epochs": 1, "samples": 6, "steps": 1, "batch_size": 6, "caption": "x"}
    study = MembershipStudy(
        targets=(Target(anonymizer=Choice(id="ldm-finetune", settings=tiny)),),
        attacks=(Choice(id="mia-loss"), Choice(id="mia-blind")),
        protocol="smoke",
    )
    done, failures = run_audit(study, store=str(folder / "store"), records=str(folder / "runs"))
    assert not failures
    for record in done:
        submit(folder / "runs" / f"{record.name}.json", folder / "records", store="")
    return folder / "records"


def test_membership_records_are_recomputed(audited: Path) -> None:
    """Scores by query set and scores by trial: all numbers follow, and the command is there."""
    for path in audited.glob("*.json.gz"):
        verdict = verify(path)
        assert verdict.problems == ()
        assert verdict.grade is not None
        assert verdict.grade.grade == "recomputed"
        record = read_result(path)
        assert "--anonymizer ldm-finetune --attack mia-" in record.command
        assert record.dataset["consent"] == "no real person: rendered"


FORGED: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "an AUC": (
        lambda b: b["estimates"]["in-distribution"]["membership"][0].update(value=0.5),
        "estimates"),
    "an exact rate": (lambda b: b["exact"]["in-distribution"][0].update(refused="no"), "exact"),
    "a test of the set": (lambda b: b.update(sets=None), "sets"),
    "swapped sides": (
        lambda b: b["pairs"].update({t: s[::-1] for t, s in b["pairs"].items()}), "compare what"),
    "a dropped trial": (
        lambda b: [b[k].pop("wild") for k in ("pairs", "estimates", "exact")], "wild are missing"),
    "a target that has seen nobody": (lambda b: b.update(seen="never"), "target was trained"),
    "another target": (lambda b: b["target"].update(trained_on=["auxiliary"]), "plain suspect set"),
    "no epochs": (
        lambda b: b["target"].update(epochs=0) or b.update(seen="never"), "epochs by its settings"),
    "a primary trial": (lambda b: b.update(primary_trial="wild"), "primary trial"),
    "resamples of its own": (lambda b: b["protocol"].update(name="fit", resamples=1), "not ours"),
    "a protocol": (lambda b: b["protocol"]["people"].update(seen=9), "is not ours"),
    "a threat model": (lambda b: b.update(threat_model="none"), "threat model"),
}  # fmt: skip


@pytest.mark.parametrize("what", FORGED)
def test_a_tampered_membership_record_is_refused(what: str, audited: Path, tmp_path: Path) -> None:
    """As for the other kind."""
    shutil.copytree(audited, tmp_path / "records")
    path = next((tmp_path / "records").glob("*mia-loss*.json.gz"))
    change, words = FORGED[what]
    edit(path, change)
    verdict = verify(path)
    assert verdict.grade is None
    assert words in " ".join(verdict.problems)
