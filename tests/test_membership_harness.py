"""Membership inference in the harness: populations, training that survives a kill, isolation of
the attack, records, studies."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from privbench import Config, PluginSpec, Tags
from privbench.audit import run_audit
from privbench.audit_numbers import AtRate, at_rate
from privbench.audit_plan import (
    PRIMARY,
    MembershipStudy,
    Target,
    Trial,
    is_membership,
    make_audit,
)
from privbench.audit_record import MembershipRecord
from privbench.audit_study import asked, recompute_audit, run_audit_study, selected
from privbench.audit_studyfile import AuditStudyFile, parse_audit_study
from privbench.audit_words import together, verdict
from privbench.cli import main
from privbench.errors import ConfigError, DataError, PluginError
from privbench.infer import infer, refuse_leak
from privbench.membership import Checkpoint, MembershipView, Training
from privbench.plan import Choice
from privbench.populations import (
    ATTACKERS,
    MEMBERSHIP_PROTOCOLS,
    QUERIES,
    SEEN,
    UNSEEN,
    membership_preset,
    populate,
)
from privbench.progress import Silent
from privbench.record import read_as
from privbench.registry import Registered, Registry, load_registry
from privbench.store import Store
from privbench.target import GOING_ON, AuditSession, fine_tune, sampled
from privbench.types import ImageSet, Membership
from privbench_plugins.datasets._folder import open_folder
from privbench_plugins.datasets.folder import FolderConfig
from privbench_plugins.datasets.synthfaces import SynthfacesConfig, build

TINY: Mapping[str, Any] = {"epochs": 1, "samples": 6, "steps": 1, "batch_size": 6, "caption": "x"}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def registry() -> Registry:
    """The built-in plugins."""
    return load_registry()


@pytest.fixture(scope="module")
def faces() -> Any:
    """The shipped faces."""
    return build(SynthfacesConfig())


class Scored:
    """Scores images by a function of their pixels."""

    def __init__(self, score: Callable[[ImageSet], torch.Tensor]) -> None:
        self.report: dict[str, Any] = {"loss": float("nan")}
        self.score = score


class Watching:
    """An attack that notes what it is given and scores by brightness."""

    seen: ClassVar[list[MembershipView]] = []
    queries: ClassVar[list[ImageSet]] = []

    def train(self, view: MembershipView) -> Scored:
        """Keep the view."""
        self.seen.append(view)
        return Scored(self._score)

    def _score(self, images: ImageSet) -> torch.Tensor:
        self.queries.append(images)
        return images.pixels.float().mean((1, 2, 3))


class Bad:
    """An attack that breaks its contract."""

    def __init__(self, config: Any) -> None:
        self.kind = config.kind

    def train(self, view: MembershipView) -> Scored:
        """Something is wrong with its scores, or it asks for what does not exist."""
        if self.kind == "own":
            view.own("members")  # type: ignore[arg-type]
        wrong: dict[str, Callable[[ImageSet], Any]] = {
            "nan": lambda images: torch.full((len(images),), torch.nan),
            "short": lambda images: torch.zeros(len(images) - 1),
            "list": lambda images: [0.0] * len(images),
        }
        return Scored(wrong[self.kind])


class BadConfig(Config):
    """Which fault."""

    kind: str = "nan"


def with_attack(registry: Registry, spec: PluginSpec) -> Registry:
    """The built-in plugins and one more."""
    plugins = dict(registry.plugins) | {(spec.kind, spec.id): Registered(spec, "test")}
    return dataclasses.replace(registry, plugins=plugins)


def watching(registry: Registry) -> Registry:
    """With the attack `watching`."""
    Watching.seen, Watching.queries = [], []
    tags = Tags(knowledge="black-box", infers="queries")
    return with_attack(
        registry,
        PluginSpec(kind="attack", id="watching", version=1, summary="", build=_watching, tags=tags),
    )


def _watching(config: Any) -> Watching:
    return Watching()


def bad(registry: Registry) -> Registry:
    """With the attack `bad`."""
    tags = Tags(knowledge="black-box", infers="queries")
    return with_attack(
        registry,
        PluginSpec(
            kind="attack", id="bad", version=1, summary="", build=Bad, config=BadConfig, tags=tags
        ),
    )


def study(*attacks: Choice, **more: Any) -> MembershipStudy:
    """The smallest study there is."""
    settings = dict(TINY) | more.pop("settings", {})
    target = Target(anonymizer=Choice(id="ldm-finetune", settings=settings))
    body: dict[str, Any] = {"targets": (target,), "attacks": attacks, "protocol": "smoke"}
    return MembershipStudy(**(body | more))


@pytest.mark.parametrize("name", MEMBERSHIP_PROTOCOLS)
def test_protocols_need_as_many_people_as_they_say(name: str, faces: Any) -> None:
    """Every part has its number of people, and nobody plays two parts."""
    preset = MEMBERSHIP_PROTOCOLS[name]
    if name == "full":
        with pytest.raises(DataError, match="2500 people of campus-a"):
            populate(faces, preset)
        return
    parts = populate(faces, preset)
    people = {part: set(faces.subject[rows].tolist()) for part, rows in parts.items()}
    assert {part: len(p) for part, p in people.items()} == dict(preset.people)
    assert sum(map(len, people.values())) == len(set.union(*people.values()))
    assert all(len(parts[p]) == preset.people[p] * preset.images for p in parts)


def test_another_fold_has_other_members_and_the_same_attacker(faces: Any) -> None:
    """Retrained targets have members of their own; what the attacker owns stays."""
    preset = MEMBERSHIP_PROTOCOLS["quick"]
    first, second = populate(faces, preset, 0), populate(faces, preset, 1)
    assert set(first[SEEN]) != set(second[SEEN])
    for part in ATTACKERS:
        np.testing.assert_array_equal(first[part], second[part])
    np.testing.assert_array_equal(first[SEEN], populate(faces, preset, 0)[SEEN])


def test_protocol_by_name(faces: Any) -> None:
    """`auto` takes the largest that fits; an unknown one is answered with a suggestion."""
    assert membership_preset("auto", faces).name == "quick"
    with pytest.raises(ConfigError, match="Did you mean quick"):
        membership_preset("quik", faces)
    with pytest.raises(DataError, match="members, non-members and auxiliary"):
        membership_preset("fit", faces)


def test_a_run_is_about_one_thing(registry: Registry) -> None:
    """Identity and membership do not mix."""

    def of(anonymizer: str, attack: str) -> bool:
        return is_membership(
            [registry.get("anonymizer", anonymizer).spec], [registry.get("attack", attack).spec]
        )

    assert of("ldm-finetune", "mia-generated")
    assert not of("pixelate", "random-guess")
    with pytest.raises(ConfigError, match="membership cannot be inferred"):
        of("pixelate", "mia-generated")
    with pytest.raises(ConfigError, match="attacks on membership"):
        of("ldm-finetune", "random-guess")


def test_the_attack_sees_neither_names_nor_order(registry: Registry, tmp_path: Path) -> None:
    """Queries come shuffled under neutral keys; the scores end up with the right images."""
    done, failures = run_audit(
        study(Choice(id="watching")), store=str(tmp_path / "s"), registry=watching(registry)
    )
    assert not failures
    assert len(done) == 1
    (view,) = Watching.seen
    assert view.denoiser is None
    assert len(view.samples) == TINY["samples"]
    queries = Watching.queries
    assert all((q.subject == -1).all() and not q.attributes for q in queries)
    keys = [key for q in queries for key in q.keys]
    assert all(key.startswith("query-") for key in keys)
    plan = make_audit(study(Choice(id="watching")), watching(registry), "cpu")
    cell, opened = plan.cells[0], Store(str(tmp_path / "s"))
    made = opened.find(cell.infer.stage, cell.infer.plugin, cell.infer.key)
    assert made is not None
    arrays = next(iter(opened.read(made)))
    session = AuditSession(plan, opened, CPU, Silent())
    first = 0
    shuffled = torch.cat([q.pixels for q in queries]).float().mean((1, 2, 3)).double().numpy()
    for name in cell.queries():
        truth = session.part(cell, name).pixels.float().mean((1, 2, 3)).double().numpy()
        np.testing.assert_allclose(arrays[name][:, 0], truth, rtol=1e-6)
        first += len(truth)
    assert first == len(shuffled)
    truths = np.concatenate([arrays[name][:, 0] for name in cell.queries()])
    assert not np.allclose(shuffled, truths), "the order of the parts is given away"
    assert view.generate is not None
    with pytest.raises(PluginError, match="scoring is over"):
        view.generate(["a face"], [0])


def test_a_second_run_computes_nothing(registry: Registry, tmp_path: Path) -> None:
    """Records come from the store, identical."""
    asked_for = study(Choice(id="mia-random"))
    first, _ = run_audit(asked_for, store=str(tmp_path / "s"), registry=registry)
    files = sorted((tmp_path / "s").rglob("*"))
    second, _ = run_audit(asked_for, store=str(tmp_path / "s"), registry=registry)
    assert first == second
    assert sorted((tmp_path / "s").rglob("*")) == files


@pytest.mark.parametrize(
    ("kind", "complaint"),
    [
        ("nan", "not finite"),
        ("short", r"\(N, 1 \+ F\)"),
        ("list", "with a tensor"),
        ("own", "generated or base-model"),
    ],
)
def test_an_attack_that_breaks_its_contract_costs_its_own_row(
    registry: Registry, tmp_path: Path, kind: str, complaint: str
) -> None:
    """The other attack is finished."""
    asked_for = study(Choice(id="bad", settings={"kind": kind}), Choice(id="mia-random"))
    done, failures = run_audit(asked_for, store=str(tmp_path / "s"), registry=bad(registry))
    assert [r.attack.id for r in done] == ["mia-random"]
    assert len(failures) == 1
    with pytest.raises(PluginError, match=complaint):
        raise failures[0].error


class KilledError(RuntimeError):
    """The process ends here."""


def test_a_killed_training_goes_on(registry: Registry, tmp_path: Path) -> None:
    """The weights are bit for bit those of a training that was never interrupted."""
    asked_for = study(Choice(id="mia-random"), settings={"epochs": 3, "keep": [1]})
    plan = make_audit(asked_for, registry, "cpu")
    cell = plan.cells[0]
    model = cell.models["target"]
    assert model.finetune is not None
    whole = AuditSession(plan, Store(str(tmp_path / "whole")), CPU, Silent())
    made = fine_tune(whole, cell, model)
    assert made is not None
    assert [int(name[:5]) for name in made.parts] == [1, 3]

    cut = AuditSession(plan, Store(str(tmp_path / "cut")), CPU, Silent())
    inner = cut.build(model.plugin)

    class Interrupted:
        """Dies after the second epoch."""

        starts: ClassVar[list[int]] = []

        def fit(self, private: ImageSet, training: Training) -> None:
            """Train, and die once."""
            start = training.start.epoch if training.start else 0
            self.starts.append(start)

            def keep(checkpoint: Checkpoint) -> None:
                training.keep(checkpoint)
                if not start:
                    raise KilledError

            inner.fit(private, dataclasses.replace(training, keep=keep))

    cut._built = {name: Interrupted() for name in cut._built}
    with pytest.raises(PluginError, match="KilledError"):
        fine_tune(cut, cell, model)
    left = cut.store.parts(model.finetune.key)
    assert 1 in left
    assert GOING_ON + 1 in left
    assert 3 not in left
    again = fine_tune(cut, cell, model)
    assert again is not None
    assert Interrupted.starts == [0, 1]
    assert again.parts == made.parts, "a part's name is the hash of its content"
    assert not [i for i in cut.store.parts(model.finetune.key) if i >= GOING_ON]


def test_guidance_needs_no_second_training(registry: Registry) -> None:
    """Settings of sampling are no part of the training's key; those of training are."""

    def keys(**settings: Any) -> tuple[str, str]:
        asked_for = study(Choice(id="mia-random"), settings=settings)
        cell = make_audit(asked_for, registry, "cpu").cells[0]
        step = cell.models["target"].finetune
        assert step is not None
        return step.key, cell.samples["target"].key

    first, other = keys(), keys(guidance_scale=2.0)
    assert first[0] == other[0]
    assert first[1] != other[1]
    assert keys(learning_rate=1e-5)[0] != first[0]


