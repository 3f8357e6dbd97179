"""The shipped data set of rendered heads, and the renderer that made it."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import fields
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import privbench_plugins
from privbench_plugins.datasets.synthfaces import written_by_us

FOLDER = Path(privbench_plugins.__file__).parent / "assets" / "synthfaces"
IDENTITIES = {"wild": 240, "campus-a": 120, "campus-b": 120}
IMAGES = 10
PER_SUBJECT = ("age_group", "sex", "skin_tone", "hair", "hair_color", "beard", "population")

render_extra = pytest.mark.skipif(find_spec("anny") is None, reason="needs privbench[render]")


@pytest.fixture(scope="module")
def table() -> pa.Table:
    """All shipped rows."""
    return pa.concat_tables([pq.read_table(path) for path in sorted(FOLDER.glob("*.parquet"))])


@pytest.fixture(scope="module")
def labels(table: pa.Table) -> list[dict[str, Any]]:
    """All shipped rows without their images."""
    return table.drop_columns(["image", "depth"]).to_pylist()


def decode(cell: dict[str, Any]) -> np.ndarray:
    """Pixels of an image cell."""
    with Image.open(io.BytesIO(cell["bytes"])) as image:
        return np.asarray(image)


def every(table: pa.Table, column: str, step: int) -> list[np.ndarray]:
    """Every `step`-th image of a column."""
    chosen = table[column].take(list(range(0, len(table), step)))
    return [decode(cell) for cell in chosen.to_pylist()]


def test_hugging_face_datasets_reads_the_files(tmp_path: Path) -> None:
    """`datasets` finds images in the columns `image` and `depth` with no help."""
    from datasets import load_dataset

    files = [str(path) for path in sorted(FOLDER.glob("campus-b-*.parquet"))]
    data = load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path))
    assert len(data) == IDENTITIES["campus-b"] * IMAGES
    first = data[0]
    assert first["image"].size == (128, 128)
    assert first["image"].mode == "RGB"
    assert first["depth"].size == (64, 64)
    assert len(first["landmarks"]) == 10


def test_counts(labels: list[dict[str, Any]]) -> None:
    """Every population has its number of subjects, every subject its number of images."""
    subjects: dict[str, dict[int, int]] = {name: {} for name in IDENTITIES}
    for row in labels:
        own = subjects[row["population"]]
        own[row["subject"]] = own.get(row["subject"], 0) + 1
    assert {name: len(own) for name, own in subjects.items()} == IDENTITIES
    assert {n for own in subjects.values() for n in own.values()} == {IMAGES}


def test_subjects_belong_to_one_population(labels: list[dict[str, Any]]) -> None:
    """No subject number occurs in two populations."""
    pairs = {(row["subject"], row["population"]) for row in labels}
    assert len(pairs) == len({subject for subject, _ in pairs})


def test_keys_are_distinct(labels: list[dict[str, Any]]) -> None:
    """A key names one sample and starts with its population."""
    assert len({row["key"] for row in labels}) == len(labels)
    assert all(row["key"].startswith(row["population"] + "-") for row in labels)


def test_size_budget() -> None:
    """The data fits into the wheel: 24 MB in all, 7.5 MB a file."""
    sizes = [path.stat().st_size for path in FOLDER.iterdir()]
    assert max(sizes) < 7.5e6
    assert sum(sizes) <= 24e6


def test_manifest_describes_the_files(table: pa.Table) -> None:
    """Hashes and counts in the manifest are those of the files."""
    manifest = json.loads((FOLDER / "manifest.json").read_text())
    found = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in FOLDER.glob("*.parquet")
    }
    assert {name: file["sha256"] for name, file in manifest["files"].items()} == found
    assert manifest["rows"] == len(table)
    assert manifest["identities"] == IDENTITIES
    assert "No real person" in manifest["statement"]


def test_captions_do_not_name_the_population(labels: list[dict[str, Any]]) -> None:
    """A caption cannot give membership away by a word; it is short and in lower case."""
    for row in labels:
        words = row["caption"].replace(",", " ").split()
        assert not {"wild", "campus", "a-", "staff", "university"} & set(words)
        assert row["caption"] == row["caption"].lower()
        assert 8 <= len(words) <= 40


def test_caption_agrees_with_the_attributes(labels: list[dict[str, Any]]) -> None:
    """Glasses, sex, clothing and background in the caption are those of the columns."""
    for row in labels:
        words = row["caption"].replace(",", " ").split()
        assert ("glasses" in words) == row["glasses"]
        assert row["sex"] in words
        assert row["background"] in words
        assert row["clothing_color"] in words


def test_the_vocabulary_of_captions_is_closed(labels: list[dict[str, Any]]) -> None:
    """Few words make all captions."""
    words = {word for row in labels for word in row["caption"].replace(",", " ").split()}
    assert len(words) < 120


def test_images_show_something(table: pa.Table) -> None:
    """Images are 128 x 128 RGB, have contrast, and differ from each other."""
    images = every(table, "image", 24)
    assert {image.shape for image in images} == {(128, 128, 3)}
    assert min(float(image.std()) for image in images) > 15
    assert len({image.tobytes() for image in images}) == len(images)


def test_depth_has_a_head_and_a_background(table: pa.Table) -> None:
    """Depth is 64 x 64, has both background (0) and a surface with relief."""
    for depth in every(table, "depth", 24):
        assert depth.shape == (64, 64)
        assert depth.dtype == np.uint8
        assert 0.2 < (depth > 0).mean() < 0.95
        assert np.ptp(depth[depth > 0].astype(int)) > 60


def test_landmarks_lie_in_the_image_in_order(labels: list[dict[str, Any]]) -> None:
    """Left eye left of right eye, eyes above the nose tip above the mouth, all inside."""
    points = np.array([row["landmarks"] for row in labels]).reshape(-1, 5, 2)
    assert points.min() > 0
    assert points.max() < 127
    upright = np.array([abs(row["yaw"]) < 20 for row in labels])
    eyes, nose, mouth = points[:, :2], points[:, 2], points[:, 3:]
    assert (eyes[upright, 0, 0] < eyes[upright, 1, 0]).all()
    assert (eyes[upright, :, 1].mean(1) < nose[upright, 1]).all()
    above = nose[upright, 1] < mouth[upright, :, 1].mean(1)
    assert above.mean() > 0.98  # a hooked nose above a broad smile can reach lower


def test_what_belongs_to_a_subject_never_changes(labels: list[dict[str, Any]]) -> None:
    """Identity attributes are constant per subject; nuisance attributes are not."""
    rows: dict[int, list[dict[str, Any]]] = {}
    for row in labels:
        rows.setdefault(row["subject"], []).append(row)
    for own in rows.values():
        for name in PER_SUBJECT:
            assert len({row[name] for row in own}) == 1
        assert len({(row["clothing"], row["clothing_color"]) for row in own}) > 3
        assert len({(row["yaw"], row["pitch"]) for row in own}) == IMAGES


def test_the_same_subject_looks_more_alike(table: pa.Table, labels: list[dict[str, Any]]) -> None:
    """Even the raw inner face, aligned at the eyes, tells subjects apart better than chance."""
    chosen = [i for i, row in enumerate(labels) if abs(row["yaw"]) < 9][:400]
    cells = table["image"].take(chosen).to_pylist()
    faces = np.stack(
        [inner_face(c, labels[i]["landmarks"]) for c, i in zip(cells, chosen, strict=True)]
    )
    subject = np.array([labels[i]["subject"] for i in chosen])
    distance = ((faces[:, None] - faces[None]) ** 2).mean(2)
    a, b = np.triu_indices(len(chosen), 1)
    same = subject[a] == subject[b]
    genuine, impostor = distance[a, b][same], np.sort(distance[a, b][~same])
    auc = 1 - np.searchsorted(impostor, genuine).mean() / len(impostor)
    assert auc > 0.8


def inner_face(cell: dict[str, Any], landmarks: list[float]) -> np.ndarray:
    """Grey 16 x 16 patch around eyes and mouth, of zero mean and unit variance."""
    points = np.array(landmarks).reshape(5, 2)
    middle = points[:2].mean(0)
    reach = 1.1 * np.linalg.norm(points[1] - points[0])
    box = (middle[0] - reach, middle[1] - 0.6 * reach, middle[0] + reach, middle[1] + 1.4 * reach)
    with Image.open(io.BytesIO(cell["bytes"])) as image:
        patch = image.convert("L").resize((16, 16), Image.Resampling.BOX, box=box)
    grey = np.asarray(patch, np.float32).reshape(-1)
    return (grey - grey.mean()) / (grey.std() + 1e-6)


@pytest.fixture(scope="module")
def studio() -> Any:
    """The renderer's shared assets."""
    from privbench_plugins.synthfaces.render import open_studio

    return open_studio()


