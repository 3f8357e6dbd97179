"""Write and read the shipped folders: fp16 safetensors in diffusers format, with provenance."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import torch
from diffusers import AutoencoderTiny, ControlNetModel, StableDiffusionPipeline, T2IAdapter
from diffusers import UNet2DConditionModel as UNet
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel, CLIPTokenizer

from .diffusion import GUIDES, Nets

BASE: Final = "tiny-faces"
_PACKAGES: Final = ("torch", "diffusers", "transformers", "tokenizers", "opencv-python-headless")


@dataclass
class Run:
    """One training run, as the provenance lists it.

    stage: autoencoder or diffusion. start: where the weights came from. identities, images:
    what had been rendered by the end of the run. samples: training samples seen in all.
    """

    stage: str
    start: str
    seed: int
    steps: int
    samples: int
    hours: float
    identities: int
    images: int
    settings: dict[str, Any] = field(default_factory=dict)


def save_autoencoder(autoencoder: Any, out: Path) -> None:
    """Write the fp16 autoencoder to the base folder under `out`."""
    _save_half(autoencoder, out / BASE / "vae", "diffusion_pytorch_model.safetensors")


def save_tokenizer(tokenizer: Any, out: Path) -> None:
    """Write the tokenizer, also as the vocab and merges files that transformers 4 reads."""
    folder = out / BASE / "tokenizer"
    tokenizer.save_pretrained(folder)
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False) + "\n")
    lines = [" ".join(pair) for pair in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *lines]) + "\n")


def save_nets(nets: Nets, scheduler: Any, out: Path) -> None:
    """Write UNet, text encoder, scheduler and the pipeline's index; and the ControlNet."""
    weights = "diffusion_pytorch_model.safetensors"
    _save_half(nets.unet, out / BASE / "unet", weights)
    _save_half(nets.text_encoder, out / BASE / "text_encoder", "model.safetensors")
    for guide, net in nets.guides.items():
        _save_half(net, folder_of(guide, out), weights)
    scheduler.save_pretrained(out / BASE / "scheduler")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": version("diffusers"),
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", type(scheduler).__name__],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderTiny"],
    }
    (out / BASE / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


def load_autoencoder(out: Path) -> Any:
    """Read the autoencoder below `out`, as float32."""
    return AutoencoderTiny.from_pretrained(out / BASE / "vae", torch_dtype=torch.float32)


def load_tokenizer(out: Path) -> Any:
    """Read the tokenizer below `out`."""
    return CLIPTokenizer.from_pretrained(out / BASE / "tokenizer")


def folder_of(guide: str, out: Path) -> Path:
    """Folder of a guide below `out`."""
    return out / f"{BASE}-{guide}"


def load_guide(guide: str, out: Path, dtype: torch.dtype = torch.float32) -> Any:
    """Read a guide below `out`: a ControlNet, or a T2I adapter if its configuration says so."""
    folder = folder_of(guide, out)
    kind = json.loads((folder / "config.json").read_text())["_class_name"]
    classes = {"ControlNetModel": ControlNetModel, "T2IAdapter": T2IAdapter}
    return classes[kind].from_pretrained(folder, torch_dtype=dtype)


def load_nets(out: Path) -> Nets:
    """Read UNet, text encoder and those guides that exist below `out`, as float32."""
    return Nets(
        UNet.from_pretrained(out / BASE / "unet", torch_dtype=torch.float32),
        CLIPTextModel.from_pretrained(out / BASE / "text_encoder", dtype=torch.float32),
        {guide: load_guide(guide, out) for guide in GUIDES if folder_of(guide, out).is_dir()},
    )


def load_base(out: Path, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Any:
    """The pipeline without a guide."""
    base = StableDiffusionPipeline.from_pretrained(out / BASE, torch_dtype=dtype).to(device)
    return _quiet(base)


def guided(base: Any, guide: Any) -> Any:
    """The pipeline of `guide`, which shares the networks of `base`."""
    from diffusers import StableDiffusionAdapterPipeline, StableDiffusionControlNetPipeline

    guide = guide.to(base.device, base.dtype)
    parts = dict(base.components, requires_safety_checker=False)
    if isinstance(guide, T2IAdapter):
        parts.pop("image_encoder")
        return _quiet(StableDiffusionAdapterPipeline(adapter=guide, **parts))
    guide.to(memory_format=torch.channels_last)
    return _quiet(StableDiffusionControlNetPipeline(controlnet=guide, **parts))


def _quiet(pipeline: Any) -> Any:
    pipeline.unet.to(memory_format=torch.channels_last)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def weight_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of each weight file below `folder`, by its relative path."""
    paths = sorted(folder.rglob("*.safetensors"))
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
    }


def write_provenance(out: Path, runs: list[Run], data: dict[str, Any]) -> None:
    """Write ``provenance.json`` into the model folders that exist below `out`."""
    names = (BASE, *(folder_of(guide, out).name for guide in GUIDES))
    for name in (name for name in names if (out / name).exists()):
        record = {
            "model": name,
            "licence": "CC0-1.0",
            "data": data,
            "runs": [vars(run) for run in runs],
            "packages": {package: version(package) for package in _PACKAGES},
            "sha256": weight_hashes(out / name),
        }
        (out / name / "provenance.json").write_text(json.dumps(record, indent=2) + "\n")


def read_runs(out: Path) -> list[Run]:
    """Return the runs listed in the provenance below `out`; none where there is none."""
    path = out / BASE / "provenance.json"
    return [Run(**r) for r in json.loads(path.read_text())["runs"]] if path.exists() else []


def _save_half(net: Any, folder: Path, weights: str) -> None:
    """Write the configuration and fp16 weights; `net` itself keeps its precision.

    Not by ``save_pretrained``: that would need a half-precision copy of the net, and writes
    the path it was loaded from into the configuration.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = {k: v.detach().cpu().half().contiguous() for k, v in net.state_dict().items()}
    # position_ids is a buffer that transformers rebuilds, and floats would break it.
    state = {k: v for k, v in state.items() if not k.endswith("position_ids")}
    save_file(state, folder / weights, metadata={"format": "pt"})
    if hasattr(net, "save_config"):
        net.save_config(folder)
    else:
        net.config.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config.pop("_name_or_path", None)
    if config.get("_class_name") == "AutoencoderTiny":
        # It registers this itself and then warns of it in its own configuration.
        config.pop("block_out_channels", None)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def stored_dtype(path: Path) -> set[torch.dtype]:
    """Return the number types in a weight file."""
    return {value.dtype for value in load_file(path).values()}
