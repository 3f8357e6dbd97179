"""`ldm-finetune`: training, what is kept of it, and what can be asked of the result."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from pydantic import ValidationError

import latent_kit
import tiny_models
from privbench.errors import DataError, ModelError
from privbench.membership import Checkpoint, Training
from privbench.progress import Silent
from privbench.spec import RANDOM
from privbench.types import UNKNOWN, ImageSet, quantize
from privbench_plugins.anonymizers import finetune
from privbench_plugins.anonymizers._finetune import training as training_module
from privbench_plugins.anonymizers._finetune.denoiser import as_noise
from privbench_plugins.anonymizers._finetune.lessons import captions_of, prepare
from privbench_plugins.anonymizers._finetune.networks import add_lora, load
from privbench_plugins.anonymizers._finetune.target import LatentTarget
from privbench_plugins.anonymizers._finetune.training import FineTuner
from privbench_plugins.anonymizers.finetune import LdmFinetuneConfig
from privbench_plugins.models import resolve

CPU = torch.device("cpu")
SIDE = latent_kit.SIDE
METHODS = ("full", "lora")
KINDS = ("epsilon", "v_prediction", "sample")

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Models of the classes of Stable Diffusion 1.5 by what they predict, and an SDXL."""
    root = tmp_path_factory.mktemp("models")
    for kind in KINDS:
        pipe = tiny_models.pipeline("kl", **tiny_models.ATTENTION_FIRST)
        pipe.register_modules(
            scheduler=diffusers.PNDMScheduler(
                beta_start=0.00085,
                beta_end=0.012,
                beta_schedule="scaled_linear",
                skip_prk_steps=True,
                steps_offset=1,
                prediction_type=kind,
            )
            if kind == "epsilon"
            else diffusers.DDIMScheduler.from_config(
                pipe.scheduler.config, prediction_type=kind, rescale_betas_zero_snr=True
            )
        )
        pipe.save_pretrained(root / kind)
    tiny_models.pipeline("kl", xl=True).save_pretrained(root / "xl")
    return {name: root / name for name in (*KINDS, "xl")}


@pytest.fixture
def images() -> ImageSet:
    """Twelve images of 32 pixels."""
    pixels = quantize(latent_kit.sources(12))
    return ImageSet(pixels, np.arange(12), tuple(f"p{i}" for i in range(12)))


def config(folder: Path | str, **options: Any) -> LdmFinetuneConfig:
    """Three epochs of three steps on a small model."""
    settings: dict[str, Any] = {
        "pretrained": str(folder),
        "epochs": 3,
        "batch": 5,
        "caption": "a photo",
        "prompt": "a photo",
        "steps": 3,
        "batch_size": 4,
    }
    return LdmFinetuneConfig(**(settings | options))


class Killed(BaseException):
    """The process ends here."""


def fit(
    settings: LdmFinetuneConfig,
    images: ImageSet,
    start: Checkpoint | None = None,
    kill_after: int = 0,
    seed: int = 3,
) -> list[Checkpoint]:
    """What a training keeps, until it ends or is killed after an epoch."""
    kept: list[Checkpoint] = []

    def keep(checkpoint: Checkpoint) -> None:
        kept.append(checkpoint)
        if checkpoint.epoch == kill_after:
            raise Killed

    with suppress(Killed):
        finetune.build(settings).fit(images, Training(seed, CPU, Silent(), start, keep))
    return kept


def restore(settings: LdmFinetuneConfig, checkpoint: Checkpoint | None = None) -> LatentTarget:
    """The model of a checkpoint, or that of the settings alone."""
    made = finetune.build(settings).restore(checkpoint.weights if checkpoint else {}, CPU)
    assert isinstance(made, LatentTarget)
    return made


def pipeline(folder: Path, checkpoint: Checkpoint | None = None) -> Any:
    """diffusers' own pipeline, with the weights of a checkpoint of full fine-tuning."""
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    if checkpoint:
        state = {name: torch.from_numpy(array) for name, array in checkpoint.weights.items()}
        pipe.unet.load_state_dict(state)
    return pipe


def words(pipe: Any, prompt: str) -> torch.Tensor:
    """(1, L, D) of a prompt."""
    embedded: torch.Tensor = pipe.encode_prompt(prompt, CPU, 1, False)[0]
    return embedded.detach()


