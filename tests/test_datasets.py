"""Real photographs: what is read, what is left out and said, and where faces go."""

from __future__ import annotations

import csv
import io
import os
import shutil
import struct
import warnings
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import privbench_plugins
from privbench.errors import ConfigError, DataError, UnknownPluginError
from privbench.plan import Choice, open_dataset, resolve
from privbench.registry import load_registry
from privbench_plugins.datasets import _hub
from privbench_plugins.datasets._align import similarity, square, template, warp
from privbench_plugins.datasets._decode import decode, each
from privbench_plugins.datasets._photos import LISTED, Photos

SHIPPED = Path(privbench_plugins.__file__).parent / "assets" / "synthfaces"


def data(kind: str, **settings: Any) -> Photos:
    """A data set from its registered plugin."""
    known = load_registry()
    made = open_dataset(known, resolve(known, "dataset", Choice(id=kind, settings=settings)))
    assert isinstance(made, Photos)
    return made


def encoded(pixels: np.ndarray | Image.Image, form: str = "PNG", **options: Any) -> bytes:
    """An image as a file's bytes."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def noise(seed: int, height: int = 48, width: int = 40) -> np.ndarray:
    """(H, W, 3) uint8, different for each seed, smooth enough for JPEG."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def write_people(root: Path, people: int = 3, photos: int = 2) -> Path:
    """One folder per person, files of three formats."""
    for person in range(people):
        folder = root / f"person-{person}"
        folder.mkdir(parents=True)
        for shot in range(photos):
            form = ("PNG", "JPEG", "WEBP")[shot % 3]
            path = folder / f"{shot}.{form.lower()}"
            path.write_bytes(encoded(noise(10 * person + shot), form))
    return root