@render_extra
def test_identity_and_scene_share_no_parameter() -> None:
    """Who and how are two records without a common field, and a scene knows no identity."""
    from privbench_plugins.synthfaces.identity import Identity, draw_identity
    from privbench_plugins.synthfaces.scene import Scene, draw_scene

    common = {f.name for f in fields(Identity)} & {f.name for f in fields(Scene)}
    assert common == {"name"}
    assert set(signature(draw_scene).parameters) == {"population", "name"}
    assert set(signature(draw_identity).parameters) == {"head", "name"}


@render_extra
def test_identity_is_drawn_from_its_name_alone(studio: Any) -> None:
    """One name gives one identity, whatever is drawn in between; other names give others."""
    from privbench_plugins.synthfaces.identity import draw_identity
    from privbench_plugins.synthfaces.scene import draw_scene

    first = draw_identity(studio.head, "test/wild/0")
    scenes = [draw_scene("wild", f"test/wild/0/{i}") for i in range(2)]
    assert draw_identity(studio.head, "test/wild/0") == first
    assert draw_identity(studio.head, "test/wild/1") != first
    assert scenes[0] != scenes[1]


@render_extra
def test_scenes_do_not_depend_on_the_subject() -> None:
    """Clothing is as varied within a subject as between subjects: garments are not personal."""
    from privbench_plugins.synthfaces.scene import draw_scene

    within = [draw_scene("wild", f"test/wild/0/{i}").clothing.color for i in range(300)]
    between = [draw_scene("wild", f"test/wild/{i}/0").clothing.color for i in range(300)]
    assert set(within) == set(between)
    most = max(within.count(color) for color in set(within))
    assert most < 60


