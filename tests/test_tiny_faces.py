"""The embedded diffusion model: its folders, what it draws, and its training."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from privbench_plugins import tiny_faces
from privbench_plugins.conditions import canny
from privbench_plugins.tiny_faces import export, models, train
from privbench_plugins.tiny_faces.autoencoder import (
    AutoencoderSettings,
    psnr,
    reconstruct,
    train_autoencoder,
)
from privbench_plugins.tiny_faces.checkpoints import Progress
from privbench_plugins.tiny_faces.diffusion import (
    GUIDES,
    DiffusionSettings,
    LatentFaces,
    Nets,
    train_diffusion,
)
from privbench_plugins.tiny_faces.evaluate import colour_distance, edge_agreement, sample
from privbench_plugins.tiny_faces.faces import Faces, load_faces, split_faces

ASSETS = Path(tiny_faces.__file__).parents[1] / "assets"
FOLDERS = (ASSETS / export.BASE, *(export.folder_of(guide, ASSETS) for guide in GUIDES))
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pipelines() -> tuple[Any, Any]:
    """The base and the canny pipeline, from the shipped folders."""
    base = export.load_base(ASSETS)
    return base, export.guided(base, export.load_guide("canny", ASSETS))


@pytest.fixture(scope="module")
def shipped_faces() -> np.ndarray:
    """24 faces of the shipped data, whose identities no training run has seen."""
    files = sorted((ASSETS / "synthfaces").glob("*.parquet"))
    table = pq.read_table(files[0], columns=["image"])
    rows = table["image"].to_pylist()
    chosen = rows[:: max(1, len(rows) // 24)][:24]
    return np.stack([_decode(row["bytes"] if isinstance(row, dict) else row) for row in chosen])


def _decode(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.fixture(scope="module")
def drawn(pipelines: tuple[Any, Any], shipped_faces: np.ndarray) -> dict[str, np.ndarray]:
    """Edges of 12 faces, and samples drawn from them with two sets of seeds."""
    edges = canny(shipped_faces[::2])
    captions = [""] * len(edges)
    seeds = list(range(len(edges)))
    return {
        "edges": edges,
        "first": sample(pipelines[1], captions, seeds, edges),
        "second": sample(pipelines[1], captions, [s + 100 for s in seeds], edges),
    }


def test_loads_with_the_ordinary_classes(caplog: pytest.LogCaptureFixture) -> None:
    """The folders load with no project code, and no weight is missing or left over."""
    from diffusers import ControlNetModel, StableDiffusionControlNetPipeline

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        controlnet, info = ControlNetModel.from_pretrained(FOLDERS[1], output_loading_info=True)
        pipeline = StableDiffusionControlNetPipeline.from_pretrained(
            FOLDERS[0], controlnet=controlnet, safety_checker=None
        )
    assert not any(info.values())
    assert not [r for r in caplog.records if "newly initialized" in r.getMessage()]
    assert pipeline.vae_scale_factor == 8
    assert pipeline.unet.config.sample_size * pipeline.vae_scale_factor == 128
    assert pipeline.vae.config.scaling_factor == 1.0


def test_weights_are_small_and_half_precision() -> None:
    """All weights of the package together stay within 40 MB; the model's are fp16."""
    weights = list(ASSETS.rglob("*.safetensors"))
    assert sum(path.stat().st_size for path in weights) <= 40e6
    for path in (path for folder in FOLDERS for path in folder.rglob("*") if path.is_file()):
        if path.suffix == ".safetensors":
            assert export.stored_dtype(path) == {torch.float16}, path.name
        assert path.suffix not in {".bin", ".pt", ".ckpt", ".pkl"}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_provenance_names_these_weights(folder: Path) -> None:
    """The hashes in the provenance are those of the shipped files."""
    record = json.loads((folder / "provenance.json").read_text())
    assert record["sha256"] == export.weight_hashes(folder)
    assert {run["stage"] for run in record["runs"]} >= set(train.STAGES)


def test_autoencoder_keeps_unseen_faces(shipped_faces: np.ndarray) -> None:
    """At least 26 dB on faces of the shipped data, and latents of about unit variance."""
    autoencoder = export.load_autoencoder(ASSETS)
    assert psnr(shipped_faces, reconstruct(autoencoder, shipped_faces, CPU)).mean() >= 26
    images = torch.from_numpy(shipped_faces).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        latents = autoencoder.encode(images).latents
    assert 0.7 < latents.std() < 1.4


def test_samples_follow_their_own_edges(drawn: dict[str, np.ndarray]) -> None:
    """A conditioned sample's edges match its condition far better than another face's."""
    found = canny(drawn["first"])
    own = edge_agreement(found, drawn["edges"])[2]
    other = edge_agreement(found, np.roll(drawn["edges"], 1, 0))[2]
    assert own > 0.6
    assert own > other + 0.15


def test_seeds_change_the_sample(drawn: dict[str, np.ndarray]) -> None:
    """With the same edges, another seed gives other colours."""
    assert colour_distance(drawn["first"], drawn["second"]) > 8