def huge_png(side: int) -> bytes:
    """A file of a few bytes whose header promises side x side pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body)


# --- decoding ----------------------------------------------------------------------------------


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    """A 16-bit ramp becomes the 8-bit ramp."""
    ramp = np.linspace(0, 65535, 256).round().astype(np.uint16)
    found = decode("ramp", encoded(np.tile(ramp, (32, 1))))
    assert np.array_equal(found[0], np.repeat(np.arange(256)[:, None], 3, 1))


def test_exif_turns_the_photograph_upright() -> None:
    """All eight orientations of one upright picture decode to it."""
    upright = noise(1)
    turns: Mapping[int, Callable[[np.ndarray], np.ndarray]] = {
        1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud,
        5: lambda a: a.transpose(1, 0, 2), 6: np.rot90,
        7: lambda a: np.rot90(a, 2).transpose(1, 0, 2), 8: lambda a: np.rot90(a, 3),
    }  # fmt: skip
    for orientation, turn in turns.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored = encoded(np.ascontiguousarray(turn(upright)), exif=exif)
        assert np.array_equal(decode("photo", stored), upright), orientation


def test_modes_become_rgb() -> None:
    """CMYK, palettes, greys and what is transparent: red stays red, and nothing hidden shows."""
    red = Image.new("RGB", (32, 32), (255, 0, 0))
    hidden = Image.new("RGBA", (32, 32), (255, 0, 0, 0))
    palette = red.convert("P")
    clear = palette.copy()
    clear.info["transparency"] = palette.getpixel((0, 0))
    frames = [red, Image.new("RGB", (32, 32), (0, 0, 255))]
    cases = {
        "cmyk": (encoded(red.convert("CMYK"), "JPEG"), (255, 0, 0)),
        "palette": (encoded(palette), (255, 0, 0)),
        "animation": (
            encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]), (255, 0, 0)),
        "grey": (encoded(Image.new("L", (32, 32), 90)), (90, 90, 90)),
        "bilevel": (encoded(Image.new("1", (32, 32), 1)), (255, 255, 255)),
        "transparent": (encoded(hidden), (255, 255, 255)),
        "grey+alpha": (encoded(Image.new("LA", (32, 32), (90, 0))), (255, 255, 255)),
        "palette+alpha": (
            encoded(clear, transparency=clear.info["transparency"]), (255, 255, 255)),
    }  # fmt: skip
    for name, (file, colour) in cases.items():
        found = decode(name, file)
        assert found.shape == (32, 32, 3), name
        assert np.abs(found.reshape(-1, 3).astype(int) - colour).max() <= 2, name


def test_large_photographs_are_reduced() -> None:
    """At most 1,024 pixels a side, with the same content."""
    found = decode("large", encoded(noise(0, 3000, 2000), "JPEG"))
    assert max(found.shape) <= 1024
    wanted = noise(0, *found.shape[:2]).astype(int)
    assert np.abs(found - wanted).mean() < 4


BAD = {
    "truncated.jpg": (encoded(noise(90), "JPEG")[:-300], "is damaged"),
    "truncated.png": (encoded(noise(91))[:-300], "is damaged"),
    "dot.png": (encoded(np.zeros((1, 1, 3), np.uint8)), "is 1x1; a face needs 16"),
    "bomb.png": (huge_png(20_000), "more than 64,000,000 pixels"),
    "large-bomb.png": (huge_png(10_000), "more than 64,000,000 pixels"),
    "deep.tiff": (encoded(Image.new("F", (32, 32)), "TIFF"), "holds floats"),
    "photo.heic": (b"\0\0\0\x18ftypheic" + bytes(200), "is no image of a format"),
    "empty.jpg": (b"", "is empty"),
    "notes.txt": (b"who is who", "is no image of a format"),
    "drawing.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is no image"),
    ".DS_Store": (b"\0\0\0\1Bud1", "is hidden"),
}  # fmt: skip


def test_bad_files_are_left_out_and_listed(tmp_path: Path) -> None:
    """Every kind of bad file is named with its reason; the good ones are as they would be."""
    clean = data("folder", path=str(write_people(tmp_path / "clean")))
    root = write_people(tmp_path / "root")
    for name, (content, _) in BAD.items():
        (root / "person-0" / name).write_bytes(content)
    outside = tmp_path / "outside.png"
    outside.write_bytes(encoded(noise(50)))
    (root / "person-0" / "link.png").symlink_to(outside)
    (root / "person-0" / "circle.png").symlink_to("circle.png")
    (root / "linked").symlink_to(root / "person-1")
    (root / "stray.png").write_bytes(encoded(noise(51)))
    shutil.copy(root / "person-0" / "0.png", root / "person-1" / "same.png")
    deep = root / "person-0" / "a" / "b"
    deep.mkdir(parents=True)
    (deep / "deep.png").write_bytes(encoded(noise(52)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = data("folder", path=str(root))
    reasons = {f"person-0/{name}": reason for name, (_, reason) in BAD.items()} | {
        "person-0/link.png": "leads out of the data set's folder",
        "person-0/circle.png": "is no path that can be followed",
        "linked": "is a link to a folder",
        "stray.png": "lies in no person's folder",
        "person-0/a/b/deep.png": "lies deeper than",
        "person-1/same.png": "has the same bytes as 'person-0/0.png'",
    }
    told = found.facts["left_out"]
    assert told["files"] == len(reasons) <= LISTED
    for name, reason in reasons.items():
        lines = [line for line in told["first"] if line.startswith(repr(name))]
        assert len(lines) == 1, name
        assert reason in lines[0]
        assert str(tmp_path) not in lines[0]
    assert found.digest == clean.digest
    with pytest.raises(DataError, match=rf"bad_images=leave-out \({len(reasons)} of"):
        data("folder", path=str(root), bad_images="refuse")


def test_long_lists_are_cut_and_counted(tmp_path: Path) -> None:
    """The first twenty are listed, all are counted."""
    root = write_people(tmp_path)
    for i in range(LISTED + 5):
        (root / "person-0" / f"{i}.txt").write_bytes(b"")
    told = data("folder", path=str(root)).facts["left_out"]
    assert (told["files"], len(told["first"])) == (LISTED + 5, LISTED)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "JPEG2000"])
def test_damage_is_refused_and_never_a_crash(form: str) -> None:
    """Files with bytes changed or missing decode to an image, or raise `DataError`."""
    whole = np.frombuffer(encoded(noise(0), form), np.uint8)

    def outcome(seed: int) -> str:
        rng, file = np.random.default_rng(seed), whole.copy()
        file[rng.integers(0, min(len(file), (100, len(file))[seed % 2]), 4)] = rng.integers(0, 256)
        try:
            decode("x", file[: len(file) if seed % 3 else rng.integers(0, len(file))].tobytes())
        except DataError:
            return "refused"
        return "read"

    assert "refused" in each(outcome, range(100))


def test_damaged_exif_costs_only_the_orientation(tmp_path: Path) -> None:
    """The photograph itself is whole: it is read, and Pillow's warning is no error."""
    root = write_people(tmp_path)
    broken = b"Exif\0\0MM\0*\0\0\0\x08\0\x05" + b"\x01\x12\0\x03\0\0\0\x01\xff\xff\xff\xff"
    file = encoded(noise(80), "JPEG", exif=broken)
    (root / "person-0" / "exif.jpg").write_bytes(file)
    found = data("folder", path=str(root))
    assert "person-0/exif.jpg" in found.keys
    assert found.facts["left_out"]["files"] == 0


