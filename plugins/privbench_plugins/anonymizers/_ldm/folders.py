"""What a model folder holds and whether its parts fit together, from its JSON files alone.

Torch-free: the planner calls it, so most faults of a model show before anything is computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from privbench.errors import ModelError
from privbench.spec import RANDOM
from privbench_plugins import models
from privbench_plugins.anonymizers._ldm import random_configs

AUTOENCODERS: Final = ("AutoencoderKL", "AutoencoderTiny")
TEXT_ENCODERS: Final = ("CLIPTextModel", "CLIPTextModelWithProjection")

_SD: Final = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
_SDXL: Final = (*_SD, "text_encoder_2", "tokenizer_2")
_CONFIGS: Final = {
    False: "stable-diffusion-v1-5/stable-diffusion-v1-5",
    True: "stabilityai/stable-diffusion-xl-base-1.0",
}
"""Hub repositories whose configurations and vocabularies describe single-file checkpoints."""


@dataclass(frozen=True, slots=True, eq=False)
class PipelineFolder:
    """A Stable Diffusion or SDXL model that was found and checked.

    Attributes:
        path: the diffusers folder, or the single-file checkpoint.
        configs: folder of configurations and vocabularies; `path` itself for a folder.
        xl: SDXL rather than Stable Diffusion 1.x/2.x.
        variant: weight variant that is used.
        unet: the UNet's configuration.
        factor: pixels per latent, along one side.
        resolution: side at which the model works, in pixels.
        random: `random:sd15` where there is no folder and the weights are random, else "".
    """

    path: Path
    configs: Path
    xl: bool
    variant: str
    unet: Mapping[str, Any]
    factor: int
    resolution: int
    random: str = ""

    def digest(self) -> dict[str, str]:
        """SHA-256 of every file that is used, by relative name."""
        if self.random:
            parts = random_configs.family(self.random).parts
            return {part: random_configs.part_digest(self.random, part) for part in parts}
        if self.path.is_dir():
            return models.digest(self.path, self.variant)
        configs = models.small_digest(self.configs)
        return models.digest(self.path) | {f"configs/{k}": v for k, v in configs.items()}


@dataclass(frozen=True, slots=True, eq=False)
class ModelFolder:
    """One model (a ControlNet) that was found and checked."""

    path: Path
    variant: str
    random: tuple[str, str] | None = None
    """Family and network, such as (`random:sd15`, `controlnet`), where weights are random."""

    def digest(self) -> dict[str, str]:
        """SHA-256 of every file that is used, by relative name."""
        if self.random:
            return {self.random[1]: random_configs.part_digest(*self.random)}
        return models.digest(self.path, self.variant)


def find_pipeline(
    name: str, revision: str = "", variant: str = "", resolution: int = 0, *, inpaint: bool = False
) -> PipelineFolder:
    """Find a diffusion model and check it.

    Args:
        name: see `privbench_plugins.models.resolve`.
        revision: of a hub id.
        variant: weight variant.
        resolution: wanted side in pixels; 0 for the model's own.
        inpaint: whether a UNet that also takes a mask and a masked image is welcome.

    Raises:
        ModelError: missing or damaged files, an unsupported architecture, parts that do not
            fit together, or a resolution that the autoencoder cannot make.
    """
    if name.startswith(RANDOM):
        return _random_pipeline(name, resolution)
    path = models.resolve(name, revision, variant)
    configs = path if path.is_dir() else _single_file_configs(path)
    if not (configs / "model_index.json").is_file():
        raise ModelError(
            f"{configs} is not a diffusers pipeline folder: it has no model_index.json."
        )
    xl = _is_xl(configs)
    _check_components(configs, _SDXL if xl else _SD, weights=path.is_dir(), variant=variant)
    unet = models.read_json(configs / "unet" / "config.json")
    vae = models.read_json(configs / "vae" / "config.json")
    _check_unet(configs, unet, vae, inpaint)
    side, factor = _side(name, unet, vae, resolution)
    return PipelineFolder(path, configs, xl, variant, unet, factor, side)


def _side(
    name: str, unet: Mapping[str, Any], vae: Mapping[str, Any], resolution: int
) -> tuple[int, int]:
    """Side at which a model works, in pixels, and its autoencoder's factor."""
    factor = 2 ** (len(vae.get("block_out_channels", vae.get("decoder_block_out_channels"))) - 1)
    own = int(unet["sample_size"]) * factor
    if resolution % factor:
        raise ModelError(
            f"The resolution must be divisible by {factor}, the autoencoder's factor, for "
            f"{name!r}. Got {resolution}; the nearest are {resolution // factor * factor} and "
            f"{(resolution // factor + 1) * factor}, the model's own is {own}."
        )
    return resolution or own, factor


