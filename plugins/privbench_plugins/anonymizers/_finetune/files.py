"""What a configuration names: found, checked and hashed. Torch-free."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from privbench.errors import DataError
from privbench.keys import digest_bytes
from privbench_plugins.anonymizers._ldm.estimators import (
    CAPTIONER,
    EstimatorFolder,
    find_captioner,
)
from privbench_plugins.anonymizers._ldm.folders import PipelineFolder, find_pipeline
from privbench_plugins.anonymizers._ldm.parts import Embedded, digests
from privbench_plugins.models import file_digest

if TYPE_CHECKING:
    from privbench_plugins.anonymizers.finetune import LdmFinetuneConfig

SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".webp"})
"""How names of released images end."""


def pipeline_of(config: LdmFinetuneConfig) -> PipelineFolder:
    """The diffusion model: one that is fine-tuned already, or the pretrained one.

    Raises:
        ModelError: see `find_pipeline`.
    """
    name = config.model or config.pretrained
    return find_pipeline(name, config.revision, config.variant, config.resolution)


def captioner_of(config: LdmFinetuneConfig) -> EstimatorFolder | Embedded:
    """What captions the training images.

    Raises:
        ModelError: see `find_captioner`.
    """
    if config.captioner == CAPTIONER:
        return Embedded(CAPTIONER)
    return find_captioner(config.captioner, config.captioner_revision)


def released_files(folder: Path) -> list[Path]:
    """The images below a folder, by name; hidden ones are left out.

    Raises:
        DataError: there is no such folder, or fewer than two images in it.
    """
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder} of released images.")
    found = [p for p in sorted(folder.rglob("*")) if p.suffix.lower() in SUFFIXES and p.is_file()]
    shown = [p for p in found if not any(n.startswith(".") for n in p.relative_to(folder).parts)]
    if len(shown) < 2:
        raise DataError(
            f"{folder} holds {len(shown)} images ({', '.join(sorted(SUFFIXES))}). Expected two or "
            "more: what the anonymizer under audit has released."
        )
    return shown


def digests_of(config: LdmFinetuneConfig) -> dict[str, str]:
    """SHA-256 of every file that is used, by part and relative name; released images as one.

    Raises:
        ModelError: a model is not usable.
        DataError: see `released_files`.
    """
    if config.release:
        folder = Path(config.release).expanduser()
        names = ((p.relative_to(folder).as_posix(), p) for p in released_files(folder))
        parts = (part.encode() for name, path in names for part in (name, file_digest(path)))
        return {"release": digest_bytes(parts)}
    found = digests(model=pipeline_of(config))
    return found | (digests(captioner=captioner_of(config)) if _captions(config) else {})


def _captions(config: LdmFinetuneConfig) -> bool:
    return config.trains and config.captioned