def test_the_attackers_model_is_trained_on_the_attackers_photographs(registry: Registry) -> None:
    """And the base model on nothing."""
    cell = make_audit(study(Choice(id="mia-random")), registry, "cpu").cells[0]
    assert cell.models["own"].trained_on == ("auxiliary",)
    assert cell.models["base"].finetune is None
    target, own = cell.models["target"].finetune, cell.models["own"].finetune
    assert target is not None
    assert own is not None
    assert target.inputs["data"] != own.inputs["data"]


def test_a_planted_leak_is_refused(registry: Registry, tmp_path: Path, faces: Any) -> None:
    """The attacker owns a photograph, or knows a person, of the queries."""
    plan = make_audit(study(Choice(id="mia-random")), registry, "cpu")
    cell = plan.cells[0]
    session = AuditSession(plan, Store(str(tmp_path / "s")), CPU, Silent())
    refuse_leak(session, cell)
    own, query = session.part(cell, "auxiliary"), session.part(cell, SEEN)
    stolen = dataclasses.replace(own, pixels=torch.cat([query.pixels[:1], own.pixels[1:]]))
    session._parts[0, "auxiliary"] = stolen
    session.checked.clear()
    with pytest.raises(DataError, match=r"is the photograph .* of seen"):
        refuse_leak(session, cell)
    mirrored = torch.cat([query.pixels[:1].flip(3), own.pixels[1:]])
    session._parts[0, "auxiliary"] = dataclasses.replace(own, pixels=mirrored)
    with pytest.raises(DataError, match="mirror image"):
        refuse_leak(session, cell)
    session._parts[0, "auxiliary"] = own
    others = session.part(cell, UNSEEN)
    both = dataclasses.replace(others, pixels=torch.cat([query.pixels[:1], others.pixels[1:]]))
    session._parts[0, UNSEEN] = both
    with pytest.raises(DataError, match=r"of unseen is the photograph .* of seen"):
        refuse_leak(session, cell)
    session._parts[0, UNSEEN] = others
    known = np.concatenate([query.subject[:1], own.subject[1:]])
    session._parts[0, "auxiliary"] = dataclasses.replace(own, subject=known)
    with pytest.raises(DataError, match="1 identities that are queried"):
        refuse_leak(session, cell)