def _random_pipeline(name: str, resolution: int) -> PipelineFolder:
    """A family's architecture, for `privbench time`; nothing on disk belongs to it."""
    found = random_configs.family(name)
    unet = {"in_channels": 4, "out_channels": 4, **found.parts["unet"][1]}
    side, factor = _side(name, unet, found.parts["vae"][1], resolution)
    nowhere = Path(name)
    return PipelineFolder(nowhere, nowhere, found.xl, "", unet, factor, side, name)


def random_network(name: str, part: str, pipeline: PipelineFolder) -> ModelFolder | None:
    """The network that steers a random pipeline: random like it, unless a real one is asked for.

    Args:
        name: of the ControlNet or adapter; an embedded one fits no random pipeline, so the
            family's own architecture takes its place.
        part: `controlnet` or `t2i`.
        pipeline: what it is for.

    Returns:
        None where `name` is to be loaded.
    """
    if pipeline.random and (name in models.embedded() or name == pipeline.random):
        return ModelFolder(pipeline.path / part, "", (pipeline.random, part))
    return None


def find_controlnet(
    name: str, revision: str = "", variant: str = "", *, pipeline: PipelineFolder
) -> ModelFolder:
    """Find a ControlNet and check that it fits a diffusion model.

    Raises:
        ModelError: missing or damaged files, another architecture, or shapes that do not fit.
    """
    if made_up := random_network(name, "controlnet", pipeline):
        return made_up
    path = models.resolve(name, revision, variant)
    if path.is_file():
        raise ModelError(f"A ControlNet must be a diffusers folder or a hub id. Got {path}.")
    if (path / "model_index.json").is_file():
        raise ModelError(f"{path} is a whole pipeline. Expected a ControlNetModel's folder.")
    config = model_config(path, ("ControlNetModel",))
    check_weights(path, variant)
    for key in ("in_channels", "block_out_channels", "cross_attention_dim", "addition_embed_type"):
        # An inpainting UNet takes a mask beside the latents, a ControlNet the latents alone.
        theirs = "out_channels" if key == "in_channels" else key
        wanted, got = pipeline.unet.get(theirs), config.get(key)
        if wanted != got:
            raise ModelError(
                f"The ControlNet {path} does not fit the UNet of {pipeline.path}: {key} is "
                f"{got} in the ControlNet and {wanted} in the UNet. Choose one trained for it."
            )
    reduces = 2 ** (len(config["conditioning_embedding_out_channels"]) - 1)
    if reduces != pipeline.factor:
        raise ModelError(
            f"The ControlNet {path} reduces its condition by {reduces}, but the autoencoder of "
            f"{pipeline.path} by {pipeline.factor}."
        )
    if config.get("global_pool_conditions"):
        raise ModelError(
            f"The ControlNet {path} pools its condition (shuffle type); that is not supported."
        )
    return ModelFolder(path, variant)


def _is_xl(folder: Path) -> bool:
    name = str(models.read_json(folder / "model_index.json").get("_class_name"))
    if not name.startswith("StableDiffusion") or name.startswith("StableDiffusion3"):
        raise ModelError(
            f"{folder} is a {name}. Expected a StableDiffusionPipeline or "
            "StableDiffusionXLPipeline, or one of their variants."
        )
    return name.startswith("StableDiffusionXL")