# --- folders and tables ------------------------------------------------------------------------


def test_folder_is_read_as_it_lies(tmp_path: Path) -> None:
    """Subjects in the order of names, one nested folder, a person with one photograph."""
    root = write_people(tmp_path)
    (root / "zoe" / "trip").mkdir(parents=True)
    (root / "zoe" / "trip" / "1.png").write_bytes(encoded(noise(70)))
    found = data("folder", path=str(root), side=32)
    assert found.keys == (
        "person-0/0.png", "person-0/1.jpeg", "person-1/0.png", "person-1/1.jpeg",
        "person-2/0.png", "person-2/1.jpeg", "zoe/trip/1.png",
    )  # fmt: skip
    assert found.subject.tolist() == [0, 0, 1, 1, 2, 2, 3]
    assert found.subject.dtype == np.int64
    assert set(found.population) == {"folder"}
    pixels = found.pixels(np.array([6, 0]))
    assert pixels.shape == (2, 3, 32, 32)
    wanted = cv2.resize(noise(70)[4:44], (32, 32), interpolation=cv2.INTER_AREA)
    assert np.abs(pixels[0].permute(1, 2, 0).numpy().astype(int) - wanted).mean() < 2
    assert torch.equal(found.pixels(np.array([0])), pixels[1:])
    assert found.pixels(np.array([], dtype=np.int64)).shape == (0, 3, 32, 32)


def test_digest_is_of_content_not_of_place(tmp_path: Path) -> None:
    """The same below another parent and at another time; another for another byte, person or
    framing."""
    root = write_people(tmp_path / "a")
    first = data("folder", path=str(root)).digest
    moved = tmp_path / "somewhere" / "else"
    shutil.copytree(root, moved)
    for path in moved.rglob("*.png"):
        os.utime(path, (1, 1))
    assert data("folder", path=str(moved)).digest == first
    assert data("folder", path=str(moved), side=64).digest != first
    assert data("folder", path=str(moved), detector="centerface").digest != first
    (moved / "person-0").rename(moved / "someone")
    assert data("folder", path=str(moved)).digest != first
    (root / "person-0" / "0.png").write_bytes(encoded(noise(99)))
    assert data("folder", path=str(root)).digest != first


