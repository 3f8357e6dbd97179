"""Pretrained recognisers behind one interface: align faces, then embed the crops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from privbench.errors import ModelError, PluginLoadError
from privbench_plugins.attacks.alignment import (
    ARCFACE_SIDE,
    Chips,
    Faces,
    align,
    centred,
    shrink,
)
from privbench_plugins.attacks.recogniser_files import (
    PREPROCESSOR,
    RESNET,
    backbone_folder,
    onnx_files,
    require_dlib,
)
from privbench_plugins.attacks.recognisers import RecogniserConfig
from privbench_plugins.models import digest, read_json, resolve
from privbench_plugins.tiny_encoder import net

_DLIB_SIDE: Final = 150
_DLIB_PADDING: Final = 0.25


class Recogniser(Protocol):
    """A network that was trained to tell people apart, used as it is."""

    def align(self, faces: Faces) -> Chips:
        """Crops of the faces as the network wants them."""
        ...

    def embed(self, pixels: Tensor) -> Tensor:
        """(N, 3, S, S) uint8 crops to (N, D) float32 rows of length one, on the CPU.

        A row depends on its crop alone.
        """
        ...


def load(candidate: str, config: RecogniserConfig, device: torch.device) -> Recogniser:
    """Load a recogniser by a name that `recognisers` may hold; `auto` is none.

    Raises:
        ModelError: its file is missing, damaged or no such model.
        PluginLoadError: an extra is missing.
    """
    kind, _, name = candidate.partition(":")
    if kind == "dlib":
        return Dlib.load(config.embed_batch)
    if kind == "onnx":
        return Onnx.load(onnx_files(name)[0], config, device)
    if kind == "transformers":
        return Backbone.load(backbone_folder(name), config.embed_batch, device)
    return Encoder.load(resolve(candidate), config.embed_batch, device)


def padded(pixels: Tensor, batch: int, forward: Callable[[Tensor], Tensor]) -> Tensor:
    """(N, D) rows of length one, in batches of one size: a row must not see how many others
    there are.

    Args:
        pixels: (N, 3, S, S) uint8.
        batch: images at once; the last batch is filled up with black.
        forward: (batch, 3, S, S) uint8 to (batch, D).
    """
    rows = [
        F.normalize(forward(F.pad(block, (0,) * 7 + (batch - len(block),)))[: len(block)].float())
        for block in torch.split(pixels, batch)
        if len(block)
    ]
    return torch.cat(rows).cpu() if rows else torch.zeros(0, 1)


@dataclass(frozen=True, slots=True, eq=False)
class Encoder:
    """`tiny-encoder` or `tiny-recogniser`, which see the whole image."""

    network: nn.Module
    batch: int
    device: torch.device

    @classmethod
    def load(cls, folder: Path, batch: int, device: torch.device) -> Encoder:
        """Read the network."""
        try:
            return cls(net.load(folder).to(device), batch, device)
        except (OSError, ValueError, TypeError) as error:
            raise ModelError(f"Cannot read a tiny-encoder from {folder}: {error}") from error

    def align(self, faces: Faces) -> Chips:
        """The images as they are."""
        return Chips(faces.pixels)

    @torch.no_grad()
    def embed(self, pixels: Tensor) -> Tensor:
        """See `Recogniser.embed`."""
        return padded(
            pixels, self.batch, lambda x: self.network(x.to(self.device).float().div_(255))
        )


@dataclass(frozen=True, slots=True, eq=False)
class Dlib:
    """dlib's ResNet (King 2017), on the CPU."""

    network: Any
    batch: int

    @classmethod
    def load(cls, batch: int) -> Dlib:
        """Read the network."""
        path = require_dlib() / RESNET
        import dlib

        try:
            return cls(dlib.face_recognition_model_v1(str(path)), batch)
        except RuntimeError as error:
            raise ModelError(f"{path} cannot be read: {error}. Install it anew.") from error

    def align(self, faces: Faces) -> Chips:
        """dlib's own crops; the middle of the image where there is no face."""
        import dlib

        pixels = centred(faces.pixels, _DLIB_SIDE)
        known = [row for row, shape in enumerate(faces.shapes) if shape is not None]
        if known:
            chips = [
                dlib.get_face_chip(faces.images[i], faces.shapes[i], _DLIB_SIDE, _DLIB_PADDING)
                for i in known
            ]
            pixels[known] = torch.from_numpy(np.stack(chips)).permute(0, 3, 1, 2)
        found = np.zeros(len(faces.pixels), dtype=np.bool_)
        found[known] = True
        return Chips(pixels, found)

    def embed(self, pixels: Tensor) -> Tensor:
        """See `Recogniser.embed`."""
        images = np.ascontiguousarray(pixels.permute(0, 2, 3, 1).numpy())
        rows = [
            np.asarray(
                self.network.compute_face_descriptor(list(images[i : i + self.batch])), np.float32
            )
            for i in range(0, len(images), self.batch)
        ]
        return F.normalize(torch.from_numpy(np.concatenate(rows))) if rows else torch.zeros(0, 1)