def _check_components(
    folder: Path, needed: tuple[str, ...], *, weights: bool, variant: str
) -> None:
    present = models.components(folder)
    for name in needed:
        part = folder / name
        if name not in present or not part.is_dir():
            where = "model_index.json" if name not in present else "the folder"
            raise ModelError(
                f"The model folder {folder} lacks the component {name!r} in {where}. "
                f"Needed: {', '.join(needed)}."
            )
        if weights and name not in ("scheduler",) and not name.startswith("tokenizer"):
            check_weights(part, variant)
    model_config(folder / "unet", ("UNet2DConditionModel",))
    model_config(folder / "vae", AUTOENCODERS)
    models.read_json(folder / "scheduler" / "scheduler_config.json")
    for name in needed:
        if name.startswith("text_encoder") and present[name] not in TEXT_ENCODERS:
            raise ModelError(
                f"{folder / name}: expected {' or '.join(TEXT_ENCODERS)}, got {present[name]}."
            )


def model_config(folder: Path, expected: tuple[str, ...]) -> Mapping[str, Any]:
    """A diffusers model's configuration.

    Raises:
        ModelError: there is none, or it is another class's.
    """
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} is not a diffusers model folder: it has no config.json.")
    config = models.read_json(folder / "config.json")
    name = config.get("_class_name")
    if name not in expected:
        raise ModelError(
            f"{folder} holds the wrong architecture: expected {' or '.join(expected)}, got {name}."
        )
    return config


def check_weights(folder: Path, variant: str) -> None:
    """Check that a model's safetensors files are there and whole, shards included.

    Raises:
        ModelError: they are not.
    """
    files = models.weight_files(folder, variant)
    tensors = [file for file in files if file.suffix == ".safetensors"]
    if not tensors:
        raise ModelError(f"{folder} holds no safetensors weights.")
    for file in tensors:
        models.tensor_names(file)
    for index in set(files) - set(tensors):
        shards = {str(v) for v in models.read_json(index).get("weight_map", {}).values()}
        for shard in sorted(shards):
            if not (folder / shard).is_file():
                raise ModelError(f"{folder / shard} is missing; {index.name} names it.")


def _check_unet(
    folder: Path, unet: Mapping[str, Any], vae: Mapping[str, Any], inpaint: bool
) -> None:
    latent = int(vae["latent_channels"])
    if unet["in_channels"] != latent and not (inpaint and unet["in_channels"] == 2 * latent + 1):
        raise ModelError(
            f"The UNet of {folder} takes {unet['in_channels']} channels, but its autoencoder makes "
            f"{latent}. "
            + (
                f"Expected {latent}, or {2 * latent + 1} of an inpainting model."
                if inpaint
                else "Inpainting and edit models cannot be used here (inpainting: ldm-inpaint)."
            )
        )
    if unet.get("time_cond_proj_dim") is not None:
        raise ModelError(
            f"The UNet of {folder} is distilled for guidance (LCM); that is not supported."
        )
    text = [models.read_json(p / "config.json") for p in sorted(folder.glob("text_encoder*"))]
    hidden = sum(int(config["hidden_size"]) for config in text)
    if unet["cross_attention_dim"] != hidden:
        raise ModelError(
            f"The UNet of {folder} attends to {unet['cross_attention_dim']} text features, but "
            f"its text encoders make {hidden}."
        )


def _single_file_configs(path: Path) -> Path:
    """The folder that describes a single-file checkpoint: its neighbour, else the hub's."""
    names = models.tensor_names(path)
    if not any(name.startswith("model.diffusion_model.") for name in names):
        raise ModelError(
            f"{path} is not a Stable Diffusion checkpoint: it has no model.diffusion_model.* "
            "tensors. Expected a single-file checkpoint, or pass a diffusers folder."
        )
    neighbour = path.with_suffix("")
    if neighbour.is_dir():
        return neighbour
    if any(name.startswith("cond_stage_model.model.") for name in names):
        raise ModelError(
            f"{path} looks like Stable Diffusion 2, whose configurations have left the hub. "
            f"Put them into {neighbour}/ (model_index.json and the components' JSON files)."
        )
    xl = any(name.startswith("conditioner.embedders.1.") for name in names)
    try:
        return models.snapshot(
            _CONFIGS[xl], "", ["*.json", "*.txt"], [f"{part}/*" for part in models.UNUSED]
        )
    except ModelError as error:
        raise ModelError(
            f"{path} needs the configurations and vocabularies of its family. {error} Or put them "
            f"into {neighbour}/ (model_index.json and the components' JSON files)."
        ) from error