def test_marks_are_put_on_training_and_queries(registry: Registry, tmp_path: Path) -> None:
    """The trial says on which side; the members' training has its own."""
    trials = (
        Trial(name=PRIMARY),
        Trial(name="marked", mark="watermark-visible"),
        Trial(name="both", mark="watermark-visible", mark_others=True),
    )
    target = Target(
        anonymizer=Choice(id="ldm-finetune", settings=dict(TINY)), mark="watermark-visible"
    )
    asked_for = study(Choice(id="watching"), targets=(target,), trials=trials)
    plan = make_audit(asked_for, watching(registry), "cpu")
    cell = plan.cells[0]
    assert trials[1].sides() == ("seen+watermark-visible", "unseen")
    assert trials[2].sides() == ("seen+watermark-visible", "unseen+watermark-visible")
    session = AuditSession(plan, Store(str(tmp_path / "s")), CPU, Silent())
    plain, marked = session.part(cell, SEEN), session.part(cell, "seen+watermark-visible")
    changed = (plain.pixels != marked.pixels).any(1).any(0)
    assert changed[:40, -40:].any()
    assert not changed[64:].any()
    finetune = cell.models["target"].finetune
    assert finetune is not None
    assert finetune.inputs["mark"]["id"] == "watermark-visible"


def test_a_fresh_sample_is_no_released_sample(registry: Registry, tmp_path: Path) -> None:
    """What is queried as generated was not what the attack was trained on."""
    trials = (Trial(name=PRIMARY), Trial(name="generated", suspects="generated",
                                         others="own-generated"))  # fmt: skip
    plan = make_audit(study(Choice(id="mia-random"), trials=trials), registry, "cpu")
    cell = plan.cells[0]
    session = AuditSession(plan, Store(str(tmp_path / "s")), CPU, Silent())
    released, fresh = sampled(session, cell, "target"), sampled(session, cell, "generated")
    assert not (released.pixels[:, None] == fresh.pixels[None]).flatten(2).all(2).any()


