"""Small model folders of the true diffusers and transformers classes, with random weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    ControlNetModel,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    T2IAdapter,
    UNet2DConditionModel,
)
from transformers import (
    BertTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    Dinov2Config,
    DPTConfig,
    DPTForDepthEstimation,
)

RESOLUTION = 32
HIDDEN = 16


def tokenizer() -> CLIPTokenizer:
    """A byte-level BPE vocabulary in which a few words are whole."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ("photo", "person", "smiling", "a")
    vocabulary = {"<|startoftext|>": 0, "<|endoftext|>": 1}
    merges: list[str] = []
    for piece in [*letters, *(f"{letter}</w>" for letter in letters)]:
        vocabulary[piece] = len(vocabulary)
    for word in words:
        pieces = [*word[:-1], f"{word[-1]}</w>"]
        while len(pieces) > 1:
            pair = f"{pieces[0]} {pieces[1]}"
            if pair not in merges:
                merges.append(pair)
            pieces[:2] = ["".join(pieces[:2])]
            vocabulary.setdefault(pieces[0], len(vocabulary))
    return CLIPTokenizer(
        vocab=vocabulary, merges=[tuple(m.split()) for m in merges], model_max_length=16
    )


def text_config(vocabulary: int) -> CLIPTextConfig:
    """Two layers of width `HIDDEN`."""
    return CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=HIDDEN,
        intermediate_size=2 * HIDDEN,
        num_attention_heads=2,
        num_hidden_layers=2,
        max_position_embeddings=16,
        projection_dim=HIDDEN,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )


def autoencoder(kind: Literal["kl", "tiny"]) -> Any:
    """Factor 4, four latent channels."""
    if kind == "kl":
        return AutoencoderKL(
            block_out_channels=(8, 8, 8),
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            latent_channels=4,
            norm_num_groups=4,
            sample_size=RESOLUTION,
        )
    return AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8),
        decoder_block_out_channels=(8, 8, 8),
        num_encoder_blocks=(1, 1, 1),
        num_decoder_blocks=(1, 1, 1),
        latent_channels=4,
    )


def unet(xl: bool = False, **changes: Any) -> UNet2DConditionModel:
    """Two levels; text and size inputs as SDXL has them if `xl`."""
    options: dict[str, Any] = {
        "sample_size": RESOLUTION // 4,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "cross_attention_dim": 2 * HIDDEN if xl else HIDDEN,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
    }
    if xl:
        options |= {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 4,
            "projection_class_embeddings_input_dim": HIDDEN + 6 * 4,
            "transformer_layers_per_block": 1,
        }
    return UNet2DConditionModel(**(options | changes))


def controlnet(net: UNet2DConditionModel, **changes: Any) -> ControlNetModel:
    """A ControlNet for `net` whose zero convolutions are not zero, so that edges matter."""
    options = {"conditioning_embedding_out_channels": (4, 8, 8)} | changes
    control = ControlNetModel.from_unet(net, **options)
    blocks = [*control.controlnet_down_blocks, control.controlnet_mid_block]
    for block in (*blocks, control.controlnet_cond_embedding.conv_out):
        torch.nn.init.normal_(block.weight, std=0.3)
    return control


def adapter(net: UNet2DConditionModel, kind: str = "full_adapter", **changes: Any) -> T2IAdapter:
    """A T2I-Adapter for `net` (or not, by `changes`) whose features matter."""
    xl = kind == "full_adapter_xl"
    options: dict[str, Any] = {
        "in_channels": 3,
        "channels": list(net.config.block_out_channels),
        "num_res_blocks": 1,
        "downscale_factor": 8 if xl else 4,
        "adapter_type": kind,
    }
    return T2IAdapter(**(options | changes))


def depth_model(architecture: Literal["dpt", "depth-anything"]) -> Any:
    """A depth estimator of two layers that works on 28 pixels."""
    torch.manual_seed(11)
    if architecture == "dpt":
        return DPTForDepthEstimation(
            DPTConfig(
                hidden_size=16,
                num_hidden_layers=4,
                num_attention_heads=2,
                intermediate_size=16,
                image_size=28,
                patch_size=14,
                backbone_out_indices=[0, 1, 2, 3],
                neck_hidden_sizes=[8, 8, 8, 8],
                fusion_hidden_size=8,
                is_hybrid=False,
            )
        )
    backbone = Dinov2Config(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=28,
        patch_size=14,
        out_features=["stage1", "stage2", "stage3", "stage4"],
        apply_layernorm=True,
        reshape_hidden_states=False,
    )
    return DepthAnythingForDepthEstimation(
        DepthAnythingConfig(
            backbone_config=backbone,
            patch_size=14,
            reassemble_hidden_size=16,
            neck_hidden_sizes=[8, 8, 8, 8],
            fusion_hidden_size=8,
            head_in_index=-1,
            head_hidden_size=4,
        )
    )


