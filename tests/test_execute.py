"""The harness end to end on small data, with spies."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mischief
from privbench.api import make_study, plan_study, run_study
from privbench.errors import ConfigError, DataError, PluginError, RecordError, StoreError
from privbench.plan import Study, status
from privbench.record import LARGEST, read_record, write_record
from privbench.registry import Registered, Registry
from privbench.store import Store
from privbench.types import AttackerView
from spies import CALLS, registry


def study(faces: Path, *settings: str, attack: str = "spy-attack", **more: Any) -> Study:
    """The spies on the small data set."""
    return make_study(
        more.pop("anonymizers", ["spy"]),
        [attack],
        more.pop("metrics", ["identification", "ssim"]),
        protocol="smoke",
        settings=[f"synthfaces.path={faces}", *settings],
        registry=registry(),
        **more,
    )


def go(what: Study, tmp_path: Path, **more: Any) -> Any:
    """Run into the test's own store."""
    CALLS.clear()
    options = {"store": str(tmp_path / "store"), "records": str(tmp_path / "records")} | more
    return run_study(what, registry=registry(), **options)


def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file with its time and content."""
    return {
        str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.read_bytes())
        for p in sorted(folder.rglob("*")) if p.is_file()
    }  # fmt: skip


def test_a_second_run_computes_and_writes_nothing(faces: Path, tmp_path: Path) -> None:
    """The same study again returns equal records, calls no plugin and writes no artefact."""
    first, _ = go(study(faces), tmp_path)
    assert {"anonymize", "train"} <= set(CALLS)
    before = tree(tmp_path / "store")
    second, _ = go(study(faces), tmp_path)
    assert CALLS == []
    assert second == first
    assert tree(tmp_path / "store") == before


def test_a_changed_metric_keeps_the_attack(faces: Path, tmp_path: Path) -> None:
    """Another metric setting recomputes rows; images and attack are kept."""
    go(study(faces), tmp_path)
    changed = study(faces, "identification.ranks=[1,2]")
    missed = [s for s in status(plan_study(changed, registry()), Store(str(tmp_path / "store")))
              if not s.hit]  # fmt: skip
    assert [s.step.stage for s in missed] == ["rows", "record"]
    assert "plugin.config.ranks" in missed[0].reason
    assert missed[1].reason.startswith("follows: identification of spy-attack on spy")
    (record,), _ = go(changed, tmp_path)
    assert CALLS == []
    assert {e.name for e in record.estimates["full-ref"]["identification"]} >= {"rank-2"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"settings": "spy.output=other"}, "plugin.config.output: seeded -> other"),
        ({"seed": 1}, "seed: 0 -> 1"),
    ],
)
def test_explain_names_what_changed(
    change: dict[str, Any], reason: str, faces: Path, tmp_path: Path
) -> None:
    """A miss is explained by the difference to the nearest stored step."""
    go(study(faces), tmp_path)
    settings = [change.pop("settings")] if "settings" in change else []
    changed = plan_study(study(faces, *settings, **change), registry())
    found = status(changed, Store(str(tmp_path / "store")))
    assert reason in next(s.reason for s in found if s.step.stage == "anonymize")


def test_the_key_covers_what_an_artefact_depends_on(faces: Path) -> None:
    """Plugin version, configuration, code, weights, data, seed and dtype are in every
    anonymize key; the attack's key follows it."""
    plan = plan_study(study(faces), registry())
    inputs = plan.cells[0].anonymize["probes"].inputs
    assert {"id", "version", "config", "code", "weights"} <= set(inputs["plugin"])
    assert {"data", "seed", "dtype", "batch"} <= set(inputs)
    other = plan_study(study(faces, seed=1), registry()).cells[0]
    mine = plan.cells[0]
    assert {s.key for s in mine.steps()}.isdisjoint({s.key for s in other.steps()})


@pytest.mark.parametrize("output", ["shape", "nan", "range", "raise"])
def test_a_bad_anonymizer_fails_alone(output: str, faces: Path, tmp_path: Path) -> None:
    """What breaks the contract is refused with a message that names the plugin, and the other
    anonymizers of the call are finished."""
    done, failures = go(
        study(
            faces,
            f"spy.output={output}",
            "spy-attack.how=quiet",
            anonymizers=["spy", "pixelate"],
        ),
        tmp_path,
    )
    assert [r.anonymizer.id for r in done] == ["pixelate"]
    (failure,) = failures
    assert isinstance(failure.error, PluginError)
    assert "spy" in str(failure.error)


def with_mischief() -> Registry:
    """The spies, and a third party's bad plugins."""
    bad = {(s.kind, s.id): Registered(s, "mischief 1.0") for s in mischief.privbench_plugins()}
    return Registry({**registry().plugins, **bad}, {})