def test_a_file_that_changes_under_way_is_noticed(tmp_path: Path) -> None:
    """What is in the record is what was measured."""
    found = data("folder", path=str(write_people(tmp_path)))
    (tmp_path / "person-0" / "0.png").write_bytes(encoded(noise(98)))
    with pytest.raises(DataError, match=r"'person-0/0\.png' has changed"):
        found.pixels(np.array([0]))
    (tmp_path / "person-0" / "0.png").unlink()
    with pytest.raises(DataError, match=r"'person-0/0\.png' cannot be read"):
        found.pixels(np.array([0]))


def test_names_that_are_no_text_are_spelt_out(tmp_path: Path) -> None:
    """A file name that is no UTF-8 can enter a digest."""
    root = write_people(tmp_path)
    path = os.fsencode(root / "person-0") + b"/caf\xe9.png"
    with open(path, "wb") as file:  # noqa: PTH123 - a Path cannot hold these bytes portably
        file.write(encoded(noise(60)))
    found = data("folder", path=str(root))
    assert r"person-0/caf\xe9.png" in found.keys
    assert found.pixels(np.arange(len(found.keys))).shape[0] == 7


def test_what_is_not_there_says_so(tmp_path: Path) -> None:
    """No folder, no file, nothing in it, another format, a missing column."""
    with pytest.raises(DataError, match="say which"):
        data("folder")
    with pytest.raises(DataError, match="no folder or file"):
        data("folder", path=str(tmp_path / "absent"))
    with pytest.raises(DataError, match="none of 0 files can be used"):
        data("folder", path=str(tmp_path))
    (tmp_path / "list.csv").write_text("who,path\nann,a.png\n")
    with pytest.raises(DataError, match="no column 'subject'"):
        data("folder", path=str(tmp_path / "list.csv"))
    with pytest.raises(DataError, match=r"'a\.png' is no file"):
        data("folder", path=str(tmp_path / "list.csv"), subject_column="who")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"cannot read broken\.parquet as Parquet"):
        data("folder", path=str(tmp_path / "broken.parquet"))
    (tmp_path / "list.xlsx").write_bytes(b"")
    with pytest.raises(DataError, match=r"a \.csv or a \.parquet file"):
        data("folder", path=str(tmp_path / "list.xlsx"))
    with pytest.raises(UnknownPluginError, match="no detector 'mtcnn'"):
        data("folder", path=str(tmp_path), detector="mtcnn")