def test_labels_never_score_the_people_they_came_from(registry: Registry, tmp_path: Path) -> None:
    """The blind baseline is cross-fitted by person."""
    asked_for = study(Choice(id="mia-blind"))
    plan = make_audit(asked_for, registry, "cpu")
    cell = plan.cells[0]
    session = AuditSession(plan, Store(str(tmp_path / "s")), CPU, Silent())
    inner = session.build(cell.attack)
    shown: list[tuple[set[bytes], set[bytes]]] = []

    class Noting:
        """Notes who teaches and who is scored."""

        def learn(self, images: ImageSet, member: Any, seed: int, device: torch.device) -> Scored:
            """Learn as the built-in does."""
            taught = {p.numpy().tobytes() for p in images.pixels}
            trained = inner.learn(images, member, seed, device)

            def score(queries: ImageSet) -> torch.Tensor:
                shown.append((taught, {p.numpy().tobytes() for p in queries.pixels}))
                result: torch.Tensor = trained.score(queries)
                return result

            return Scored(score)

    session._built = {name: Noting() for name in session._built}
    infer(session, cell)
    assert shown
    everyone = {
        p.numpy().tobytes(): int(s)
        for part in QUERIES + ATTACKERS
        for p, s in zip(
            session.part(cell, part).pixels, session.part(cell, part).subject, strict=True
        )
    }
    for taught, scored in shown:
        assert not {everyone[p] for p in taught} & {everyone[p] for p in scored}


