"""`tiny-recogniser`: what it was trained on, by what, and that nobody else knows its people."""

from __future__ import annotations

import hashlib
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from privbench_plugins.attacks import recognisers
from privbench_plugins.attacks.recognisers import RecogniserConfig
from privbench_plugins.datasets import synthfaces
from privbench_plugins.models import ASSETS
from privbench_plugins.tiny_encoder import evaluate, net
from privbench_plugins.tiny_recogniser import train
from privbench_plugins.tiny_recogniser.card import model_card

pytestmark = pytest.mark.usefixtures("one_thread")

SHIPPED = ASSETS / "tiny-recogniser"
Photos = tuple[np.ndarray[Any, np.dtype[np.uint8]], np.ndarray[Any, np.dtype[np.int64]]]


def facts_of(name: str) -> Any:
    """Provenance of a shipped model."""
    return json.loads((ASSETS / name / "provenance.json").read_text())


@pytest.fixture(scope="module")
def photos() -> Photos:
    """24 shipped identities, 3 photos each: (72, 128, 128, 3) and their subjects 0..23."""
    data = synthfaces.build(synthfaces.SynthfacesConfig())
    people = np.unique(data.subject)[:24]
    rows = np.concatenate([np.flatnonzero(data.subject == p)[:3] for p in people])
    return data.pixels(rows).permute(0, 2, 3, 1).numpy(), np.repeat(np.arange(24), 3)


# --- what is shipped ---------------------------------------------------------------------------


def test_shipped_weights_are_the_documented_ones() -> None:
    """At most 700 KB of float16 with the digest that provenance states and the planner records,
    and a card that says what provenance says."""
    path = SHIPPED / "model.safetensors"
    facts, config = facts_of("tiny-recogniser"), json.loads((SHIPPED / "config.json").read_text())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert path.stat().st_size <= 700_000
    assert {value.dtype for value in load_file(path).values()} == {torch.float16}
    assert facts["model.safetensors"]["sha256"] == digest
    files = recognisers.weights(RecogniserConfig(recognisers=("tiny-recogniser",)))
    assert files["tiny-recogniser/model.safetensors"] == digest
    parameters = sum(p.numel() for p in net.load(SHIPPED).parameters())
    card = model_card(facts, config, parameters, path.stat().st_size)
    assert (SHIPPED / "README.md").read_text() == card


def test_nobody_else_was_trained_on_its_people() -> None:
    """Its identity numbers begin above those of every other shipped model, whose last 5 % were
    held out; its own held-out people follow."""
    facts = facts_of("tiny-recogniser")
    first, last = facts["training"]["numbers"]
    assert last < facts["held_out"]["numbers"][0]
    trained = {
        "tiny-encoder": facts_of("tiny-encoder")["training"]["identities"],
        "tiny-captioner": facts_of("tiny-captioner")["identities"],
    }
    for path in ASSETS.glob("tiny-faces*"):
        trained[path.name] = max(run["identities"] for run in facts_of(path.name)["runs"])
    assert len(trained) > 5
    for name, count in trained.items():
        assert count / 0.95 <= first, name


def test_it_judges_clear_faces_and_has_adapted_to_no_anonymizer(photos: Photos) -> None:
    """Unseen people, across photos, chance .042: clear faces near the ceiling; edge maps, which
    `tiny-encoder` reads, far below it."""
    images, subject = photos
    edges = evaluate.edge_images(images)
    found = {}
    for name in ("tiny-recogniser", "tiny-encoder"):
        model = net.load(ASSETS / name)
        clear = evaluate.embed(model, images)
        found[name] = evaluate.cross_photo(evaluate.embed(model, edges), clear, subject).rank1
        assert evaluate.cross_photo(clear, clear, subject).rank1 > 0.9
    assert found["tiny-recogniser"] < 0.5 * found["tiny-encoder"]


# --- training ----------------------------------------------------------------------------------


def write_shards(folder: Path, photos: Photos, first: int) -> None:
    """One shard in the renderer's format, identity numbers from `first`."""
    images, subject = photos
    np.save(folder / "train-0000-images.npy", images)
    lines = [json.dumps({"subject": first + int(s)}) for s in subject]
    (folder / "train-0000.jsonl").write_text("\n".join(lines) + "\n")


def test_training_resumes_where_it_stopped(tmp_path: Path, photos: Photos) -> None:
    """Four steps at once and three plus one give the same weights, and provenance to match."""
    write_shards(tmp_path, photos, first=500)
    common = [
        "--data", str(tmp_path), "--first", "500", "--identities", "24", "--people", "4",
    ]  # fmt: skip
    whole = [*common, "--out", str(tmp_path / "a"), "--work", str(tmp_path / "wa")]
    parts = [*common, "--out", str(tmp_path / "b"), "--work", str(tmp_path / "wb")]
    train.main([*whole, "--steps", "4", "--cooldown", "1"])
    train.main([*parts, "--steps", "3", "--cooldown", "0"])
    train.main([*parts, "--steps", "4", "--cooldown", "1", "--resume"])
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in "ab"]
    assert files[0] == files[1]
    facts = json.loads((tmp_path / "b" / "provenance.json").read_text())
    assert facts["model.safetensors"]["sha256"] == hashlib.sha256(files[1]).hexdigest()
    assert facts["training"]["numbers"] == [500, 522]  # the last 5 % of 24 are held out
    assert facts["held_out"]["numbers"] == [523, 523]
    assert "500 to 522" in (tmp_path / "b" / "README.md").read_text()


def test_views_are_clear_photographs(photos: Photos) -> None:
    """A view is moved and brightened, no more: its fine detail is that of the photo, resized;
    the same seed gives the same views."""
    images = photos[0][:24]
    views, again = (
        train.make_batch(images, torch.Generator().manual_seed(0), 80) for _ in range(2)
    )
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    assert torch.equal(views, again)

    def detail(x: torch.Tensor) -> torch.Tensor:
        low = torch.nn.functional.avg_pool2d(x, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)
        return (x - low).std(dim=(1, 2, 3))

    ratio = detail(views) / detail(net.resize(pixels, 80))
    assert ratio.min() > 0.7
    assert ratio.max() < 1.6


@pytest.mark.skipif(find_spec("anny") is None, reason="needs privbench[render]")
def test_renders_may_start_at_any_identity(tmp_path: Path) -> None:
    """Identity 1 is the same person in the same photos, rendered after identity 0 or alone."""
    from privbench_plugins.synthfaces.render import open_studio
    from privbench_plugins.synthfaces.train import TrainPlan, render_training_set

    studio = open_studio()
    render_training_set(TrainPlan(2, 1, tmp_path / "both"), studio)
    render_training_set(TrainPlan(1, 1, tmp_path / "one", first=1), studio)
    both, one = (np.load(tmp_path / name / "train-0000-images.npy") for name in ("both", "one"))
    np.testing.assert_array_equal(one, both[1:])
    labels = json.loads((tmp_path / "one" / "train-0000.jsonl").read_text())
    assert labels["subject"] == 1