def test_csv_has_subjects_populations_and_attributes(tmp_path: Path) -> None:
    """Leading zeros stay; rows without a person, and paths that lead away, are left out."""
    root = write_people(tmp_path / "images")
    with (tmp_path / "list.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["subject", "path", "population", "glasses"])
        rows.writerow(["007", "images/person-0/0.png", "left", "yes"])
        rows.writerow(["07", "images/person-1/0.png", "right", ""])
        rows.writerow(["", "images/person-1/1.jpeg", "right", "no"])
        rows.writerow(["07", "../outside.png", "right", "no"])
        rows.writerow(["07", "/etc/hostname", "right", "no"])
    (tmp_path.parent / "outside.png").write_bytes(encoded(noise(3)))
    found = data("folder", path=str(tmp_path / "list.csv"), attributes='["glasses"]')
    assert found.keys == ("images/person-0/0.png", "images/person-1/0.png")
    assert found.subject.tolist() == [0, 1]
    assert found.population.tolist() == ["left", "right"]
    assert found.attributes["glasses"].tolist() == ["yes", ""]
    told = " ".join(found.facts["left_out"]["first"])
    assert told.count("leads out of") == 2
    assert told.count("names no person") == 1
    by_folder = data("folder", path=str(root)).pixels(np.array([0, 2]))
    assert torch.equal(found.pixels(np.array([0, 1])), by_folder)


def write_table(path: Path, record: bool = True) -> Path:
    """Five photographs of three people as `datasets` writes them, and one empty row."""
    files = [encoded(noise(i)) for i in range(5)]
    cells = [{"bytes": f, "path": None} if record else f for f in files]
    pq.write_table(
        pa.table({"subject": [3, 3, 1, 1, 2, 2], "image": [*cells, None], "smiles": [True] * 6}),
        path,
    )
    return path


@pytest.mark.parametrize("record", [True, False])
def test_parquet_holds_its_images(tmp_path: Path, record: bool) -> None:
    """Encoded images, plain or as `datasets` writes them; an empty cell is left out."""
    path = write_table(tmp_path / "faces.parquet", record)
    found = data("folder", path=str(path), attributes=("smiles",), side=40)
    assert found.subject.tolist() == [2, 2, 0, 0, 1]
    assert found.attributes["smiles"].tolist() == ["smiles"] * 5
    assert found.facts["left_out"]["first"] == [
        "'00000005' cannot be read (its row holds no image)."
    ]
    square40 = noise(4)[4:44].transpose(2, 0, 1)
    assert np.array_equal(found.pixels(np.array([4]))[0].numpy(), square40)


# --- Hugging Face datasets ---------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keeps what `datasets` writes out of the home folder."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    return tmp_path


@pytest.mark.parametrize("layout", ["file", "folder", "saved", "saved-dict", "stream"])
def test_hf_reads_every_local_layout_alike(cache: Path, layout: str) -> None:
    """A Parquet file, a folder of them, `save_to_disk` and a stream give the same data set."""
    table = write_table(cache / "train.parquet")
    wanted = data("folder", path=str(table))
    settings: dict[str, Any] = {"path": str(table), "attributes": ("smiles",)}
    if layout == "folder":
        (cache / "repo").mkdir()
        settings["path"] = str(cache / "repo")
        shutil.copy(table, cache / "repo" / "train-00000-of-00001.parquet")
    elif layout.startswith("saved"):
        made = datasets.Dataset.from_parquet(str(table), cache_dir=str(cache / "made"))
        made = made.cast_column("image", datasets.Image())
        saved = datasets.DatasetDict({"train": made}) if layout == "saved-dict" else made
        saved.save_to_disk(str(cache / "saved"))
        settings["path"] = str(cache / "saved")
    elif layout == "stream":
        settings |= {"streaming": True, "limit": 6}
    found = data("hf", **settings)
    assert found.subject.tolist() == wanted.subject.tolist()
    assert found.hashes == wanted.hashes
    assert found.attributes["smiles"].tolist() == ["smiles"] * 5
    assert found.facts["left_out"]["files"] == 1
    assert str(cache) not in str(found.facts)
    rows = np.arange(5)
    assert torch.equal(found.pixels(rows), wanted.pixels(rows))


def test_hf_classes_have_names_and_limits_hold(cache: Path) -> None:
    """An image folder's labels are its folders; `limit` takes the first rows."""
    root = write_people(cache / "people")
    found = data("hf", path=str(root), subject_column="label")
    assert found.subject.tolist() == [0, 0, 1, 1, 2, 2]
    assert sorted(found.hashes) == sorted(data("folder", path=str(root)).hashes)
    limited = data("hf", path=str(root), subject_column="label", limit=3)
    assert limited.keys == found.keys[:3]
    with pytest.raises(DataError, match=r"no column 'person'"):
        data("hf", path=str(root), subject_column="person")
    with pytest.raises(DataError, match="could not be loaded"):
        data("hf", path=str(root), subject_column="label", split="exam")
    with pytest.raises(ConfigError, match="needs limit=ROWS"):
        data("hf", path=str(root), streaming=True)


def test_hub_without_connection_says_what_to_do(cache: Path) -> None:
    """Offline, a hub id is refused with the way out."""
    with pytest.raises(DataError, match="without a connection, pass a local folder"):
        data("hf", path="nobody/no-faces")
    with pytest.raises(DataError, match="could not be loaded"):
        data("hf", path="nobody/no-faces", revision="0" * 40)


def test_hub_revision_is_pinned_to_its_commit(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A branch is looked up once; its commit is what is loaded and recorded."""
    table, commit = write_table(cache / "train.parquet"), "ab" * 20
    asked = {}

    class Hub:
        def dataset_info(self, name: str, revision: str | None) -> Any:
            asked["looked up"] = (name, revision)
            return type("Info", (), {"sha": commit})

    def load(path: str, name: str | None, **options: Any) -> Any:
        asked["loaded"] = (path, name, options["revision"])
        assert "trust_remote_code" not in options
        return datasets.Dataset.from_parquet(str(table), cache_dir=str(cache / "made"))

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    monkeypatch.setattr(_hub.datasets, "load_dataset", load)
    found = data("hf", path="some/faces", revision="main", name="small")
    assert asked == {
        "looked up": ("some/faces", "main"),
        "loaded": ("some/faces", "small", commit),
    }
    assert found.facts["source"]["revision"] == commit
    assert found.facts["source"]["id"] == "some/faces"


# --- orl ---------------------------------------------------------------------------------------


def test_orl_has_forty_people_in_ten_grey_photographs() -> None:
    """400 of 40, channels equal, and the middle of a square is the photograph itself."""
    found = data("orl")
    assert len(found.keys) == 400
    assert np.bincount(found.subject).tolist() == [10] * 40
    assert not any("target" in key for key in found.keys)
    pixels = data("orl", side=112).pixels(np.arange(0, 400, 20))
    assert pixels.shape == (20, 3, 112, 112)
    assert torch.equal(pixels[:, 0], pixels[:, 1])
    assert torch.equal(pixels[:, 0], pixels[:, 2])
    original = found.photos[20].read().split(b"\n", 3)[3]
    image = np.frombuffer(original, np.uint8).reshape(112, 92)
    assert np.array_equal(pixels[1, 0, :, 10:102].numpy(), image)
    assert np.array_equal(pixels[1, 0, :, 0].numpy(), image[:, 0])
    assert "AT&T Laboratories Cambridge" in found.licence


# --- alignment ---------------------------------------------------------------------------------


def umeyama(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(2, 3) similarity by singular values: Umeyama (1991), equations 40 to 43."""
    m, n = source.mean(0), target.mean(0)
    u, d, v = np.linalg.svd((target - n).T @ (source - m) / len(source))
    s = np.array([1, np.sign(np.linalg.det(u) * np.linalg.det(v))])
    rotation = u @ np.diag(s) @ v
    scale = (d * s).sum() / ((source - m) ** 2).sum(1).mean()
    return np.column_stack([scale * rotation, n - scale * rotation @ m])


def test_similarity_is_umeyamas() -> None:
    """The complex ratio equals the singular value solution, also for mirrored points."""
    rng = np.random.default_rng(0)
    target = template(128)
    points = rng.normal(60, 20, (20, 5, 2)).astype(np.float32)
    points[0] = target[:, ::-1]
    for p, (a, b) in zip(points, similarity(points, target), strict=True):
        found = np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])
        np.testing.assert_allclose(found, umeyama(p.astype(float), target), atol=1e-6)
    assert np.isnan(similarity(np.ones((1, 5, 2), np.float32), target)[0, 0])
    assert np.isnan(similarity(np.full((1, 5, 2), np.nan, np.float32), target)[0, 0])