def test_rates_below_what_the_non_members_allow_are_refused() -> None:
    """TPR at FPR 0.1 % needs a thousand of them; the interval is Clopper and Pearson's."""
    rng = np.random.default_rng(0)
    member = np.repeat([True, False], 1000)
    evidence = Membership(rng.normal(size=2000), member, np.arange(2000), np.empty(0))
    found = at_rate(evidence, 0.001)
    assert found.fpr is not None
    assert found.fpr <= 0.001
    assert not found.refused
    few = Membership(evidence.scores[:1999], member[:1999], np.arange(1999), np.empty(0))
    refused = at_rate(few, 0.001)
    assert refused.tpr is None
    assert "1,000 non-members; there are 999" in refused.refused


def rate_of_noise(rng: np.random.Generator, shift: float = 0.0) -> AtRate:
    """A TPR at FPR 1 % of 500 members, whose scores are higher by `shift`, and 500 others."""
    member = np.repeat([True, False], 500)
    scores = rng.normal(size=1000) + shift * member
    return at_rate(Membership(scores, member, np.arange(1000), np.empty(0)), 0.01)


def test_noise_claims_nothing() -> None:
    """The lower end lies above the rate in no more than 2.5 % of studies, the threshold's own
    uncertainty included; and a real advantage is claimed."""
    rng = np.random.default_rng(1)
    claims = sum(rate_of_noise(rng).low > 0.01 for _ in range(800))  # type: ignore[operator]
    assert claims <= 31, "2.5 % of 800 and three standard deviations"
    strong = rate_of_noise(rng, 2.0)
    assert strong.low is not None and strong.low > 0.1  # noqa: PT018


def record_of(registry: Registry, store: Path) -> MembershipRecord:
    """A real record."""
    done, failures = run_audit(study(Choice(id="mia-random")), store=str(store), registry=registry)
    assert not failures
    return done[0]


def test_a_record_survives_its_file_and_says_what_it_is(registry: Registry, tmp_path: Path) -> None:
    """JSON and back; scores beside it with their hash."""
    done, _ = run_audit(
        study(Choice(id="mia-random")),
        store=str(tmp_path / "s"),
        records=str(tmp_path / "r"),
        registry=registry,
    )
    (path,) = (tmp_path / "r").glob("*.json")
    assert read_as(MembershipRecord, path) == done[0]
    assert done[0].seen == "trained"
    assert done[0].target["epochs"] == 1
    assert (tmp_path / "r" / done[0].scores["file"]).is_file()
    assert set(done[0].pairs) == {PRIMARY, "attacker-population", "other-population", "wild"}


def test_sentences_follow_the_numbers(registry: Registry, tmp_path: Path) -> None:
    """A better AUC, a smaller p: other words."""
    record = record_of(registry, tmp_path / "s")
    number = record.number("auc")
    assert number is not None

    def told(low: float, high: float) -> str:
        estimates = {PRIMARY: {"membership": [dataclasses.replace(
            number, value=(low + high) / 2, low=low, high=high)]}}  # fmt: skip
        return " ".join(verdict(record.model_copy(update={"estimates": estimates})))

    assert "told apart better than by guessing" in told(0.6, 0.7)
    assert "not shown to be told apart" in told(0.45, 0.7)
    assert "wrong way" in told(0.2, 0.4)


