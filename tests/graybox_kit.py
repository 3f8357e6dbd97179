"""What the tests of gray-box attacks share: a small real diffusion model, and images for it."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, UNet2DModel
from torch import Tensor

from privbench.membership import Denoiser, MembershipView, Own
from privbench.progress import Silent
from privbench.types import ImageSet

SIDE = 8


class SmallDenoiser:
    """A diffusers UNet on (3, 8, 8) latents, which are the images made small.

    Args:
        prediction: what the network predicts; `v_prediction` comes with a schedule that ends
            without any signal.
    """

    def __init__(self, prediction: Literal["epsilon", "v_prediction"] = "v_prediction") -> None:
        torch.manual_seed(0)
        self.network = UNet2DModel(
            sample_size=SIDE,
            in_channels=3,
            out_channels=3,
            block_out_channels=(32, 32),
            layers_per_block=1,
            norm_num_groups=8,
            down_block_types=("DownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "UpBlock2D"),
        ).eval()
        self.schedule = DDIMScheduler(
            beta_schedule="scaled_linear",
            beta_start=0.00085,
            beta_end=0.012,
            clip_sample=False,
            prediction_type=prediction,
            rescale_betas_zero_snr=prediction == "v_prediction",
        )
        self.alphas = self.schedule.alphas_cumprod.double().numpy()
        self.encoded: list[int] = []
        self.asked: list[int] = []

    def encode(self, pixels: Tensor) -> Tensor:
        """Areas of pixels, in [-2, 2]."""
        self.encoded.append(len(pixels))
        return F.interpolate(pixels.float(), (SIDE, SIDE), mode="area") / 255 * 4 - 2

    @torch.no_grad()
    def predict(self, noisy: Tensor, levels: Tensor) -> Tensor:
        """See `Denoiser.predict`."""
        self.asked.append(len(noisy))
        found: Tensor = self.network(noisy, levels).sample
        if self.schedule.config.prediction_type == "epsilon":
            return found
        alpha = self.schedule.alphas_cumprod[levels].view(-1, 1, 1, 1)
        return alpha.sqrt() * found + (1 - alpha).sqrt() * noisy

    def overfit(self, images: ImageSet, steps: int) -> None:
        """Train a network that predicts velocities on a few images until it knows them."""
        latents, count = self.encode(images.pixels), len(images)
        generator = torch.Generator().manual_seed(0)
        optimizer = torch.optim.Adam(self.network.parameters())
        rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=steps)
        for _ in range(steps):
            noise = torch.randn(latents.shape, generator=generator)
            strata = torch.randperm(count, generator=generator)
            shares = (strata + torch.rand(count, generator=generator)) / count
            levels = (shares * len(self.alphas)).long()
            noisy = self.schedule.add_noise(latents, noise, levels)
            wanted = self.schedule.get_velocity(latents, noise, levels)
            loss = F.mse_loss(self.network(noisy, levels).sample, wanted)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            rate.step()


def faces(count: int, seed: int) -> ImageSet:
    """(count, 3, 16, 16) blotches that have nothing in common but their distribution."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 4, 4, generator=generator)
    pixels = F.interpolate(coarse, (16, 16), mode="bilinear").mul(255).byte()
    return ImageSet(pixels, np.arange(count), tuple(f"{seed}-{i}" for i in range(count)))


def view(denoiser: Denoiser | None, seed: int = 0) -> MembershipView:
    """What a gray-box attacker has; it looks at no samples."""

    def own(kind: Own) -> ImageSet:
        raise AssertionError("a gray-box attack makes no samples")

    return MembershipView(
        samples=faces(2, 900),
        auxiliary=faces(2, 901),
        validation=faces(40, 902),
        own=own,
        generate=None,
        denoiser=denoiser,
        seed=seed,
        device=torch.device("cpu"),
        reporter=Silent(),
    )
