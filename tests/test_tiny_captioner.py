"""The embedded captioner: what it ships, what it says, and how it was trained."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from privbench_plugins.models import ASSETS
from privbench_plugins.synthfaces.captions import describe, vocabulary
from privbench_plugins.tiny_captioner import net, train

FOLDER = ASSETS / "tiny-captioner"
ROWS = 200


@pytest.fixture(scope="module")
def shipped() -> tuple[np.ndarray, list[dict[str, str]]]:
    """Faces of the shipped data set and their attributes; none of them trained it."""
    table = pq.read_table(ASSETS / "synthfaces" / "wild-00.parquet").slice(0, ROWS)
    images = [
        np.asarray(Image.open(io.BytesIO(x["bytes"] if isinstance(x, dict) else x)).convert("RGB"))
        for x in table["image"].to_pylist()
    ]
    return np.stack(images), table.drop_columns(["image", "depth"]).to_pylist()


def test_files_are_small_and_their_own() -> None:
    """Below 200 KB, float16, and the hash that the provenance states."""
    weights = FOLDER / "model.safetensors"
    record = json.loads((FOLDER / "provenance.json").read_text())
    assert weights.stat().st_size < 200_000
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == record["sha256"]
    card = (FOLDER / "README.md").read_text()
    for name, row in record["held_out"].items():
        assert f"| {name} | {row['values']} | {row['accuracy']:.3f} | {row['majority']:.3f}" in card


def test_it_beats_the_commonest_value(shipped: tuple[np.ndarray, list[dict[str, str]]]) -> None:
    """On people that it never saw, every attribute is named better than by one fixed value."""
    images, rows = shipped
    found = net.load(FOLDER).attributes(images)
    for name in ("sex", "hair", "hair_color", "beard", "glasses", "clothing_color", "background"):
        truth = [str(row[name]) for row in rows]
        truth = [{"True": "yes", "False": "no"}.get(value, value) for value in truth]
        known = [i for i, value in enumerate(truth) if value in train.LABELS[name]]
        right = np.mean([found[i][name] == truth[i] for i in known])
        values = [truth[i] for i in known]
        common = max(values.count(value) for value in set(values)) / len(values)
        assert right > common, name


def test_captions_keep_the_vocabulary(shipped: tuple[np.ndarray, list[dict[str, str]]]) -> None:
    """Only words of the data set's captions; one image's caption does not depend on others."""
    images = shipped[0][:12]
    model = net.load(FOLDER)
    captions = model.captions(images)
    words = " ".join(captions).replace(",", " ").split()
    assert set(words) <= vocabulary()
    assert model.captions(images[5:6]) == captions[5:6]
    small = np.stack([np.asarray(Image.fromarray(x).resize((200, 160))) for x in images])
    assert len(model.captions(small)) == 12


def test_grammar_is_the_data_sets() -> None:
    """`describe` words attributes as the shipped captions do."""
    table = pq.read_table(ASSETS / "synthfaces" / "campus-a-00.parquet").slice(0, 60)
    for row in table.drop_columns(["image", "depth"]).to_pylist():
        words = {name: str(value) for name, value in row.items()}
        words["glasses"] = "yes" if row["glasses"] else "no"
        words["striped"] = "yes" if " striped " in row["caption"] else "no"
        made = {describe(words, t, o) for t in range(3) for o in range(3)}
        assert row["caption"] in made


def test_training_learns_and_measures(tmp_path: Path) -> None:
    """A few steps on colours: read, split by identity, trained, saved and loaded again."""
    rng = np.random.default_rng(0)
    colours = {"black": 20, "white": 235}
    rows, images = [], []
    for i in range(160):
        color = ("black", "white")[i % 2]
        row = {name: values[0] for name, values in train.LABELS.items()}
        hair = ("bald", "none") if i % 4 else ("short", "black")
        row |= {"subject": i // 2, "background": color, "hair": hair[0], "hair_color": hair[1]}
        rows.append(row | {"glasses": False, "caption": "a face"})
        images.append(np.full((32, 32, 3), colours[color]) + rng.integers(-9, 9, (32, 32, 3)))
    np.save(tmp_path / "train-0000-images.npy", np.stack(images).astype(np.uint8))
    (tmp_path / "train-0000.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    trained, tested = train.split(train.read(tmp_path, 32))
    assert not set(trained.subjects.tolist()) & set(tested.subjects.tolist())
    hair = trained.labels[:, list(train.LABELS).index("hair_color")]
    assert set(hair.tolist()) == {-1, 0}
    model = train.train(trained, epochs=6, batch=16)
    net.save(model, tmp_path / "out")
    again = net.load(tmp_path / "out")
    found = train.accuracies(again, trained, tested)
    assert found["background"]["accuracy"] == 1
    assert found["background"]["majority"] == 0.5
    assert torch.equal(again.head.weight.half(), model.head.weight.half())


def test_another_folder_is_refused() -> None:
    """The message names what was expected."""
    with pytest.raises(ValueError, match="does not describe a tiny-captioner"):
        net.load(ASSETS / "tiny-encoder")