STUDY: Mapping[str, Any] = {
    "task": "membership",
    "title": "t",
    "question": "q",
    "protocol": "smoke",
    "settings": dict(TINY),
    "attacks": ["mia-random"],
    "targets": [
        {"name": "a", "quick_settings": {}},
        {"name": "b", "fold": 1},
    ],
    "rows": [
        {"id": "1", "group": "paper", "what": "w", "targets": ["a", "b"], "quick_settings": {}},
        {"id": "2", "group": "paper", "what": "w", "targets": ["a"], "trial": "wild"},
        {"id": "3", "group": "control", "what": "never trained", "targets": ["a"],
         "settings": {"epochs": 0}},
    ],
    "pictures": ["1"],
    "quick": {"protocol": "smoke"},
}  # fmt: skip


def test_rows_share_what_they_can(registry: Registry) -> None:
    """Two trials of one target under one attack are one cell."""
    parsed = parse_audit_study(STUDY, "study")
    made, places = asked(parsed, "cpu")
    assert places == [[("1", "a"), ("2", "a")], [("1", "b")], [("3", "a")]]
    assert [t.trials for t in made.targets] == [(PRIMARY, "wild"), (PRIMARY,), (PRIMARY,)]
    quick = selected(parsed, True)
    assert [(r.id, r.targets) for r in quick.rows] == [("1", ("a",))]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"rows": [{"id": "1", "group": "paper", "what": "w", "targets": ["c"]}]}, "no target"),
        ({"rows": [{"id": "1", "group": "paper", "what": "w", "targets": ["a"], "trial": "x"}]},
         "no trial"),
        ({"pictures": ["9"]}, "no row to show"),
        ({"rows": [STUDY["rows"][0], STUDY["rows"][0]]}, "must be distinct"),
        ({"oops": 1}, "oops"),
    ],
)  # fmt: skip
def test_a_wrong_study_is_refused(change: Mapping[str, Any], complaint: str) -> None:
    """With a sentence that says what is wrong."""
    with pytest.raises(ConfigError, match=complaint):
        parse_audit_study({**STUDY, **change}, "study")


def run_small(registry: Registry, tmp_path: Path) -> AuditStudyFile:
    """The study above, run."""
    parsed = parse_audit_study(STUDY, "study")
    outcomes = run_audit_study(
        "small", parsed, tmp_path / "out", store=str(tmp_path / "s"), registry=registry
    )
    assert not any(o.error for o in outcomes)
    return parsed


def test_a_study_is_recomputed_from_its_files(registry: Registry, tmp_path: Path) -> None:
    """Numbers come from committed records alone; a changed record changes them."""
    run_small(registry, tmp_path)
    path = tmp_path / "out" / "study.json"
    first = path.read_bytes()
    recompute_audit(tmp_path / "out")
    assert path.read_bytes() == first
    body = json.loads(first)["results"]
    assert [row["id"] for row in body["rows"]] == ["1", "2", "3"]
    auc = body["rows"][0]["results"]["mia-random"]["auc"]
    assert auc["targets"] == 2
    assert auc["low"] <= auc["value"] <= auc["high"]
    assert body["rows"][2]["results"]["mia-random"]["seen"] == "never"
    kinds = [(entry["row"], entry["kind"], entry["folds"]) for entry in body["null"]]
    assert kinds == [("1", "non-members", 2), ("3", "non-members", 1), ("3", "strangers", 1)]
    with Image.open(io.BytesIO((tmp_path / "out" / "samples.jpg").read_bytes())) as picture:
        assert picture.size[1] > 96