def save_depth_model(
    folder: Path, architecture: Literal["dpt", "depth-anything"], **options: Any
) -> Path:
    """Write a depth estimator with its preprocessor_config.json."""
    depth_model(architecture).save_pretrained(folder, **options)
    settings = {
        "size": {"height": 28, "width": 28},
        "keep_aspect_ratio": True,
        "ensure_multiple_of": 14,
        "resample": 3,
        "do_normalize": True,
        "image_mean": [0.5, 0.4, 0.3],
        "image_std": [0.2, 0.3, 0.4],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def save_captioner(folder: Path) -> Path:
    """Write a BLIP of one layer, its tokenizer and its preprocessor_config.json."""
    torch.manual_seed(12)
    words = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[DEC]", "face", "smiling", "photo", "person")
    vocabulary = {word: i for i, word in enumerate(words)}
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    text = {
        **size,
        "vocab_size": len(words),
        "num_attention_heads": 2,
        "bos_token_id": 4,
        "eos_token_id": 3,
        "sep_token_id": 3,
        "pad_token_id": 0,
        "encoder_hidden_size": 16,
        "max_position_embeddings": 64,
    }
    vision = {**size, "image_size": 32, "patch_size": 16, "num_attention_heads": 2}
    net = BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=vision))
    net.save_pretrained(folder)
    BertTokenizer(vocab=vocabulary).save_pretrained(folder)
    settings = {
        "size": {"height": 32, "width": 32},
        "resample": 3,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.25, 0.25, 0.25],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def pipeline(kind: Literal["kl", "tiny"] = "tiny", xl: bool = False, **changes: Any) -> Any:
    """A pipeline of the ordinary class; the weights are the same at every call.

    `changes` are options of the UNet.
    """
    torch.manual_seed(7)
    words = tokenizer()
    config = text_config(len(words))
    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,
    )
    parts: dict[str, Any] = {
        "vae": autoencoder(kind),
        "text_encoder": CLIPTextModel(config),
        "tokenizer": words,
        "unet": unet(xl, **changes),
        "scheduler": scheduler,
    }
    if xl:
        return StableDiffusionXLPipeline(
            **parts,
            text_encoder_2=CLIPTextModelWithProjection(config),
            tokenizer_2=tokenizer(),
            add_watermarker=False,
        )
    return StableDiffusionPipeline(
        **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )


def save(
    root: Path,
    kind: Literal["kl", "tiny"] = "tiny",
    xl: bool = False,
    scheduler: Any = None,
    **options: Any,
) -> tuple[Path, Path]:
    """Write a pipeline folder and a ControlNet folder; `options` go to `save_pretrained`.

    `scheduler` is a diffusers class that takes the place of DDIM.
    """
    pipe = pipeline(kind, xl)
    if scheduler is not None:
        pipe.register_modules(scheduler=scheduler.from_config(pipe.scheduler.config))
    pipe.save_pretrained(root / "model", **options)
    control = controlnet(pipe.unet)
    control.save_pretrained(root / "controlnet", **options)
    return root / "model", root / "controlnet"


FAMILY = ("canny", "depth", "softedge", "landmarks")
"""ControlNets that `save_family` writes."""

ATTENTION_FIRST = {
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}
"""Levels in the order of Stable Diffusion 1.5: attention where the image is largest."""


def save_family(
    root: Path,
    kind: Literal["kl", "tiny"] = "tiny",
    xl: bool = False,
    changes: Mapping[str, Any] | None = None,
    **options: Any,
) -> Path:
    """Write `model`, a ControlNet for each of `FAMILY`, and the T2I-Adapter `t2i`.

    An SDXL has its attention in the last level, as the real one; the others in the first.
    `changes` are options of the UNet; `options` go to `save_pretrained`.
    """
    levels = {} if xl else ATTENTION_FIRST
    pipe = pipeline(kind, xl, **(levels | dict(changes or {})))
    pipe.save_pretrained(root / "model", **options)
    plain = unet(xl, **levels)
    for name in FAMILY:
        controlnet(plain).save_pretrained(root / name, **options)
    adapter(plain, "full_adapter_xl" if xl else "full_adapter").save_pretrained(
        root / "t2i", **options
    )
    return root
