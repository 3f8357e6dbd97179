"""`privbench time`, models with random weights, and how work is fitted into memory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch

import tiny_models
from privbench.api import make_study, plan_study
from privbench.cli import main
from privbench.errors import ConfigError, ModelError, PrivbenchError, RecordError
from privbench.measure import time_anonymizers
from privbench.registry import Registered, Registry, load_registry
from privbench.spec import NoConfig, PluginSpec, Tags
from privbench.timing_record import TimingRecord, read_timing
from privbench.types import ImageBatch, ImageSet
from privbench_plugins.anonymizers._ldm import random_configs, random_models
from privbench_plugins.anonymizers._ldm.anonymizer import LatentAnonymizer
from privbench_plugins.anonymizers._ldm.folders import find_controlnet, find_pipeline
from privbench_plugins.anonymizers._ldm.loading import load_diffuser
from privbench_plugins.anonymizers._ldm.memory import Fit, in_pieces
from privbench_plugins.anonymizers.ldm import LdmConfig, build_unconditional

CPU = torch.device("cpu")
GREY_LEVEL = 1 / 255

PUBLISHED = {
    ("random:sd15", "unet"): 859_520_964,
    ("random:sd15", "controlnet"): 361_279_120,
    ("random:sd15", "vae"): 83_653_863,
    ("random:sd15", "text_encoder"): 123_060_480,
    ("random:sd15", "t2i"): 77_000_640,
    ("random:sdxl", "unet"): 2_567_463_684,
    ("random:sdxl", "controlnet"): 1_251_014_160,
    ("random:sdxl", "vae"): 83_653_863,
    ("random:sdxl", "text_encoder_2"): 694_659_840,
    ("random:sdxl", "t2i"): 79_028_160,
}
"""Parameters of the published checkpoints."""


# --- the true architecture -------------------------------------------------------------------


@pytest.mark.parametrize("part", PUBLISHED, ids=lambda p: "-".join(p))
def test_architectures_are_the_published_ones(part: tuple[str, str]) -> None:
    """To the parameter, and without a byte of memory for them."""
    made = random_models.network(*part)
    assert sum(weight.numel() for weight in made.parameters()) == PUBLISHED[part]
    assert all(weight.is_meta for weight in made.parameters())


def test_the_page_has_these_numbers() -> None:
    """docs/timing.md and the code agree."""
    page = (Path(__file__).parents[1] / "docs" / "timing.md").read_text(encoding="utf-8")
    for (name, part), count in PUBLISHED.items():
        row = next(line for line in page.splitlines() if line.startswith(f"| `{name}`"))
        assert f"{count:,}" in row, (name, part)


@pytest.mark.parametrize(("name", "side"), [("random:sd15", 512), ("random:sdxl", 1024)])
def test_a_random_pipeline_needs_no_files(name: str, side: int) -> None:
    """It has the family's own resolution, another is checked like any model's, and each part's
    digest says that its weights are random."""
    found = find_pipeline(name)
    assert (found.resolution, found.factor, found.xl) == (side, 8, name.endswith("xl"))
    control = find_controlnet("tiny-faces-canny", pipeline=found)
    digests = found.digest() | control.digest()
    assert {"unet", "vae", "text_encoder", "scheduler", "controlnet"} <= set(digests)
    for value in digests.values():
        family, sha = value.rsplit(":", 1)
        assert family == name
        assert len(sha) == 64
    assert find_pipeline(name, resolution=256).resolution == 256
    with pytest.raises(ModelError, match="divisible by 8"):
        find_pipeline(name, resolution=250)


def test_an_unknown_family_is_named() -> None:
    """A typo gets the nearest name."""
    with pytest.raises(ModelError, match="Did you mean random:sd15"):
        find_pipeline("random:sd51")


@pytest.mark.parametrize("plugin", ["ldm-unconditional", "controlnet-canny"])
@pytest.mark.parametrize("name", ["random:sd15", "random:sdxl"])
def test_a_run_refuses_random_weights(plugin: str, name: str) -> None:
    """When it is planned, before anything is built; nothing about privacy comes of them."""
    study = make_study(
        [plugin], ["random-guess"], protocol="smoke", settings=[f"{plugin}.model={name}"]
    )
    with pytest.raises(ConfigError, match="random weights, which is for timing only"):
        plan_study(study)


def small(xl: bool) -> random_configs.Family:
    """A family of the same make with small numbers."""
    full = random_configs.FAMILIES["sdxl" if xl else "sd15"]
    hidden = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
              "num_attention_heads": 2, "projection_dim": 32, "vocab_size": 99}  # fmt: skip
    widths = (32, 32, 32) if xl else (32, 32, 32, 32)
    changes: dict[str, Any] = {
        "vae": {"block_out_channels": (32,) * 4, "layers_per_block": 1},
        "text_encoder": hidden,
        "text_encoder_2": hidden,
    }
    for net in ("unet", "controlnet"):
        changes[net] = {"block_out_channels": widths, "cross_attention_dim": 64 if xl else 32,
                        "layers_per_block": 1, "attention_head_dim": 8}  # fmt: skip
        if xl:
            changes[net]["transformer_layers_per_block"] = 1
            changes[net]["projection_class_embeddings_input_dim"] = 32 + 6 * 256
    changes["unet"]["sample_size"] = 8

    def reduced(parts: Any) -> dict[str, tuple[str, Any]]:
        return {k: (kind, {**old, **changes.get(k, {})}) for k, (kind, old) in parts.items()}

    return replace(full, parts=reduced(full.parts), extras=reduced(full.extras))


@pytest.fixture
def reduced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both families, small."""
    for name in ("sd15", "sdxl"):
        monkeypatch.setitem(random_configs.FAMILIES, name, small(name == "sdxl"))