def test_a_failed_metric_leaves_a_blank(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record has all other numbers, and is not kept as if it were whole: the next run tries
    the metric again, and nothing else."""
    CALLS.clear()
    known = with_mischief()
    what = make_study(
        ["spy"], ["spy-attack"], ["identification", "mischief/metric"], protocol="smoke",
        settings=[f"synthfaces.path={faces}"], registry=known,
    )  # fmt: skip
    where = {"store": str(tmp_path / "store"), "records": str(tmp_path / "records")}
    (record,), (failure,) = run_study(what, **where, registry=known)
    assert failure.label == "mischief/metric of spy-attack on spy"
    assert "no rows today" in str(failure.error)
    assert set(record.metrics) == set(record.estimates["full-ref"]) == {"identification"}
    assert record.utility == {}
    path = tmp_path / "records" / f"{record.name}.json"
    assert read_record(path).metrics == record.metrics
    assert {"anonymize", "train"} <= set(CALLS)
    CALLS.clear()
    spec = known.get("metric", "ssim").spec
    working = spec.build(spec.config())
    for name in ("rows", "reduce", "outputs", "chance"):  # the same key: it failed by chance
        method = staticmethod(getattr(working, name))
        monkeypatch.setattr(mischief.MischiefMetric, name, method, raising=False)
    (whole,), failures = run_study(what, **where, registry=known)
    assert failures == []
    assert whole.name == record.name
    assert CALLS == []
    assert whole.utility["mischief/metric"]
    assert whole.estimates == record.estimates
    assert read_record(path).metrics == whole.metrics


def test_an_anonymizer_that_fails_when_planned(faces: Path, tmp_path: Path) -> None:
    """It costs its own row where there are others, and is the run's error where there are none;
    in this process, as everywhere, one that calls sys.exit fails alone."""
    known = with_mischief()

    def study_of(*anonymizers: str) -> Study:
        return make_study(
            anonymizers, ["random-guess"], ["identification"], protocol="smoke",
            settings=[f"synthfaces.path={faces}"], registry=known,
        )  # fmt: skip

    where = {"store": str(tmp_path / "store"), "records": None, "registry": known}
    asked = study_of("mischief/maker:weights", "mischief/maker:sys-exit", "pixelate")
    (record,), failures = run_study(asked, **where)
    assert record.anonymizer.id == "pixelate"
    assert [f.label for f in failures] == [
        "mischief/maker:weights", "random-guess on mischief/maker:sys-exit"
    ]  # fmt: skip
    assert "failed while being planned: RuntimeError: no weights today" in str(failures[0].error)
    assert str(failures[1].error) == "called sys.exit(3)"
    with pytest.raises(PluginError, match="no weights today"):
        run_study(study_of("mischief/maker:weights"), **where)
    with pytest.raises(ConfigError, match="Bad settings"):
        run_study(study_of("mischief/maker:nonsense", "pixelate"), **where)


@pytest.mark.parametrize("how", ["shape", "nan"])
def test_a_bad_attack_fails_with_a_message(how: str, faces: Path, tmp_path: Path) -> None:
    """Scores of a wrong shape, or not finite, are refused."""
    _, (failure,) = go(study(faces, f"spy-attack.how={how}"), tmp_path)
    assert isinstance(failure.error, PluginError)
    assert "spy-attack" in str(failure.error)


@pytest.mark.parametrize("how", ["order", "labels", "diagonal"])
def test_an_attack_cannot_read_the_truth_off_the_interface(
    how: str, faces: Path, tmp_path: Path
) -> None:
    """Probe order, gallery order and gallery labels say nothing: scoring by them is chance.

    Without shuffling, every spy would reach rank-1 of 1 in one of the trials.
    """
    ranks = []
    for seed in range(6):
        (record,), _ = go(study(faces, f"spy-attack.how={how}", seed=seed), tmp_path)
        ranks += [
            record.estimate("identification", "rank-1", trial).value
            for trial in ("full-ref", "single-ref+source")
        ]
    assert np.mean(ranks) < 0.5


def test_evaluation_images_are_refused_by_the_oracle(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A planted leak: an attack that asks about an evaluation image is stopped, under any key."""
    import spies

    plan = plan_study(study(faces), registry())
    stolen = plan.data.pixels(plan.split.probes[:1])

    def train(self: Any, view: AttackerView) -> Any:
        thief = view.train.take([0])
        assert view.oracle is not None
        view.oracle(type(thief)(stolen, thief.subject, thief.keys))

    monkeypatch.setattr(spies.SpyAttack, "train", train)
    _, (failure,) = go(study(faces), tmp_path)
    assert "evaluation image" in str(failure.error)


def test_the_oracle_is_closed_after_training(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attack that keeps the oracle cannot ask it once evaluation images are in sight."""
    import spies

    kept: list[Any] = []

    def train(self: Any, view: AttackerView) -> Any:
        kept.append(view.oracle)
        return self

    def enroll(self: Any, gallery: Any, anonymized: bool) -> Any:
        kept[0](type(gallery)(gallery.pixels ^ 1, gallery.subject, gallery.keys))

    monkeypatch.setattr(spies.SpyAttack, "train", train)
    monkeypatch.setattr(spies.SpyAttack, "enroll", enroll)
    _, (failure,) = go(study(faces), tmp_path)
    assert "after training" in str(failure.error)


def test_queries_are_counted(faces: Path, tmp_path: Path) -> None:
    """The record holds the number of images asked for: 24, 2 and 2 by the spy."""
    (record,), _ = go(study(faces), tmp_path)
    assert record.oracle_queries == 8 * 3 + 2 + 2
    assert record.threat_model == "adaptive"


def test_the_record_is_whole_and_readable(faces: Path, tmp_path: Path) -> None:
    """A record read back equals the one returned, and its scores are beside it."""
    (record,), _ = go(study(faces), tmp_path)
    path = tmp_path / "records" / f"{record.name}.json"
    assert read_record(path) == record
    body = json.loads(path.read_text())
    assert body["protocol"]["name"] == "smoke"
    assert body["parts"]["probes"] == {"identities": 8, "images": 8, "undetected": None}
    assert len(body["hits"]["rank1"]) == len(body["hits"]["subject"]) == 8
    rank1 = record.estimate("identification", "rank-1").value
    assert np.mean(body["hits"]["rank1"]) == pytest.approx(rank1)
    assert {t["stage"] for t in body["timing"]} >= {"spy: probes", "spy-attack on spy: training"}
    assert all(len(t["seconds"]) == len(t["images"]) for t in body["timing"])
    assert (tmp_path / "records" / record.scores["file"]).exists()


def test_results_do_not_depend_on_the_rest_of_the_part(faces: Path, tmp_path: Path) -> None:
    """An image's release is the same bits whatever else is anonymized beside it."""
    from privbench.progress import Silent
    from privbench.release import anonymize_batch
    from privbench.session import Session

    plan = plan_study(study(faces), registry())
    session = Session(plan, Store(str(tmp_path)), torch.device("cpu"), Silent())
    cell, images = plan.cells[0], session.part("probes")
    plugin = session.build(cell.anonymizer)
    together, _, _ = anonymize_batch(session, cell, plugin, images.take([0, 1, 2]), [5, 6, 7])
    alone, _, _ = anonymize_batch(session, cell, plugin, images.take([2]), [7])
    assert torch.equal(together[2], alone[0])


def test_corrupted_image(tmp_path: Path) -> None:
    """A damaged image is named; other parts that are finished are kept."""
    import pyarrow.parquet as pq

    from conftest import write_faces

    folder = write_faces(tmp_path / "faces")
    table = pq.read_table(folder / "faces.parquet").to_pylist()
    plan = plan_study(study(folder), registry())
    broken = plan.data.keys[plan.split.probes[2]]
    for row in table:
        if row["key"] == broken:
            row["image"]["bytes"] = row["image"]["bytes"][:40]
    import pyarrow as pa

    pq.write_table(pa.Table.from_pylist(table), folder / "faces.parquet")
    _, (failure,) = go(study(folder), tmp_path)
    assert isinstance(failure.error, DataError)
    assert broken in str(failure.error)


def test_truncated_artefact_and_repair(faces: Path, tmp_path: Path) -> None:
    """A truncated part stops the run with its name; --repair recomputes that step alone and
    ends with the same numbers."""
    (before,), _ = go(study(faces), tmp_path)
    plan = plan_study(study(faces), registry())
    step = plan.cells[0].anonymize["probes"]
    part = next((tmp_path / "store" / "parts" / step.key).iterdir())
    part.write_bytes(part.read_bytes()[:-100])
    changed = study(faces, "identification.ranks=[1]")
    with pytest.raises(StoreError, match=part.name):
        go(changed, tmp_path)
    (after,), _ = go(changed, tmp_path, repair=True)
    assert set(CALLS) == {"anonymize"}
    assert after.estimate("identification", "rank-1") == before.estimate("identification", "rank-1")


def test_a_packed_record_is_the_same_record(faces: Path, tmp_path: Path) -> None:
    """Packed twice it has the same bytes; damaged or overgrown it is refused with a sentence."""
    (record,), _ = go(study(faces), tmp_path)
    one = write_record(record, tmp_path / "one", packed=True)
    two = write_record(record, tmp_path / "two", packed=True)
    assert read_record(one) == record
    assert one.read_bytes() == two.read_bytes()
    plain = read_record(tmp_path / "records" / f"{record.name}.json")
    assert plain.model_copy(update={"scores": {}}) == record.model_copy(update={"scores": {}})
    one.write_bytes(one.read_bytes()[:-20])
    with pytest.raises(RecordError, match="Cannot read"):
        read_record(one)
    two.write_bytes(gzip.compress(b" " * (LARGEST + 1)))
    with pytest.raises(RecordError, match="no record is"):
        read_record(two)