@dataclass(frozen=True, slots=True, eq=False)
class Onnx:
    """An ArcFace-style ONNX model: aligned crops in, embeddings out.

    Attributes:
        session: onnxruntime's.
        name: of the input.
        side: height and width of the input.
        last: channels come last.
        half: the input is float16.
        batch: images at once; the model's own where its batch axis is fixed.
        config: normalisation and order of colours.
    """

    session: Any
    name: str
    side: int
    last: bool
    half: bool
    batch: int
    config: RecogniserConfig

    @classmethod
    def load(cls, path: Path, config: RecogniserConfig, device: torch.device) -> Onnx:
        """Read the model.

        Raises:
            ModelError: it is damaged, or its input is no batch of RGB images.
            PluginLoadError: onnxruntime is missing.
        """
        session = _session(path, device)
        entry = session.get_inputs()[0]
        shape = [n if isinstance(n, int) else None for n in entry.shape]
        last = len(shape) == 4 and shape[1] != 3
        sides = {n or ARCFACE_SIDE for n in (shape[1:3] if last else shape[2:])}
        channels = shape[3 if last else 1] if len(shape) == 4 else None
        if len(session.get_inputs()) != 1 or channels != 3 or len(sides) != 1:
            raise ModelError(
                f"{path} must take one input (N, 3, S, S) or (N, S, S, 3); got {entry.shape}."
            )
        half, batch = "float16" in entry.type, shape[0] or config.embed_batch
        return cls(session, entry.name, sides.pop(), last, half, batch, config)

    def align(self, faces: Faces) -> Chips:
        """Crops in ArcFace's pose."""
        return align(faces, self.side)

    def embed(self, pixels: Tensor) -> Tensor:
        """See `Recogniser.embed`.

        Raises:
            ModelError: the model fails on a batch.
        """
        return padded(pixels, self.batch, self._run)

    def _run(self, pixels: Tensor) -> Tensor:
        x = pixels.flip(1) if self.config.channels == "bgr" else pixels
        x = x.permute(0, 2, 3, 1) if self.last else x
        values = x.float().sub_(self.config.mean).div_(self.config.std)
        given = np.ascontiguousarray(values.half().numpy() if self.half else values.numpy())
        try:
            rows = self.session.run(None, {self.name: given})[0]
        except Exception as error:  # onnxruntime has a dozen classes below Exception
            raise ModelError(f"The ONNX model failed on input {given.shape}: {error}") from error
        return torch.from_numpy(np.array(rows, np.float32).reshape(len(given), -1))


