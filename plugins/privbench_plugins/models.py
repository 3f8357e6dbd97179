"""Where a diffusers model lives on disk, and the content hash of the files that are used.

Torch-free and fast: it runs when a study is planned. A name is one of the models that the
package ships (`tiny-faces`), a local diffusers folder, a local single-file checkpoint
(`.safetensors`), or a hub id (`owner/name`). Only safetensors weights are ever read: a pickle
(`.bin`, `.ckpt`) can run code.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from privbench.errors import ModelError, did_you_mean

ASSETS: Final = Path(__file__).parent / "assets"
"""Folder of the models that ship in the package."""

UNUSED: Final = frozenset(
    {"safety_checker", "feature_extractor", "image_encoder", "watermark", "text_encoder_3"}
)
"""Components of a pipeline folder that no anonymizer loads."""

_SMALL: Final = (".json", ".txt", ".model")
_PICKLES: Final = (".bin", ".ckpt", ".pt", ".pth")
_HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_WEIGHTS: Final = re.compile(
    r"[^.]+?(?:\.(?P<variant>[A-Za-z][\w]*?))?(?:-\d+-of-\d+)?(?:\.(?P<old>[A-Za-z]\w*))?\.safetensors"
)
_INDEX: Final = re.compile(r".+\.safetensors\.index(?:\.(?P<variant>\w+))?\.json")


def embedded() -> tuple[str, ...]:
    """Names of the models that the package ships, sorted."""
    marks = ("model_index.json", "config.json")
    found = (p for p in ASSETS.glob("*") if any((p / mark).is_file() for mark in marks))
    return tuple(sorted(p.name for p in found))


def resolve(
    name: str, revision: str = "", variant: str = "", stem: str = "diffusion_pytorch_model"
) -> Path:
    """The folder or the `.safetensors` file that a model name stands for.

    A local path never touches the network. A hub id is fetched with `huggingface_hub`
    (its own cache; safetensors, configurations and vocabularies only).

    Args:
        name: an embedded name, a local folder, a local `.safetensors` file, or a hub id. An
            embedded name wins over a folder of that name: write `./tiny-faces` for the folder.
        revision: branch, tag or commit of a hub id; "" is its default branch.
        variant: weight variant to fetch from the hub, such as `fp16`.
        stem: how the weight files of a repository that is one model begin; `model` is that of
            transformers.

    Raises:
        ModelError: there is no such model, or the hub cannot be reached.
    """
    if (ASSETS / name).is_dir() and name in embedded():
        return ASSETS / name
    path = Path(name).expanduser()
    if path.is_dir():
        return path.resolve()
    if path.is_file():
        if path.suffix != ".safetensors":
            raise ModelError(
                f"{path} is not a .safetensors file. Only safetensors checkpoints are read, "
                "because other formats can run code; convert it, or pass a diffusers folder."
            )
        return path.resolve()
    if _HUB_ID.fullmatch(name) and path.suffix != ".safetensors":
        return _download(name, revision, variant, stem)
    hint = f" {did_you_mean(name, embedded())}" if "/" not in name else ""
    raise ModelError(
        f"There is no model {name!r}: it is no embedded model, no local folder or .safetensors "
        f"file, and no hub id (owner/name).{hint}"
    )


def digest(path: Path, variant: str = "") -> dict[str, str]:
    """SHA-256 of every file that loading `path` reads.

    Args:
        path: what `resolve` returned.
        variant: which weights are used where a folder holds several.

    Returns:
        POSIX path relative to the folder (or the file's name) -> hexadecimal SHA-256, sorted.

    Raises:
        ModelError: the folder is no diffusers folder, or a component lacks usable weights.
    """
    if path.is_file():
        return {path.name: file_digest(path)}
    files = sorted(used_files(path, variant))
    return {file.relative_to(path).as_posix(): file_digest(file) for file in files}


def small_digest(folder: Path) -> dict[str, str]:
    """SHA-256 of a pipeline folder's configurations and vocabularies, without its weights."""
    files = [folder / "model_index.json"]
    files += [file for name in components(folder) for file in _small_files(folder / name)]
    return {file.relative_to(folder).as_posix(): file_digest(file) for file in sorted(files)}


def used_files(folder: Path, variant: str = "") -> Iterator[Path]:
    """Configuration, vocabulary and weight files of a pipeline folder or a single model's."""
    if (folder / "model_index.json").is_file():
        yield folder / "model_index.json"
        for name in components(folder):
            part = folder / name
            if part.is_dir():
                yield from _small_files(part)
                yield from weight_files(part, variant)
    elif (folder / "config.json").is_file():
        yield from _small_files(folder)
        yield from weight_files(folder, variant)
    else:
        raise ModelError(
            f"{folder} is not a diffusers folder: it has neither model_index.json (a pipeline) "
            "nor config.json (one model)."
        )


def components(folder: Path) -> dict[str, str]:
    """Components of a pipeline folder that are used: name -> class name.

    Raises:
        ModelError: model_index.json is unreadable.
    """
    index = read_json(folder / "model_index.json")
    return {
        name: value[1]
        for name, value in index.items()
        if isinstance(value, list) and len(value) == 2 and value[1] and name not in UNUSED
    }


def weight_files(folder: Path, variant: str = "") -> tuple[Path, ...]:
    """The safetensors files of one model that are used, shards and their index included.

    Weights of the wanted variant are preferred; a component without them uses its plain ones,
    as diffusers does. A folder that holds no weights at all (a tokenizer, a scheduler) has none.

    Raises:
        ModelError: there are only pickled weights, or only other variants.
    """
    files = sorted(folder.glob("*.safetensors")) + sorted(folder.glob("*.safetensors.index*.json"))
    by_variant: dict[str, list[Path]] = {}
    for file in files:
        by_variant.setdefault(_variant(file.name), []).append(file)
    for wanted in (variant, ""):
        if wanted in by_variant:
            return tuple(by_variant[wanted])
    if by_variant:
        raise ModelError(
            f"{folder} has no weights of variant {variant or '(none)'}. "
            f"Found: {', '.join(sorted(by_variant))}; choose one with variant=."
        )
    if any(file.suffix in _PICKLES for file in folder.glob("*")):
        raise ModelError(
            f"{folder} holds only pickled weights, which can run code and are never loaded. "
            "Convert them to safetensors (diffusers: save_pretrained(safe_serialization=True))."
        )
    return ()


def read_json(path: Path) -> Mapping[str, Any]:
    """A JSON object from a file.

    Raises:
        ModelError: it is missing, unreadable, or not an object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path} is missing.") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} must hold a JSON object; got {type(value).__name__}.")
    return value


def tensor_names(path: Path) -> frozenset[str]:
    """Names of the tensors in a safetensors file, after checking that the file is whole.

    Reads the header only: eight bytes of length, then JSON with each tensor's byte range
    (https://huggingface.co/docs/safetensors/index#format).

    Raises:
        ModelError: the file is truncated or is not safetensors.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > size - 8:
            raise ModelError(
                f"{path} is truncated or is not a safetensors file ({size} bytes). Fetch it again."
            )
        try:
            header = json.loads(file.read(length))
            tensors = {k: v for k, v in header.items() if k != "__metadata__"}
            end = max((int(v["data_offsets"][1]) for v in tensors.values()), default=0)
        except (ValueError, AttributeError, KeyError, TypeError, IndexError):
            raise ModelError(f"{path} is not a safetensors file: its header is damaged.") from None
    if size != 8 + length + end:
        raise ModelError(
            f"{path} is truncated: {8 + length + end} bytes expected, {size} found. Fetch it again."
        )
    return frozenset(tensors)


def _small_files(folder: Path) -> Iterator[Path]:
    """The configuration of a model; everything that a tokenizer or a scheduler holds."""
    if (folder / "config.json").is_file() and not folder.name.startswith("tokenizer"):
        yield folder / "config.json"
        return
    for file in folder.iterdir():
        if file.suffix in _SMALL and ".safetensors.index" not in file.name:
            yield file


def _variant(name: str) -> str:
    """Variant in a weight file's name, "" for plain weights.

    >>> [_variant(n) for n in ("model.safetensors", "model.fp16.safetensors",
    ...  "model-00001-of-00002.safetensors", "model.fp16-00001-of-00002.safetensors",
    ...  "model-00001-of-00002.fp16.safetensors", "model.safetensors.index.fp16.json")]
    ['', 'fp16', '', 'fp16', 'fp16', 'fp16']
    """
    index = _INDEX.fullmatch(name)
    if index:
        return index["variant"] or ""
    match = _WEIGHTS.fullmatch(name)
    return (match["variant"] or match["old"] or "") if match else ""


def file_digest(path: Path) -> str:
    """SHA-256 of one file, in lower-case hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(name: str, revision: str, variant: str, stem: str) -> Path:
    """Fetch a hub repository's configurations and weights, plain ones where no variant is."""
    path = _fetch(name, revision, variant, stem)
    return _fetch(name, revision, "", stem) if variant and _bare(path) else path


def _fetch(name: str, revision: str, variant: str, stem: str) -> Path:
    kind = f".{variant}*" if variant else "*"
    weights = [f"*/*{kind}.safetensors", f"{stem}{kind}.safetensors"]
    other = [] if variant else ["*.fp16*", "*.bf16*", "*.non_ema*"]
    return snapshot(
        name,
        revision,
        allow=["*.json", "*.txt", "*.model", *weights],
        ignore=[*(f"{part}/*" for part in UNUSED), *other],
    )


def _bare(folder: Path) -> bool:
    """Whether some model in the folder has a configuration but no weights."""
    configs = (c.parent for c in (folder / "config.json", *folder.glob("*/config.json")))
    return any((p / "config.json").is_file() and not any(p.glob("*.safetensors")) for p in configs)


def snapshot(name: str, revision: str, allow: list[str], ignore: list[str]) -> Path:
    """Fetch matching files of a hub repository, or take them from the cache when offline.

    Raises:
        ModelError: the hub cannot be reached, or has no such repository or revision.
    """
    from huggingface_hub import snapshot_download

    try:
        found = snapshot_download(
            name, revision=revision or None, allow_patterns=allow, ignore_patterns=ignore
        )
    except Exception as error:  # the hub raises its own, httpx's and OS errors
        reason = str(error).strip().splitlines()
        raise ModelError(
            f"The hub model {name!r}{f' at {revision!r}' if revision else ''} could not be "
            f"fetched ({type(error).__name__}: {reason[0] if reason else 'no reason given'}). "
            "Check the id and the connection, or pass a local diffusers folder."
        ) from error
    return Path(found)