@pytest.mark.usefixtures("reduced")
@pytest.mark.parametrize("name", ["random:sd15", "random:sdxl"])
def test_random_weights_are_made_in_their_final_type(name: str) -> None:
    """On `to`, in the number type asked for; finite, of order one, the same at every call. In
    float16 only SDXL's autoencoder stays in float32, as in its pipelines."""
    found = find_pipeline(name)
    first, second = (load_diffuser(found, "", "", True, "keep") for _ in range(2))
    assert first.unet.device.type == "meta"
    assert first.text.hidden.shape == (2, 77, first.unet.config.cross_attention_dim)
    assert first.text.hidden.isfinite().all()
    first, second = (made.to(CPU, torch.float16) for made in (first, second))
    assert {w.dtype for w in first.unet.parameters()} == {torch.float16}
    assert {w.dtype for w in first.vae.parameters()} == {
        torch.float32 if found.xl else torch.float16
    }
    for mine, other in zip(first.unet.parameters(), second.unet.parameters(), strict=True):
        assert torch.equal(mine, other)
        assert mine.isfinite().all()
    conv = first.unet.conv_in.weight
    assert 0.7 < float(conv.float().std()) * (4 * 3 * 3) ** 0.5 < 1.3


@pytest.mark.usefixtures("reduced")
def test_a_random_model_reads_no_prompts_of_images() -> None:
    """There is no vocabulary, and the error says what to time instead."""
    with pytest.raises(ModelError, match="Time ldm-unconditional"):
        load_diffuser(find_pipeline("random:sd15"), "", "", False, "keep", writes=True)


@pytest.mark.usefixtures("reduced")
def test_a_random_model_must_be_moved_first() -> None:
    """Built and used without a device, it says what is missing."""
    made = build_unconditional(LdmConfig(model="random:sd15", steps=1, batch_size=1))
    with pytest.raises(ModelError, match=r"call `\.to\(device\)` first"):
        made.anonymize(images(1), [0])


@pytest.mark.usefixtures("reduced")
@pytest.mark.parametrize("plugin", ["ldm-unconditional", "controlnet-canny"])
@pytest.mark.parametrize("name", ["random:sd15", "random:sdxl"])
def test_random_models_are_timed_and_say_so(
    plugin: str, name: str, faces: Path, tmp_path: Path
) -> None:
    """From the id to the record: images at the model's size, `timing-only`, random digests."""
    (record,) = timed(
        plugin, faces, tmp_path, f"model={name}", "steps=2", "guidance_scale=2", batch=[2], images=3
    )
    assert record.label == "timing-only"
    assert record.images == 4
    assert record.timing["resolution"] == [64, 64]
    assert all(value.startswith(name) for value in record.anonymizer.weights.values())


# --- privbench time --------------------------------------------------------------------------


def timed(
    plugin: str, faces: Path, folder: Path, *settings: str, **options: Any
) -> list[TimingRecord]:
    """Records of one anonymizer on the test faces."""
    path = f"synthfaces.path={faces}"
    options = {"records": str(folder / "timings")} | options
    return list(time_anonymizers([plugin], settings=[path, *settings], **options))


def test_each_batch_size_has_a_record(faces: Path, tmp_path: Path) -> None:
    """All samples are kept, the file holds the record, and a round trip changes nothing."""
    made = timed("pixelate", faces, tmp_path, batch=[4, 16], images=20, warmup=2)
    assert [r.timing["batch_size"] for r in made] == [4, 16]
    assert [len(r.timing["seconds"]) for r in made] == [2 + 5, 2 + 2]
    assert [r.images for r in made] == [20, 32]
    for record in made:
        assert record.label == "measured"
        assert record.timing["summary"]["samples"] == len(record.timing["seconds"]) - 2
        assert record.timing["peak_bytes"] > 0
        assert record.timing["device"]["threads"]
        assert read_timing(tmp_path / "timings" / f"{record.name}.json") == record