@render_extra
def test_rendering_is_deterministic(studio: Any) -> None:
    """The same names give the same bytes."""
    from privbench_plugins.synthfaces.samples import draw_samples

    first, again = (list(draw_samples(studio, "test", "wild", 3, 0, 2)) for _ in range(2))
    for one, other in zip(first, again, strict=True):
        assert one.labels == other.labels
        assert one.pixels.tobytes() == other.pixels.tobytes()
        assert one.depth.tobytes() == other.depth.tobytes()


@render_extra
def test_shipped_rows_can_be_rendered_again(studio: Any, labels: list[dict[str, Any]]) -> None:
    """Labels of a shipped subject follow from its name in the namespace `shipped`."""
    from privbench_plugins.synthfaces.samples import draw_samples

    for number in (0, 17):
        sample = next(draw_samples(studio, "shipped", "wild", number, number, 1))
        row = next(r for r in labels if r["key"] == sample.labels.key)
        own = sample.labels.as_row()
        points = pytest.approx(own.pop("landmarks"), abs=0.05)
        assert row.pop("landmarks") == points
        assert {k: row[k] for k in own if k not in ("yaw", "pitch")} == {
            k: v for k, v in own.items() if k not in ("yaw", "pitch")
        }


@render_extra
def test_shipped_captions_use_the_declared_vocabulary(labels: list[dict[str, Any]]) -> None:
    """No caption has a word outside the declared vocabulary."""
    from privbench_plugins.synthfaces.captions import vocabulary

    words = {word for row in labels for word in row["caption"].replace(",", " ").split()}
    assert words <= vocabulary()


@render_extra
def test_z_buffer_keeps_the_nearest_triangle() -> None:
    """Of two overlapping triangles the one with the larger depth is seen."""
    from privbench_plugins.synthfaces.raster import rasterise

    corners = [[0, 0], [0, 9], [9, 0]]
    screen = np.array([[*c, z] for z in (1.0, 2.0) for c in corners], np.float32)
    triangles = np.arange(6).reshape(2, 3)
    found = rasterise(screen, triangles, 10, cull=True)
    assert set(found.triangle) == {1}
    assert len(found.pixel) == 55
    assert np.allclose(found.weights.sum(1), 1, atol=1e-4)
    flipped = rasterise(screen, triangles[:, ::-1], 10, cull=True)
    assert len(flipped.pixel) == 0


@render_extra
def test_training_shards_are_resumable(studio: Any, tmp_path: Path) -> None:
    """A shard that exists is left alone; what is there can be loaded by a glob."""
    from privbench_plugins.synthfaces.train import TrainPlan, render_training_set

    plan = TrainPlan(identities=1, images=2, out=tmp_path)
    render_training_set(plan, studio)
    images = np.load(tmp_path / "train-0000-images.npy")
    assert images.shape == (2, 128, 128, 3)
    assert np.load(tmp_path / "train-0000-depth.npy").shape == (2, 64, 64)
    lines = (tmp_path / "train-0000.jsonl").read_text().splitlines()
    assert [json.loads(line)["subject"] for line in lines] == [0, 0]
    assert len(list(tmp_path.iterdir())) == 3


@render_extra
def test_portraits_are_of_other_people_in_whole_files() -> None:
    """5,500 people without a gap, in a namespace of their own."""
    from privbench_plugins.synthfaces import shipped

    files = shipped._files(shipped.PORTRAITS)
    assert sum(file.last - file.first for file in files) == 5500
    covered = [n for f in files for n in range(f.subject, f.subject + f.last - f.first)]
    assert covered == list(range(5500))
    assert shipped.PORTRAITS.images == 1
    assert shipped.PORTRAITS.namespace not in (shipped.SHIPPED.namespace, "train")


def test_files_are_rendered_only_if_our_manifest_lists_them_as_they_are(tmp_path: Path) -> None:
    """Pictures of people may look like the shipped data set: a manifest must vouch for them."""
    assert written_by_us(FOLDER)
    faces = tmp_path / "faces.parquet"
    faces.write_bytes(b"faces")
    assert not written_by_us(tmp_path)
    listed = {"faces.parquet": {"sha256": hashlib.sha256(b"faces").hexdigest()}}
    manifest = {"name": "synthfaces", "renderer_version": 1, "files": listed}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert written_by_us(tmp_path)
    faces.write_bytes(b"others")
    assert not written_by_us(tmp_path)