@pytest.mark.parametrize("scale", [0.07, 0.3, 1.0, 2.0])
def test_warp_is_opencvs_and_does_not_alias(scale: float) -> None:
    """On a smooth image it is `cv2.warpAffine` within two grey levels; of fine stripes it makes
    their mean, where OpenCV's bilinear sampling makes patterns."""
    y, x = np.mgrid[0:400, 0:500].astype(np.float32)
    waves = 127 + 100 * np.sin(x / 40)[..., None] * np.cos(y / 55)[..., None] * [1, 0.5, 0.2]
    smooth = torch.from_numpy(waves.round().astype(np.uint8)).permute(2, 0, 1)[None]
    a = scale * np.exp(0.2j)
    move = np.array([[a, (20 + 15j) - a * (180 + 150j)]])
    matrix = np.array([[a.real, -a.imag, move[0, 1].real], [a.imag, a.real, move[0, 1].imag]])
    side = 40
    found = warp(smooth, move, side)[0].permute(1, 2, 0).numpy()
    wanted = cv2.warpAffine(
        smooth[0].permute(1, 2, 0).numpy(), matrix, (side, side), flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    inside = slice(4, -4)
    gap = np.abs(found.astype(int) - wanted)[inside, inside]
    assert gap.mean() < (8 if scale < 0.1 else 2)
    if scale < 0.5:
        stripes = torch.zeros(1, 3, 400, 500, dtype=torch.uint8)
        stripes[..., ::2] = 255
        middle = warp(stripes, move, side)[..., 16:24, 16:24].float()
        assert (middle - 127.5).abs().max() < 30


def test_a_warp_does_not_see_its_batch() -> None:
    """Images of different scales in one call come out as they do alone."""
    images = torch.from_numpy(np.stack([noise(i, 200, 200) for i in range(4)])).permute(0, 3, 1, 2)
    moves = np.array([[0.2, 1 + 1j], [0.9j, 100], [0.05, 3], [1.5, -20j]])
    together = warp(images, moves, 32)
    for i in range(4):
        assert torch.equal(warp(images[i : i + 1], moves[i : i + 1], 32), together[i : i + 1])


def test_squares_crop_and_pad_about_the_middle() -> None:
    """The crop is the middle; the pad repeats the edge."""
    image = torch.from_numpy(noise(2, 40, 60).copy()).permute(2, 0, 1)[None]
    assert torch.equal(square(image, 40), image[..., 10:50])
    padded = square(image, 60, "pad")
    assert torch.equal(padded[..., 10:50, :], image)
    assert torch.equal(padded[..., 0, :], image[..., 0, :])


@pytest.fixture(scope="module")
def scattered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shipped faces of 12 people turned, scaled and moved about in frames of 240 x 320, and one
    frame of noise for each of two people."""
    root = tmp_path_factory.mktemp("scattered")
    table = pq.read_table(sorted(SHIPPED.glob("*.parquet"))[0], columns=["image"])
    rng = np.random.default_rng(5)
    for i in range(24):
        file = table["image"][i * 5].as_py()["bytes"]
        face = np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))
        turn, size = rng.uniform(-12, 12), rng.uniform(1.1, 1.6)
        matrix = cv2.getRotationMatrix2D((64, 64), turn, size)
        matrix[:, 2] += rng.uniform((60, 40), (130, 60))
        frame = cv2.warpAffine(face, matrix, (320, 240), borderValue=(128, 128, 128))
        (root / f"p{i // 2:02d}").mkdir(exist_ok=True)
        (root / f"p{i // 2:02d}" / f"{i % 2}.png").write_bytes(encoded(frame))
    for i in range(2):
        pixels = rng.integers(0, 256, (240, 320, 3), dtype=np.uint8)
        (root / f"p{i:02d}" / "noise.png").write_bytes(encoded(pixels))
    return root


@pytest.mark.parametrize("detector", ["dlib", "centerface"])
def test_aligned_faces_have_their_eyes_on_the_template(scattered: Path, detector: str) -> None:
    """Wherever a face was and however it was turned, its eyes land within 2 px (median), found
    by dlib on the aligned image; noise shows no face, is kept as a centred square and counted."""
    found = data("folder", path=str(scattered), detector=detector)
    rows = np.arange(len(found.keys))
    pixels = found.pixels(rows)
    spec = load_registry().get("detector", "dlib").spec
    points = spec.build(spec.config()).detect(pixels).points[:, :2]
    eyes = np.linalg.norm(points - template(128)[:2], axis=2)
    assert np.isfinite(eyes).all(1).sum() >= 20
    assert (np.nanmedian(eyes, axis=0) < 2).all()
    noisy = np.array([i for i, key in enumerate(found.keys) if "noise" in key])
    undetected = found.undetected  # type: ignore[attr-defined]
    assert undetected(noisy) == 2
    assert 2 <= undetected(rows) <= 4
    plain = data("folder", path=str(scattered))
    assert torch.equal(found.pixels(noisy), plain.pixels(noisy))
    assert not hasattr(plain, "undetected")
    told = found.facts["preprocessing"]["detector"]
    assert told["id"] == detector
    assert "model" not in told["config"] or not Path(told["config"]["model"] or "-").exists()
    assert all(len(sha) == 64 for sha in told["weights"].values())


def test_detection_happens_once_and_not_by_block(scattered: Path) -> None:
    """An image is looked at once, whatever parts it is in, and does not see its part."""
    found = data("folder", path=str(scattered), detector="centerface")
    looked = []
    detect = found.detector.detect  # type: ignore[attr-defined]

    class Counting:
        def detect(self, pixels: torch.Tensor) -> Any:
            looked.append(len(pixels))
            return detect(pixels)

    object.__setattr__(found, "detector", Counting())
    rows = np.arange(len(found.keys))
    undetected = found.undetected(rows)  # type: ignore[attr-defined]
    together = found.pixels(rows)
    found.pixels(rows[::-1].copy())
    assert sum(looked) == len(rows)
    alone = data("folder", path=str(scattered), detector="centerface")
    assert torch.equal(alone.pixels(rows[7:8]), together[7:8])
    assert alone.undetected(rows) == undetected  # type: ignore[attr-defined]


def test_a_face_that_must_be_found(scattered: Path) -> None:
    """`on_undetected=refuse` stops at the first image without a face and names it."""
    found = data("folder", path=str(scattered), detector="centerface", on_undetected="refuse")
    with pytest.raises(DataError, match=r"no face is found in 'p0\d/noise\.png'"):
        found.pixels(np.arange(len(found.keys)))


def test_a_row_without_a_person_is_nobody(tmp_path: Path) -> None:
    """An empty cell and NaN are no label: such rows are left out, never one person."""
    rng = np.random.default_rng(0)
    images = [encoded(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)) for _ in range(6)]
    table = pa.table({"subject": [1.0, 1.0, float("nan"), float("nan"), None, 2.0],
                      "image": images})  # fmt: skip
    pq.write_table(table, tmp_path / "faces.parquet")
    found = data("folder", path=str(tmp_path / "faces.parquet"))
    assert sorted(found.subject.tolist()) == [0, 0, 1]
    assert found.facts["left_out"]["files"] == 3


def test_a_first_row_without_a_path_leaves_the_others(tmp_path: Path) -> None:
    """Whether a column holds paths is not said by its first row alone."""
    rng = np.random.default_rng(0)
    for shot in range(2):
        pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        (tmp_path / f"{shot}.png").write_bytes(encoded(pixels))
    table = pa.table({"subject": ["a", "a", "a"], "path": [None, "0.png", "1.png"]})
    pq.write_table(table, tmp_path / "faces.parquet")
    found = data("folder", path=str(tmp_path / "faces.parquet"))
    assert len(found.keys) == 2
    assert found.facts["left_out"]["files"] == 1


def test_counting_undetected_faces_refuses_nothing(scattered: Path) -> None:
    """`on_undetected=refuse` speaks where an image is used, not where a record counts."""
    found = data("folder", path=str(scattered), detector="centerface", on_undetected="refuse")
    noisy = np.array([i for i, key in enumerate(found.keys) if "noise" in key])
    assert found.undetected(noisy) == 2  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="no face is found in"):
        found.pixels(noisy)