def test_five_batches_by_default(faces: Path, tmp_path: Path) -> None:
    """Of the anonymizer's own batch; the data set is used again where it is too small."""
    (record,) = timed("none", faces, tmp_path)
    assert record.timing["images"] == [64] * 6
    assert record.images == 5 * 64


def test_records_of_other_kinds_are_refused(faces: Path, tmp_path: Path) -> None:
    """Another schema version, and a file that is no timing record."""
    (record,) = timed("none", faces, tmp_path, images=1)
    path = tmp_path / "timings" / f"{record.name}.json"
    body = json.loads(path.read_text())
    path.write_text(json.dumps(body | {"schema_version": 99}))
    with pytest.raises(RecordError, match="schema 99"):
        read_timing(path)
    path.write_text(json.dumps(body | {"estimates": {}}))
    with pytest.raises(RecordError, match="not a timing record"):
        read_timing(path)


@pytest.mark.parametrize(
    ("settings", "options", "message"),
    [
        ([], {"images": 0}, "images must be 1 or more"),
        ([], {"warmup": 0}, "warmup must be 1 or more"),
        ([], {"batch": [4, 0]}, "batch size must be 1 or more"),
        ([], {"device": "gpu"}, "no device 'gpu'"),
        (["cell=3"], {}, "Did you mean cells"),
        ([], {"dataset": "synthface"}, "Did you mean synthfaces"),
    ],
)
def test_bad_requests_are_explained(
    settings: list[str], options: dict[str, Any], message: str
) -> None:
    """Before anything is timed."""
    with pytest.raises(PrivbenchError, match=message):
        time_anonymizers(["pixelate"], settings=settings, records=None, **options)
    with pytest.raises(ConfigError, match="not both"):
        time_anonymizers(["ldm-unconditional"], settings=["batch_size=3"], batch=[4])
    with pytest.raises(ConfigError, match="Say what to time"):
        time_anonymizers([])