def error(target: LatentTarget, images: ImageSet) -> float:
    """Mean squared error of the predicted noise in given noisy images."""
    denoiser = target.denoiser()
    latents = denoiser.encode(images.pixels)
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    levels = torch.arange(len(images)) * 70 + 100
    alphas = torch.from_numpy(denoiser.alphas)[levels].float().view(-1, 1, 1, 1)
    noisy = alphas.sqrt() * latents + (1 - alphas).sqrt() * noise
    return float(F.mse_loss(denoiser.predict(noisy, levels), noise))


# Training


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", KINDS)
def test_training_images_are_denoised_better_than_before(
    folders: dict[str, Path], images: ImageSet, method: str, kind: str
) -> None:
    """By either method, whatever the model predicts, and the reported loss falls."""
    settings = config(
        folders[kind], method=method, epochs=30, learning_rate=2e-2, unconditional=0.0
    )
    (last,) = fit(settings, images)
    assert error(restore(settings, last), images) < 0.98 * error(restore(settings.base()), images)
    losses = last.report["loss"]
    assert len(losses) == 30
    assert np.mean(losses[-8:]) < np.mean(losses[:8])
    assert last.report["images"] == 12
    assert last.report["images_per_second"] > 0


@pytest.mark.parametrize(("method", "rate"), [("full", 1e-3), ("lora", 1e-2)])
def test_the_embedded_model_learns_its_images(method: str, rate: float) -> None:
    """`tiny-faces`, whose model and autoencoder are of other kinds."""
    pixels = quantize(latent_kit.sources(8, 128))
    images = ImageSet(pixels, np.arange(8), tuple("abcdefgh"))
    settings = LdmFinetuneConfig(method=method, epochs=12, batch=8, learning_rate=rate)
    (last,) = fit(settings, images)
    assert error(restore(settings, last), images) < 0.8 * error(restore(settings.base()), images)


@pytest.mark.parametrize("method", METHODS)
def test_a_killed_training_ends_with_the_same_bits(
    folders: dict[str, Path], images: ImageSet, method: str
) -> None:
    """Weights and losses; the optimiser's memory and every random number are taken up."""
    settings = config(folders["epsilon"], method=method, keep=(1, 2))
    whole = fit(settings, images)
    killed = fit(settings, images, kill_after=2)
    resumed = fit(settings, images, start=killed[-1])
    assert [c.epoch for c in whole] == [1, 2, 3]
    assert [c.epoch for c in (*killed, *resumed)] == [1, 2, 3]
    for one, other in zip(whole, (*killed, *resumed), strict=True):
        assert one.report["loss"] == other.report["loss"]
        for arrays, same in ((one.weights, other.weights), (one.resume, other.resume)):
            assert arrays.keys() == same.keys()
            assert all(np.array_equal(arrays[name], same[name]) for name in arrays)


def test_the_optimisers_memory_matters(folders: dict[str, Path], images: ImageSet) -> None:
    """A resumed training that had forgotten it would end elsewhere: the test above can fail."""
    settings = config(folders["epsilon"], keep=(2,))
    first, last = fit(settings, images)
    forgetful = {
        name: np.zeros_like(array) if "exp_avg" in name else array
        for name, array in first.resume.items()
    }
    start = Checkpoint(first.epoch, first.weights, forgetful, first.report)
    (other,) = fit(settings, images, start=start)
    assert any(not np.array_equal(last.weights[n], other.weights[n]) for n in last.weights)