def _session(path: Path, device: torch.device) -> Any:
    try:
        import onnxruntime  # type: ignore[import-untyped, unused-ignore]
    except ImportError:
        raise PluginLoadError(
            "The recogniser 'onnx' needs onnxruntime; pip install 'privbench[onnx]'"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Its threads would wait for work by turning in circles, at the cost of whoever else computes.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors: they are raised, and printed by nobody but us
    wanted = ["CUDAExecutionProvider"] if device.type == "cuda" else []
    there = onnxruntime.get_available_providers()
    providers = [p for p in wanted if p in there] + ["CPUExecutionProvider"]
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # onnxruntime has a dozen classes below Exception
        raise ModelError(f"{path} is no ONNX model that can be read: {error}") from error


@dataclass(frozen=True, slots=True, eq=False)
class Preprocessing:
    """What a backbone wants of its images (`preprocessor_config.json` of transformers).

    Attributes:
        edge: the shorter side is resized to it; (height, width) where both are.
        crop: height and width that are cut from the middle.
        factor: grey levels are multiplied by it.
        mean: of each channel, subtracted then.
        std: of each channel.
    """

    edge: int | tuple[int, int]
    crop: tuple[int, int]
    factor: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def resized(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 to (N, 3, *crop) uint8; a crop is no larger than what it is cut
        from."""
        size = self.edge
        if isinstance(size, int):
            height, width = pixels.shape[2:]
            scale = size / min(height, width)
            size = round(height * scale), round(width * scale)
        tall, wide = (min(both) for both in zip(self.crop, size, strict=True))
        top, left = (size[0] - tall) // 2, (size[1] - wide) // 2
        return shrink(pixels, *size)[:, :, top : top + tall, left : left + wide]

    def normalised(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 to float32."""
        mean, std = (pixels.new_tensor(v, dtype=torch.float32) for v in (self.mean, self.std))
        x = pixels.float().mul_(self.factor)
        return (x - mean[:, None, None]) / std[:, None, None]


def preprocessing(folder: Path, side: int) -> Preprocessing:
    """Read it; ImageNet's usual one of `side` pixels where the folder has none.

    Raises:
        ModelError: the file cannot be understood.
    """
    from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    path = folder / PREPROCESSOR
    facts = read_json(path) if path.is_file() else {}
    try:
        edge = _edge(facts.get("size", side))
        whole = edge if isinstance(edge, tuple) else (edge, edge)
        cut = _edge(facts["crop_size"]) if "crop_size" in facts else whole
        crop = cut if isinstance(cut, tuple) else (cut, cut)
        usual = facts.get("do_normalize", True)
        return Preprocessing(
            edge if facts.get("do_resize", True) else crop,
            crop if facts.get("do_center_crop", True) else whole,
            float(facts.get("rescale_factor", 1 / 255)),
            tuple(facts.get("image_mean", IMAGENET_DEFAULT_MEAN)) if usual else (0.0,) * 3,
            tuple(facts.get("image_std", IMAGENET_DEFAULT_STD)) if usual else (1.0,) * 3,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path} cannot be understood: {error!r}") from error


def _edge(size: Any) -> int | tuple[int, int]:
    """`size` as one side or as (height, width)."""
    if isinstance(size, dict):
        if "shortest_edge" in size:
            return int(size["shortest_edge"])
        return int(size["height"]), int(size["width"])
    return int(size)


@dataclass(frozen=True, slots=True, eq=False)
class Backbone:
    """A vision model of `transformers`: its pooled output."""

    network: nn.Module
    pools: bool
    prepare: Preprocessing
    batch: int
    device: torch.device

    @classmethod
    def load(cls, folder: Path, batch: int, device: torch.device) -> Backbone:
        """Read the model; safetensors only.

        Raises:
            ModelError: there is no vision model in the folder, or part of its weights is missing.
        """
        digest(folder)  # refuses pickles by name
        from transformers import AutoModel

        try:
            whole, facts = AutoModel.from_pretrained(
                folder, use_safetensors=True, local_files_only=True, output_loading_info=True
            )
        except Exception as error:  # transformers, safetensors and torch each raise their own
            raise ModelError(f"Cannot read a vision model from {folder}: {error}") from error
        # A head that was trained on without a pooler leaves an untrained one: do without it.
        missing = {name for name in facts["missing_keys"] if "pooler" not in name}
        if missing:
            raise ModelError(f"The weights in {folder} lack {', '.join(sorted(missing))}.")
        model = getattr(whole, "vision_model", whole)  # the half of a CLIP that sees
        side = getattr(model.config, "image_size", None)
        prepare = preprocessing(folder, side if isinstance(side, int) else 224)
        return cls(model.to(device).eval(), not facts["missing_keys"], prepare, batch, device)

    def align(self, faces: Faces) -> Chips:
        """The images, resized as the model's folder says."""
        return Chips(self.prepare.resized(faces.pixels))

    @torch.no_grad()
    def embed(self, pixels: Tensor) -> Tensor:
        """See `Recogniser.embed`."""
        return padded(pixels, self.batch, self._run)

    def _run(self, pixels: Tensor) -> Tensor:
        out = self.network(pixel_values=self.prepare.normalised(pixels.to(self.device)))
        pooled = getattr(out, "pooler_output", None) if self.pools else None
        if isinstance(pooled, Tensor):
            return pooled.flatten(1)
        last: Tensor = out.last_hidden_state
        return last.mean(1) if last.ndim == 3 else last.mean((2, 3))