def test_a_sample_does_not_depend_on_its_batch(
    pipelines: tuple[Any, Any], drawn: dict[str, np.ndarray]
) -> None:
    """One generator per image: alone, an image comes out as it did in the batch."""
    alone = sample(pipelines[1], [""], [3], drawn["edges"][3:4])
    assert np.abs(alone[0].astype(int) - drawn["first"][3]).max() <= 2


def test_prompt_guidance_and_negative_prompt_act(pipelines: tuple[Any, Any]) -> None:
    """All three change the output of the base pipeline, at its default size of 128 pixels."""

    def draw(prompt: str, **options: Any) -> np.ndarray:
        result = pipelines[0](
            prompt,
            num_inference_steps=4,
            output_type="np",
            generator=torch.Generator().manual_seed(0),
            **options,
        )
        image: np.ndarray = result.images[0]
        return image

    plain = draw("a young woman, green background", guidance_scale=3.0)
    assert plain.shape == (128, 128, 3)
    for other in (
        draw("an old man, blue background", guidance_scale=3.0),
        draw("a young woman, green background", guidance_scale=1.0),
        draw("a young woman, green background", guidance_scale=3.0, negative_prompt="red shirt"),
    ):
        assert np.abs(plain - other).mean() > 0.002


def test_held_out_identities_do_not_move() -> None:
    """More shards add identities to both parts and move none from one to the other."""
    few, many = (
        Faces(np.zeros((n, 1, 1, 3), np.uint8), np.arange(n), ("",) * n) for n in (40, 400)
    )
    before, after = (set(split_faces(faces)[1].subjects.tolist()) for faces in (few, many))
    assert before == {19, 39}
    assert before < after


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """A folder with one complete shard and one without its JSON lines."""
    rng = np.random.default_rng(0)
    for name in ("train-0000", "train-0001"):
        np.save(tmp_path / f"{name}-images.npy", rng.integers(0, 256, (4, 128, 128, 3), np.uint8))
    rows = [{"subject": i, "caption": f"a face, number {i}"} for i in range(4)]
    (tmp_path / "train-0000.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return tmp_path


def test_only_complete_shards_are_read(shards: Path) -> None:
    """A shard counts from the moment its JSON lines exist."""
    faces = load_faces(shards)
    assert len(faces) == 4
    assert faces.captions[3] == "a face, number 3"


def test_autoencoder_training_resumes(shards: Path, tmp_path: Path) -> None:
    """A run broken off after a checkpoint ends with the weights of an unbroken one."""
    settings = AutoencoderSettings(steps=3, batch=2, checkpoint_every=0.0)

    def run(folder: Path, breaks: bool) -> torch.Tensor:
        torch.manual_seed(0)
        net = models.new_autoencoder(8, 4)
        loads = iter(range(100))

        def load() -> Faces:
            if breaks and next(loads) == 2:
                raise KeyboardInterrupt
            return load_faces(shards)

        train_autoencoder(net, load, settings, folder, CPU)
        return _flat(net)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", True)
    resumed = run(tmp_path / "broken", False)
    torch.manual_seed(0)
    _assert_same_end(_flat(models.new_autoencoder(8, 4)), resumed, run(tmp_path / "whole", False))


def test_diffusion_training_resumes(tmp_path: Path) -> None:
    """The same for the second stage; the loss falls into place through all nets."""
    settings = DiffusionSettings(steps=3, batch=5, checkpoint_every=0.0)
    tokenizer = models.train_tokenizer(["a face", "another face"])
    data = LatentFaces(
        torch.randn(2, 6, models.LATENT_CHANNELS, 16, 16),
        {"canny": torch.randint(0, 2, (6, 128, 128), dtype=torch.uint8) * 255},
        models.token_ids(tokenizer, ["a face"] * 6),
    )
    common = models.token_ids(tokenizer, models.COMMON_CAPTIONS)

    def run(folder: Path, breaks: bool) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        torch.manual_seed(0)
        unet = models.new_unet((16, 32, 32))
        guides = {
            "canny": models.new_controlnet(unet, (4, 4, 8, 8)),
            "t2i-canny": models.new_adapter(unet),
        }
        nets = Nets(unet, models.new_text_encoder(tokenizer), guides)
        before = [_flat(net) for net in nets.named().values()]

        def stop(progress: Progress) -> None:
            if breaks and progress.step == 2:
                raise KeyboardInterrupt

        scheduler = models.new_scheduler()
        train_diffusion(
            nets, scheduler, common, lambda _: data, settings, folder, CPU, on_checkpoint=stop
        )
        for net, old in zip(nets.named().values(), before, strict=True):
            yield old, _flat(net)

    with pytest.raises(KeyboardInterrupt):
        list(run(tmp_path / "broken", True))
    pairs = zip(run(tmp_path / "broken", False), run(tmp_path / "whole", False), strict=True)
    for (start, resumed), (_, whole) in pairs:
        _assert_same_end(start, resumed, whole)


def _assert_same_end(start: torch.Tensor, resumed: torch.Tensor, whole: torch.Tensor) -> None:
    """The two runs differ by far less than either moved.

    Not to the last bit: restored moments lie otherwise in memory, sums round otherwise, and
    Adam turns a gradient of about nothing into a full step either way.
    """
    moved = (whole - start).norm()
    assert moved > 0
    assert (resumed - whole).norm() < 0.1 * moved


def _flat(net: Any) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in net.parameters()])