def command(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit code, output and messages of the command line."""
    here = ["--in-process"] if arguments[0] in ("run", "study") else []
    with pytest.raises(SystemExit) as ended:
        main([*arguments, *here])
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def audit_folder(root: Path, faces: Any) -> Path:
    """Photographs of members, non-members and the auditor's own, as folders."""
    parts = populate(faces, MEMBERSHIP_PROTOCOLS["smoke"])
    for role, part in (("members", SEEN), ("non-members", UNSEEN), ("auxiliary", "auxiliary")):
        rows = parts[part] if part != UNSEEN else np.concatenate(
            [parts[UNSEEN], parts["unpublished"]]
        )  # fmt: skip
        if part == "auxiliary":
            rows = np.concatenate([rows, parts["calibration"]])
        for row, pixels in zip(rows, faces.pixels(rows), strict=True):
            folder = root / role / str(faces.subject[row])
            folder.mkdir(parents=True, exist_ok=True)
            picture = Image.fromarray(pixels.permute(1, 2, 0).numpy())
            picture.save(folder / f"{row}.png")
    return root


def test_an_audit_of_released_images(
    tmp_path: Path, faces: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """A user's own folders and images that somebody else has generated."""
    data = audit_folder(tmp_path / "data", faces)
    release = tmp_path / "release"
    release.mkdir()
    for i, pixels in enumerate(faces.pixels(np.arange(8))):
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(release / f"{i}.png")
    code, out, err = command(
        ["run", "--dataset", f"folder:{data}", "--anonymizer", "ldm-finetune",
         "--attack", "mia-nearest", "--set", f"release={release}",
         "ldm-finetune.epochs=1", "samples=6", "ldm-finetune.steps=1", "caption=x",
         "--store", str(tmp_path / "s"), "--records", str(tmp_path / "r")],
        capsys,
    )  # fmt: skip
    assert code == 0, err
    assert "members (as you say)" in out
    assert "never saw" not in out
    assert "false alarm" not in out
    assert "This is what these attacks find" in out
    (path,) = (tmp_path / "r").glob("*.json")
    record = read_as(MembershipRecord, path)
    assert record.protocol["name"] == "fit"
    assert record.parts[SEEN].identities == 4


def test_an_audit_of_a_model(
    tmp_path: Path, faces: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """A diffusers folder that somebody else has trained; here the embedded one stands for it."""
    data = audit_folder(tmp_path / "data", faces)
    arguments = [
        "run", "--dataset", f"folder:{data}", "--anonymizer", "ldm-finetune", "--attack",
        "mia-loss", "--set", "model=tiny-faces", "ldm-finetune.epochs=1", "samples=4",
        "ldm-finetune.steps=1", "caption=x", "--store", str(tmp_path / "s"),
        "--records", str(tmp_path / "r"),
    ]  # fmt: skip
    code, out, err = command(arguments, capsys)
    assert code == 0, err
    assert "members (as you say)" in out
    assert "fine-tuned on nothing here" in out
    (path,) = (tmp_path / "r").glob("*.json")
    record = read_as(MembershipRecord, path)
    assert record.seen == "claimed"
    assert record.predictions > 0
    code, out, err = command([*arguments, "--dry-run"], capsys)
    assert code == 0, err
    assert "infer mia-loss" in out
    assert "hit" in out
    assert "rows" not in out.split()


def test_one_person_in_two_roles_is_refused(tmp_path: Path, faces: Any) -> None:
    """Nobody is a member and none at once."""
    data = audit_folder(tmp_path / "data", faces)
    person = next((data / "members").iterdir())
    (data / "auxiliary" / person.name).mkdir()
    with pytest.raises(DataError, match="must have one role"):
        open_folder(FolderConfig(path=str(data)))


def test_several_attacks_on_one_set_are_adjusted(registry: Registry, tmp_path: Path) -> None:
    """Ten attacks that each say p = .02 say less than one."""
    record = record_of(registry, tmp_path / "s")
    assert record.sets is not None
    plain = record.attack.model_copy(update={"control": None})
    few = record.sets.model_copy(update={"suspect": record.sets.suspect | {"p": 0.02}})
    made = record.model_copy(update={"attack": plain, "sets": few})
    assert not list(together([made]))
    assert "no longer detected" in " ".join(together([made] * 10))
    assert "still detected" in " ".join(together([made] * 2))


def test_a_row_that_does_not_exist_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--only` and parts are checked before any work."""
    code, _, err = command(["study", "face-mia", "--quick", "--only", "88"], capsys)
    assert code == 2
    assert "no row '88'" in err
    wrong = study(Choice(id="mia-random"), trials=(Trial(name="x", others="unsen"),))
    with pytest.raises(ConfigError, match="Did you mean unseen"):
        make_audit(wrong, load_registry(), "cpu")


def test_a_release_without_a_model_refuses_what_needs_one(
    tmp_path: Path, faces: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """One sentence, exit code 2, no traceback."""
    data = audit_folder(tmp_path / "data", faces)
    release = tmp_path / "release"
    release.mkdir()
    Image.fromarray(faces.pixels(np.arange(1))[0].permute(1, 2, 0).numpy()).save(release / "1.png")
    code, _, err = command(
        ["run", "--dataset", f"folder:{data}", "--anonymizer", "ldm-finetune",
         "--attack", "mia-loss", "--set", f"release={release}", "--store", str(tmp_path / "s")],
        capsys,
    )  # fmt: skip
    assert code == 2
    assert "model" in err
    assert "Traceback" not in err
