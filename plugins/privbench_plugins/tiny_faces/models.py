"""The parts of the pipeline: shapes of the networks, noise schedule, tokenizer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import torch
from diffusers import (
    AutoencoderTiny,
    ControlNetModel,
    DDIMScheduler,
    T2IAdapter,
    UNet2DConditionModel,
)
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

IMAGE_SIDE: Final = 128
LATENT_SIDE: Final = 16
LATENT_CHANNELS: Final = 10
TEXT_WIDTH: Final = 64
TEXT_LENGTH: Final = 32
COMMON_CAPTIONS: Final = (
    "",
    "a portrait photo of a person",
    "a photo of a person",
    "a portrait of a person",
    "a picture of a face",
    "a photo of a face",
    "a face",
    "a person",
)
"""Texts that hold for every image: the unconditional one first."""
_START, _END = "<|startoftext|>", "<|endoftext|>"


def new_autoencoder(width: int = 32, channels: int = LATENT_CHANNELS) -> Any:
    """Build an untrained AutoencoderTiny, factor 8.

    Nearly all blocks sit at the low resolutions: at 128 pixels a block costs 64 times what
    it costs at 16, and the width of AutoencoderTiny is the same everywhere.
    """
    return AutoencoderTiny(
        encoder_block_out_channels=(width,) * 4,
        decoder_block_out_channels=(width,) * 4,
        num_encoder_blocks=(0, 1, 3, 4),
        num_decoder_blocks=(4, 4, 1, 0),
        latent_channels=channels,
        scaling_factor=1.0,
    )


@torch.no_grad()
def fold_normalisation(autoencoder: Any, mean: torch.Tensor, std: torch.Tensor) -> None:
    """Make the encoder itself return (latents - mean) / std; mean, std: (C,).

    The decoder was trained on normalised latents, so nothing has to be folded there and
    ``scaling_factor`` stays 1.
    """
    last = autoencoder.encoder.layers[-1]
    last.weight.div_(std.reshape(-1, 1, 1, 1))
    last.bias.sub_(mean).div_(std)


def new_unet(widths: Sequence[int] = (48, 96, 144)) -> Any:
    """Build an untrained UNet on (10, 16, 16) latents; attention to text at 8x8 and 4x4."""
    return UNet2DConditionModel(
        sample_size=LATENT_SIDE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=tuple(widths),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=8,
    )


def new_controlnet(unet: Any, widths: Sequence[int] = (8, 16, 32, 64)) -> Any:
    """Build a ControlNet beside `unet`; condition (N, 3, 128, 128) in [0, 1].

    diffusers starts the condition embedding at zero as well as the links to the UNet. Here
    both nets are new and train together, so one of the two zero gates would only delay.
    """
    net = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=tuple(widths))
    nn.init.kaiming_normal_(net.controlnet_cond_embedding.conv_out.weight)
    return net


def new_adapter(unet: Any) -> Any:
    """Build a T2I adapter for `unet`; condition (N, 3, 128, 128) in [0, 1].

    The kind made for SDXL, because this UNet too begins with a block without attention, whose
    features are added after its downsampler: 8, 8, 4 and 4 places a side.
    """
    widths = tuple(unet.config.block_out_channels)
    return T2IAdapter(
        in_channels=3,
        channels=(*widths, widths[-1]),
        num_res_blocks=1,
        downscale_factor=2 * IMAGE_SIDE // LATENT_SIDE,
        adapter_type="full_adapter_xl",
    )


def place(net: Any, device: torch.device) -> Any:
    """Move `net` to `device` with its weights laid out channels last: faster in bfloat16."""
    return net.to(device=device, memory_format=torch.channels_last)


def new_scheduler() -> Any:
    """Noise schedule of training: v-prediction, terminal SNR of zero, trailing time steps.

    Without the zero terminal SNR the sampler starts from noise that the net has never seen
    without a hint of the image's mean colour, and everything turns grey.
    """
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,
    )


def train_tokenizer(captions: Iterable[str], size: int = 600) -> Any:
    """Train a CLIP tokenizer (byte-level BPE, ``</w>`` at word ends) on `captions`."""
    template = CLIPTokenizer()
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=_END))
    bpe.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    bpe.pre_tokenizer = template.backend_tokenizer.pre_tokenizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[],
        initial_alphabet=sorted(alphabet),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    bpe.train_from_iterator([*captions, *COMMON_CAPTIONS], trainer)
    return _clip_tokenizer(bpe)


def _clip_tokenizer(bpe: Tokenizer) -> Any:
    """Wrap a trained BPE; the special tokens come last, as in the original vocabulary."""
    import json

    state = json.loads(bpe.to_str())["model"]
    vocabulary: dict[str, int] = dict(state["vocab"])
    # Any byte may also end a word, seen in training or not.
    for symbol in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocabulary.setdefault(f"{symbol}</w>", len(vocabulary))
    for token in (_START, _END):
        vocabulary[token] = len(vocabulary)
    merges = [tuple(pair) for pair in state["merges"]]
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=TEXT_LENGTH)


def new_text_encoder(tokenizer: Any) -> Any:
    """Build an untrained CLIPTextModel: 2 layers of width 64, output (N, 32, 64)."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=4 * TEXT_WIDTH,
        projection_dim=TEXT_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=TEXT_LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def token_ids(tokenizer: Any, captions: Sequence[str]) -> torch.Tensor:
    """(N, 32) int64 ids of `captions`, padded and cut as the pipeline does it."""
    encoded = tokenizer(
        list(captions),
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    )
    ids: torch.Tensor = encoded.input_ids
    return ids