def test_the_command_prints_and_writes(
    faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A row for each anonymizer and batch size, the device, and the paths of the records."""
    with pytest.raises(SystemExit) as stop:
        main(["time", "pixelate", "none", "--batch", "2", "4", "--images", "4", "--set",
              f"synthfaces.path={faces}", "--records", str(tmp_path), "--in-process"])  # fmt: skip
    out, err = capsys.readouterr()
    assert stop.value.code == 0
    assert sum(line.strip().startswith(("pixelate ", "none ")) for line in out.splitlines()) == 4
    assert "images/s" in out
    assert "threads" in out
    assert "pixelate: timing" in err
    paths = [Path(line) for line in out.splitlines() if line.endswith(".json")]
    assert len(paths) == 4
    assert all(read_timing(path).label == "measured" for path in paths)


@dataclass
class Shift:
    """Adds the mean of what it was fitted on."""

    mean: float | None = None
    seen: int = 0

    def fit(self, reference: ImageSet) -> Shift:
        """A fitted one."""
        fitted.append(len(reference))
        return Shift(float(reference.floats().mean()), len(reference))

    def anonymize(self, batch: ImageBatch, seeds: Sequence[int]) -> torch.Tensor:
        """Fails unless fitted."""
        assert self.mean is not None, "must be fitted first"
        assert (batch.subject == -1).all(), "the subject is withheld"
        return (batch.pixels + self.mean) / 2


fitted: list[int] = []


def build_shift(config: NoConfig) -> Shift:
    """Build."""
    return Shift()


@pytest.mark.parametrize(("on", "seen"), [("background", 12), ("release", 9)])
def test_what_must_be_fitted_is_fitted_as_in_a_run(on: Any, seen: int, faces: Path) -> None:
    """On the protocol's background, or on the very images that it is timed on."""
    spec = PluginSpec("anonymizer", "shift", 1, "s", build_shift, tags=Tags(fit_on=on))
    known = {**load_registry().plugins, ("anonymizer", "shift"): Registered(spec, "tests 0")}
    fitted.clear()
    (record,) = time_anonymizers(
        ["shift"], settings=[f"synthfaces.path={faces}"], batch=[3], images=6, protocol="smoke",
        records=None, registry=Registry(MappingProxyType(known), MappingProxyType({})),
    )  # fmt: skip
    assert fitted == [seen]
    assert record.fit_seconds is not None
    assert record.fit_seconds > 0


# --- memory ----------------------------------------------------------------------------------


def images(n: int, side: int = tiny_models.RESOLUTION) -> ImageBatch:
    """n images of noise."""
    import numpy as np

    pixels = torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(1))
    return ImageBatch(pixels, np.full(n, -1), tuple(str(i) for i in range(n)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Stable Diffusion."""
    return tiny_models.save(tmp_path_factory.mktemp("model"), "kl")[0]


@pytest.fixture
def made(folder: Path) -> LatentAnonymizer:
    """An anonymizer that takes 8 images at once."""
    made = build_unconditional(LdmConfig(model=str(folder), steps=2, batch_size=8))
    assert isinstance(made, LatentAnonymizer)
    return made


def cramp(module: Any, method: str, limit: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let a method run out of memory above `limit` rows; returns the rows it was asked for."""
    real, asked = getattr(module, method), []

    def cramped(rows: torch.Tensor, *args: Any, **options: Any) -> Any:
        asked.append(len(rows))
        if len(rows) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(rows, *args, **options)

    monkeypatch.setattr(module, method, cramped)
    return asked


def test_a_network_that_runs_out_of_memory(
    made: LatentAnonymizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch is halved until it fits and stays so; each image keeps its own result."""
    seeds = [11, 12, 13, 14, 15, 16, 17]
    expected = made.anonymize(images(7), seeds)
    asked = cramp(made._model.unet, "forward", 3, monkeypatch)
    assert (made.anonymize(images(7), seeds) - expected).abs().max() <= GREY_LEVEL
    assert asked[:2] == [8, 4]
    assert set(asked[2:]) == {2}
    assert made.batch_size == 2
    assert made.to("cpu").batch_size == 2, "it is remembered where the object moves"
    assert made._denoised.on(torch.device("cuda:1")) == 8, "and for that device alone"


def test_an_autoencoder_that_runs_out_of_memory(
    made: LatentAnonymizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its slices are halved and nothing else; denoising is not done again."""
    seeds = list(range(7))
    expected = made.anonymize(images(7), seeds)
    steps = cramp(made._model.unet, "forward", 8, monkeypatch)
    asked = cramp(made._model.vae, "decode", 3, monkeypatch)
    assert (made.anonymize(images(7), seeds) - expected).abs().max() <= GREY_LEVEL
    assert asked == [8, 4, 2, 2, 2, 2]
    assert steps == [8, 8]
    assert made.batch_size == 8


def test_an_autoencoder_that_cannot_decode_one_image(
    made: LatentAnonymizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A smaller batch leaves it more room; when that does not help either, the error says so."""
    cramp(made._model.vae, "decode", 0, monkeypatch)
    with pytest.raises(ModelError, match="does not fit into the memory"):
        made.anonymize(images(2), [1, 2])


def test_pieces() -> None:
    """In order, none twice; other errors pass; every allocator's way of saying it counts."""
    words = iter(
        ["CUBLAS_STATUS_ALLOC_FAILED when calling", "DefaultCPUAllocator: can't allocate memory"]
    )

    def compute(start: int, size: int) -> torch.Tensor:
        if size > 2:
            raise RuntimeError(next(words))
        return torch.arange(start, min(start + size, 7))

    fit = Fit(8)
    assert in_pieces(7, fit, CPU, compute).tolist() == list(range(7))
    assert fit.on(CPU) == 2

    def broken(start: int, size: int) -> torch.Tensor:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        in_pieces(1, fit, CPU, broken)


def test_the_record_says_what_really_ran(
    folder: Path, faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where memory ran out, the timing names the smaller number of images beside the batch."""
    real = LatentAnonymizer._samples

    def cramped(self: LatentAnonymizer, *args: Any) -> torch.Tensor:
        if args[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, *args)

    monkeypatch.setattr(LatentAnonymizer, "_samples", cramped)
    (record,) = timed(
        "ldm-unconditional", faces, tmp_path, f"model={folder}", "steps=1", batch=[8], images=8
    )
    assert (record.timing["batch_size"], record.timing["at_once"]) == (8, 2)


@pytest.mark.study
@pytest.mark.timeout(900)
def test_compiled_networks_agree(folder: Path) -> None:
    """`compile=true` changes the speed and nothing else."""
    plain, compiled = (
        build_unconditional(LdmConfig(model=str(folder), steps=2, batch_size=2, compile=flag))
        for flag in (False, True)
    )
    expected = plain.anonymize(images(2), [1, 2])
    assert (compiled.anonymize(images(2), [1, 2]) - expected).abs().max() <= GREY_LEVEL