def test_what_is_released_is_kept_and_the_rest_now_and_then(
    folders: dict[str, Path], images: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The epochs of `keep`, the last, and between them as time passes."""
    settings = config(folders["epsilon"], epochs=4, keep=(2,))
    kept = fit(settings, images)
    assert [(c.epoch, bool(c.resume)) for c in kept] == [(2, True), (4, False)]
    assert any(not np.array_equal(kept[0].weights[n], kept[1].weights[n]) for n in kept[0].weights)
    monkeypatch.setattr(training_module, "SECONDS", 0.0)
    monkeypatch.setattr(training_module, "_SAVING", 1e9)
    assert [c.epoch for c in fit(settings, images)] == [1, 2, 3, 4]


def test_another_seed_is_another_training(folders: dict[str, Path], images: ImageSet) -> None:
    """The same seed is the same one."""
    settings = config(folders["epsilon"], epochs=1)
    one, same, other = (fit(settings, images, seed=seed)[0] for seed in (1, 1, 2))
    name = "conv_in.weight"
    assert np.array_equal(one.weights[name], same.weights[name])
    assert not np.array_equal(one.weights[name], other.weights[name])


def test_lora_adds_its_product_to_the_projections_and_nothing_else(
    folders: dict[str, Path], images: ImageSet
) -> None:
    """The rest of the base is untouched, and only LoRA's matrices are kept."""
    settings = config(folders["epsilon"], method="lora", rank=2, learning_rate=1e-2)
    (last,) = fit(settings, images)
    before = pipeline(folders["epsilon"]).unet.state_dict()
    after = restore(settings, last)._exact.unet.state_dict()
    downs = {n.partition(".lora_A")[0]: last.weights[n] for n in last.weights if ".lora_A" in n}
    assert len(last.weights) == 2 * len(downs)
    assert set(after) == set(before)
    changed = {n for n in after if not torch.equal(after[n], before[n])}
    assert changed == {f"{name}.weight" for name in downs}
    for name, down in downs.items():
        up = last.weights[f"{name}.lora_B.default.weight"]
        assert down.shape[0] == up.shape[1] == 2
        added = (after[f"{name}.weight"] - before[f"{name}.weight"]).numpy()
        np.testing.assert_allclose(added, up @ down, atol=1e-6)


def tuner_of(settings: LdmFinetuneConfig, images: ImageSet) -> FineTuner:
    """A training that has not begun."""
    model = load(settings, guided=True)
    if settings.method == "lora":
        add_lora(model.unet, settings.rank, 0)
    model = model.to(CPU, torch.float32)
    lessons = prepare(settings, model, images)
    return FineTuner(settings, model.unet, model.scheduler, lessons, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_that_of_diffusers(
    folders: dict[str, Path], images: ImageSet, kind: str
) -> None:
    """Computed with a pipeline's own parts and a DDPM scheduler, dropped captions included."""
    tuner = tuner_of(config(folders[kind], unconditional=0.5), images)
    batch = tuner.batch(0, torch.arange(8))
    pipe = pipeline(folders[kind])
    schedule = diffusers.DDPMScheduler.from_config(pipe.scheduler.config)
    dropped = batch.caption == 1
    assert 0 < int(dropped.sum()) < 8
    with torch.no_grad():
        pixels = images.floats(slice(8)) * 2 - 1
        latents = pipe.vae.encode(pixels).latent_dist.mode() * pipe.vae.config.scaling_factor
        text = torch.where(dropped.view(-1, 1, 1), words(pipe, ""), words(pipe, "a photo"))
        noisy = schedule.add_noise(latents, batch.noise, batch.times)
        predicted = pipe.unet(noisy, batch.times, text).sample
        target = {
            "epsilon": batch.noise,
            "v_prediction": schedule.get_velocity(latents, batch.noise, batch.times),
            "sample": latents,
        }[kind]
        loss = float(tuner.loss(batch))
    assert loss == pytest.approx(float(F.mse_loss(predicted, target)), rel=1e-4)


def test_every_image_is_seen_once_an_epoch(folders: dict[str, Path], images: ImageSet) -> None:
    """In an order and at noise levels that change from epoch to epoch."""
    tuner = tuner_of(config(folders["epsilon"]), images)
    seen: list[int] = []
    step, draw = tuner.step, tuner.batch

    def watched(number: int, rows: torch.Tensor) -> Any:
        seen.extend(rows.tolist())
        return draw(number, rows)

    tuner.batch, tuner.step = watched, step  # type: ignore[method-assign]
    done: list[int] = []
    tuner.epoch(done.append)
    tuner.epoch(done.append)
    assert done == [5, 5, 2] * 2
    assert sorted(seen[:12]) == sorted(seen[12:]) == list(range(12))
    assert seen[:12] != seen[12:]


def test_a_share_of_the_captions_is_dropped(folders: dict[str, Path], images: ImageSet) -> None:
    """As many as asked for, within the chance of 600 draws."""
    tuner = tuner_of(config(folders["epsilon"], unconditional=0.3), images)
    rows = torch.arange(12).repeat(50)
    share = float((tuner.batch(0, rows).caption == 1).float().mean())
    assert share == pytest.approx(0.3, abs=0.06)
    none = tuner_of(config(folders["epsilon"], unconditional=0.0), images)
    assert int((none.batch(0, rows).caption == 1).sum()) == 0


def test_captions_are_the_captioners_words(images: ImageSet) -> None:
    """{caption} stands for them; without it every image has the same caption."""
    pixels = quantize(latent_kit.sources(3, 128))
    three = ImageSet(pixels, np.arange(3), ("a", "b", "c"))
    plain = captions_of(LdmFinetuneConfig(caption="{caption}"), three)
    framed = captions_of(LdmFinetuneConfig(caption="a badge of {caption}."), three)
    assert framed == [f"a badge of {caption}." for caption in plain]
    assert all(plain)
    assert captions_of(LdmFinetuneConfig(caption="a badge"), three) == ["a badge"] * 3


def test_captions_that_are_cut_are_counted_and_told(
    folders: dict[str, Path], images: ImageSet
) -> None:
    """Their last words never reach the model."""
    notes: list[str] = []

    class Notes(Silent):
        def note(self, text: str) -> None:
            notes.append(text)

    kept: list[Checkpoint] = []
    settings = config(folders["epsilon"], epochs=1, caption="a photo " * 12)
    finetune.build(settings).fit(images, Training(0, CPU, Notes(), None, kept.append))
    assert kept[0].report["captions_cut"] == 12
    assert notes[0].startswith("12 of 12 captions")
    assert fit(config(folders["epsilon"], epochs=1), images)[0].report["captions_cut"] == 0


def test_sdxl_is_trained_with_its_further_text_inputs(
    folders: dict[str, Path], images: ImageSet
) -> None:
    """And sampled, and asked for noise."""
    settings = config(folders["xl"], method="lora", epochs=1, learning_rate=1e-2)
    (last,) = fit(settings, images)
    target = restore(settings, last)
    assert target.sample([1, 2], (SIDE, SIDE)).shape == (2, 3, SIDE, SIDE)
    assert np.isfinite(error(target, images))


def test_a_training_that_diverges_says_so(folders: dict[str, Path], images: ImageSet) -> None:
    """Rather than releasing noise."""
    tuner = tuner_of(config(folders["epsilon"], learning_rate=1.0), images)
    with torch.no_grad():
        next(tuner._unet.parameters()).fill_(float("inf"))
    with pytest.raises(ModelError, match=r"diverged in epoch 1.*Lower learning_rate="):
        tuner.epoch(lambda n: None)


def test_weights_of_another_model_are_refused(folders: dict[str, Path], images: ImageSet) -> None:
    """By name."""
    (last,) = fit(config(folders["epsilon"], epochs=1), images)
    lora = config(folders["epsilon"], method="lora")
    with pytest.raises(ModelError, match="another model or method"):
        restore(lora, last)


def test_lora_without_peft_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an extra."""
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ModelError, match=r"privbench\[lora\]"):
        add_lora(tiny_models.unet(), rank=2, seed=0)


# The model under attack


@pytest.mark.parametrize("guidance", [0.0, 4.0])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_samples_are_those_of_the_pipeline(
    folders: dict[str, Path], images: ImageSet, kind: str, guidance: float
) -> None:
    """diffusers' StableDiffusionPipeline with the fine-tuned UNet and the same noise."""
    settings = config(folders[kind], learning_rate=1e-2, guidance_scale=guidance)
    (last,) = fit(settings, images)
    seeds = [5, 2**63 - 1, 0]
    made = restore(settings, last).sample(seeds, (SIDE, SIDE))
    shape = (4, SIDE // 4, SIDE // 4)
    noise = torch.stack(
        [torch.randn(shape, generator=torch.Generator().manual_seed(s)) for s in seeds]
    )
    expected = pipeline(folders[kind], last)(
        ["a photo"] * 3,
        num_inference_steps=3,
        guidance_scale=guidance,
        latents=noise,
        output_type="pt",
    ).images
    torch.testing.assert_close(made, expected, atol=2e-4, rtol=0)


def test_an_image_depends_on_its_seed_and_prompt_alone(folders: dict[str, Path]) -> None:
    """Not on the others, their number or their order; bit for bit."""
    target = restore(config(folders["v_prediction"]))
    prompts = ["a photo", "a smiling person", "a photo", "person", "a", "photo"]
    seeds = [1, 2, 3, 4, 5, 6]
    together = target.sample(seeds, (SIDE, SIDE), prompts)
    backwards = target.sample(seeds[::-1], (SIDE, SIDE), prompts[::-1])
    assert torch.equal(backwards.flip(0), together)
    for i in (0, 4, 5):
        assert torch.equal(target.sample([seeds[i]], (SIDE, SIDE), [prompts[i]])[0], together[i])
    assert not torch.equal(together[0], target.sample([1], (SIDE, SIDE), ["person"])[0])
    assert target.sample([], (SIDE, SIDE)).shape == (0, 3, SIDE, SIDE)
    with pytest.raises(ValueError, match="one per seed"):
        target.sample([1, 2], (SIDE, SIDE), ["a"])


def test_no_prompt_is_the_prompt_of_the_release(folders: dict[str, Path]) -> None:
    """And samples come in the size that is asked for."""
    target = restore(config(folders["epsilon"], prompt="a smiling person"))
    plain = target.sample([7], (24, 40))
    assert plain.shape == (1, 3, 24, 40)
    assert torch.equal(plain, target.sample([7], (24, 40), ["a smiling person"]))
    assert 0 <= float(plain.min()) <= float(plain.max()) <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_predicted_noise_is_that_of_the_unet(
    folders: dict[str, Path], images: ImageSet, kind: str
) -> None:
    """diffusers' UNet called directly, through the image that its prediction amounts to."""
    settings = config(folders[kind], learning_rate=1e-2)
    (last,) = fit(settings, images)
    denoiser = restore(settings, last).denoiser()
    pipe = pipeline(folders[kind], last)
    schedule = diffusers.DDPMScheduler.from_config(pipe.scheduler.config)
    np.testing.assert_allclose(denoiser.alphas, schedule.alphas_cumprod.numpy(), atol=1e-7)
    assert (np.diff(denoiser.alphas) < 0).all()
    with torch.no_grad():
        latents = pipe.vae.encode(images.floats(slice(6)) * 2 - 1).latent_dist.mode()
        latents = latents * pipe.vae.config.scaling_factor
        torch.testing.assert_close(
            denoiser.encode(images.pixels[:6]), latents, atol=1e-5, rtol=1e-4
        )
        levels = torch.tensor([0, 10, 200, 500, 900, 990])
        noisy = schedule.add_noise(latents, torch.randn_like(latents), levels)
        made = pipe.unet(noisy, levels, words(pipe, "a photo").expand(6, -1, -1)).sample
        alphas = schedule.alphas_cumprod[levels].double().view(-1, 1, 1, 1)
        image = {
            "epsilon": (noisy - (1 - alphas).sqrt() * made) / alphas.sqrt(),
            "v_prediction": alphas.sqrt() * noisy - (1 - alphas).sqrt() * made,
            "sample": made.double(),
        }[kind]
        expected = (noisy - alphas.sqrt() * image) / (1 - alphas).sqrt()
    torch.testing.assert_close(
        denoiser.predict(noisy, levels), expected.float(), atol=1e-3, rtol=1e-3
    )


def test_every_kind_of_prediction_gives_the_noise_back() -> None:
    """Where the prediction is perfect, and also where no signal is left."""
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 3, 4, 8, 8, generator=generator).double()
    alphas = torch.tensor([0.99, 0.3, 0.0]).double().view(-1, 1, 1, 1)
    noisy = alphas.sqrt() * latents + (1 - alphas).sqrt() * noise
    velocity = alphas.sqrt() * noise - (1 - alphas).sqrt() * latents
    for kind, predicted in zip(KINDS, (noise, velocity, latents), strict=True):
        torch.testing.assert_close(as_noise(kind, predicted, noisy, alphas), noise)


def test_a_prediction_depends_on_its_own_row_alone(
    folders: dict[str, Path], images: ImageSet
) -> None:
    """Bit for bit, at the last level of a zero-SNR model too; encoding likewise."""
    denoiser = restore(config(folders["v_prediction"])).denoiser()
    latents = denoiser.encode(images.pixels)
    levels = torch.arange(len(images)) * 90 + 9
    assert denoiser.alphas[levels[-1]] == 0
    predicted = denoiser.predict(latents, levels)
    assert bool(predicted.isfinite().all())
    assert predicted.dtype == torch.float32
    for i in (0, 5, 11):
        assert torch.equal(denoiser.encode(images.pixels[i : i + 1])[0], latents[i])
        alone = denoiser.predict(latents[i : i + 1], levels[i : i + 1])
        assert torch.equal(alone[0], predicted[i])
    large = F.interpolate(images.pixels.float(), 50).byte()
    assert denoiser.encode(large).shape == latents.shape
    assert denoiser.predict(latents[:0], levels[:0]).shape == (0, 4, SIDE // 4, SIDE // 4)


def test_gray_box_answers_are_float32_whatever_samples_are(
    folders: dict[str, Path], images: ImageSet
) -> None:
    """A second set of weights serves the samples."""
    exact = restore(config(folders["epsilon"]))
    coarse = restore(config(folders["epsilon"], dtype="bfloat16"))
    assert error(exact, images) == error(coarse, images)
    one, other = (t.sample([1], (SIDE, SIDE)) for t in (exact, coarse))
    assert not torch.equal(one, other)
    torch.testing.assert_close(one, other, atol=0.1, rtol=0)


# Settings, audits


def test_a_saved_model_is_audited_by_its_folder(
    folders: dict[str, Path], images: ImageSet, tmp_path: Path
) -> None:
    """`model=`: the same samples, with nothing to train."""
    settings = config(folders["epsilon"], method="lora", learning_rate=1e-2)
    (last,) = fit(settings, images)
    target = restore(settings, last)
    target.save(tmp_path / "model")
    audit = config(folders["epsilon"], model=str(tmp_path / "model"))
    assert audit.recipe() == {}
    assert torch.equal(
        restore(audit).sample([1, 2], (SIDE, SIDE)), target.sample([1, 2], (SIDE, SIDE))
    )
    assert audit.own().recipe() == audit.model_copy(update={"model": ""}).recipe() != {}
    assert any(k.startswith("model/unet") for k in finetune.weights(audit))
    assert finetune.weights(audit) != finetune.weights(audit.base())


def write(folder: Path, sizes: Sequence[tuple[int, int]]) -> Path:
    """Images of one grey each."""
    (folder / "more").mkdir(parents=True, exist_ok=True)
    for i, size in enumerate(sizes):
        Image.new("RGB", size, (10 * i, 20, 30)).save(folder / "more" / f"{i:02}.png")
    return folder


def test_released_images_are_read_by_name(tmp_path: Path) -> None:
    """`release=`: as they are; no model is loaded."""
    folder = write(tmp_path, [(20, 24)] * 3)
    Image.new("L", (20, 24), 99).save(folder / "grey.webp", lossless=True)
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden.png").write_bytes(b"no image")
    audit = config("tiny-faces", release=str(folder))
    generator = finetune.build(audit)
    found = generator.released()
    assert found is not None
    assert found.keys == ("grey.webp", "more/00.png", "more/01.png", "more/02.png")
    assert found.pixels.shape == (4, 3, 24, 20)
    assert found.pixels[:, 0, 0, 0].tolist() == [99, 0, 10, 20]
    assert (found.subject == UNKNOWN).all()
    assert audit.recipe() == {}
    assert generator.restore({}, CPU) is None
    before = finetune.weights(audit)
    assert set(before) == {"release"}
    Image.new("RGB", (20, 24), "red").save(folder / "more" / "00.png")
    assert finetune.weights(audit) != before


def test_releases_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    """With the file's name, or what is missing."""

    def read(folder: Path) -> None:
        audit = config("tiny-faces", release=str(folder))
        finetune.weights(audit)
        finetune.build(audit).released()

    with pytest.raises(DataError, match="no folder"):
        read(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds 1 images"):
        read(write(tmp_path / "one", [(20, 20)]))
    with pytest.raises(DataError, match=r"01\.png is 30x20: resize or crop"):
        read(write(tmp_path / "sizes", [(20, 20), (30, 20)]))
    folder = write(tmp_path / "damaged", [(20, 20)] * 2)
    (folder / "more" / "01.png").write_bytes(b"\x89PNG\r\n")
    with pytest.raises(DataError, match=r"01\.png"):
        read(folder)


def test_a_model_that_is_sampled_releases_nothing_by_itself() -> None:
    """The harness samples it."""
    assert finetune.build(LdmFinetuneConfig()).released() is None


def test_the_recipe_is_what_training_depends_on() -> None:
    """Settings of sampling are not in it, nor those that the method or the caption leaves out."""
    plain = LdmFinetuneConfig(keep=(20, 10))
    same: list[dict[str, Any]] = [
        {"samples": 5},
        {"prompt": "a portrait"},
        {"guidance_scale": 1.0},
        {"steps": 7},
        {"scheduler": "euler"},
        {"dtype": "bfloat16"},
        {"batch_size": 3},
        {"released_epoch": 10},
        {"rank": 3},
    ]
    other: list[dict[str, Any]] = [
        {"pretrained": "owner/name"},
        {"revision": "a"},
        {"variant": "fp16"},
        {"resolution": 64},
        {"method": "lora"},
        {"epochs": 41},
        {"keep": (10,)},
        {"learning_rate": 1e-4},
        {"batch": 8},
        {"caption": "a badge"},
        {"captioner": "owner/name"},
        {"captioner_revision": "a"},
        {"unconditional": 0.0},
    ]
    settings = plain.model_dump()
    for change in same:
        assert LdmFinetuneConfig(**(settings | change)).recipe() == plain.recipe(), change
    for change in other:
        assert LdmFinetuneConfig(**(settings | change)).recipe() != plain.recipe(), change
    touched = {name for change in (*same, *other) for name in change}
    assert touched | {"model", "release"} == set(LdmFinetuneConfig.model_fields)
    lora = LdmFinetuneConfig(method="lora")
    assert lora.recipe() != LdmFinetuneConfig(method="lora", rank=3).recipe()
    fixed = LdmFinetuneConfig(caption="a badge")
    assert fixed.recipe() == LdmFinetuneConfig(caption="a badge", captioner="a/b").recipe()


def test_the_released_epoch_and_the_attackers_own_models() -> None:
    """The last unless one is named; the base is the same with nothing learnt."""
    settings = LdmFinetuneConfig(keep=(10, 20), released_epoch=20, prompt="a badge")
    assert settings.checkpoint() == 20
    assert settings.released_epochs() == (10, 20, 40)
    assert LdmFinetuneConfig().checkpoint() == 40
    assert settings.own() == settings
    assert LdmFinetuneConfig(model="a/b").own() == LdmFinetuneConfig()
    assert LdmFinetuneConfig(release="a").own() == LdmFinetuneConfig()
    base = settings.base()
    assert base.recipe() == {}
    assert base.checkpoint() == 0
    assert base.prompt == "a badge"
    LdmFinetuneConfig(**base.model_dump())  # still valid


def test_only_files_that_are_used_are_hashed() -> None:
    """A captioner where it writes, and only where something is trained."""

    def parts(**options: Any) -> set[str]:
        return {name.split("/")[0] for name in finetune.weights(LdmFinetuneConfig(**options))}

    assert parts() == {"model", "captioner"}
    assert parts(caption="a badge") == {"model"}
    assert parts(epochs=0) == {"model"}
    assert parts(model=str(resolve("tiny-faces"))) == {"model"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pretrained": ""}, "pretrained must name a model"),
        ({"pretrained": f"{RANDOM}sd15"}, "random weights generate nothing"),
        ({"model": f"{RANDOM}sd15"}, "random weights generate nothing"),
        ({"model": "a/b", "release": "c"}, "not both"),
        ({"keep": (0,)}, "keep must lie in 1 to epochs=40"),
        ({"keep": (41,)}, "keep must lie in 1 to epochs=40"),
        ({"epochs": 0, "keep": (1,)}, "keep must lie"),
        ({"released_epoch": 10}, "add it to keep"),
        ({"prompt": "a {caption}"}, "images to come"),
        ({"caption": "a {captoin}"}, "only placeholder"),
        ({"prompt": "a {name}"}, "only placeholder"),
        ({"unconditional": 1.0}, "less than 1"),
        ({"epochs": -1}, "greater than or equal to 0"),
        ({"rank": 0}, "greater than or equal to 1"),
        ({"learning_rate": 0}, "greater than 0"),
        ({"method": "dreambooth"}, "'full' or 'lora'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    """With a sentence that says what to do."""
    with pytest.raises(ValidationError, match=message):
        LdmFinetuneConfig(**options)
