"""What anonymizers do to a face, imitated cheaply, for training the shipped encoder.

The encoder must be a good start for an attack on *any* anonymizer, so its training views
are edge maps in every drawing style, re-coloured faces, structure of one face over the
colours of another, blur, pixelation and noise. Tensors are (N, 3, H, W) float in [0, 1];
all randomness comes from the given generator.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from privbench_plugins.tiny_encoder.augment import chosen, erase, grey, jitter, uniform


def low_pass(pixels: Tensor, cells: int) -> Tensor:
    """Keep about `cells` x `cells` values of each image."""
    coarse = F.adaptive_avg_pool2d(pixels, cells)
    return F.interpolate(coarse, size=pixels.shape[-2:], mode="bilinear", align_corners=False)


def integer(generator: Generator, low: int, high: int) -> int:
    """One integer in [low, high]."""
    return int(torch.randint(low, high + 1, (1,), generator=generator))


def colours(generator: Generator, n: int, like: Tensor) -> Tensor:
    """(n, 3, 1, 1) random colours."""
    return torch.rand((n, 3, 1, 1), generator=generator).to(like.device)


def shuffled(pixels: Tensor, generator: Generator) -> Tensor:
    """The same images in another order (so that row i shows somebody else)."""
    return pixels[torch.randperm(len(pixels), generator=generator).to(pixels.device)]


def draw_edges(edges: Tensor, scene: Tensor, generator: Generator) -> Tensor:
    """Edge maps as drawings: white on black, any two colours, or over soft colours.

    Args:
        edges: (N, 1, H, W), 1 on a line.
        scene: images whose blurred colours some drawings get; those of other people.
        generator: source of randomness.
    """
    n = len(edges)
    thick = F.max_pool2d(edges, 3, 1, 1)
    line = torch.where(chosen(generator, n, 0.3, edges), thick, edges)
    ink = torch.where(chosen(generator, n, 0.6, edges), 1.0, colours(generator, n, edges))
    paper = torch.where(chosen(generator, n, 0.6, edges), 0.0, colours(generator, n, edges))
    soft = low_pass(scene, integer(generator, 3, 16))
    paper = torch.where(chosen(generator, n, 0.25, edges), soft, paper)
    drawing = paper + (ink - paper) * line
    return torch.where(chosen(generator, n, 0.15, edges), 1 - drawing, drawing)


def recolour(pixels: Tensor, scene: Tensor, generator: Generator) -> Tensor:
    """The structure of a face in other colours, as a conditioned generator paints it.

    Luminance goes through a random curve onto a line between two random colours; then the
    coarse colours move towards those of another image.
    """
    n = len(pixels)
    curve = torch.exp(uniform(generator, n, -0.7, 0.7, pixels))
    luma = grey(pixels).clamp_min(1e-4) ** curve
    dark, light = colours(generator, n, pixels) * 0.5, 1 - colours(generator, n, pixels) * 0.5
    tinted = dark + (light - dark) * luma
    keep = uniform(generator, n, 0.0, 0.8, pixels)
    painted = keep * pixels + (1 - keep) * tinted
    cells = integer(generator, 3, 16)
    detail = painted - low_pass(painted, cells)
    other = low_pass(scene, cells)
    gain = uniform(generator, n, 0.6, 1.4, pixels)
    swapped = (other + gain * detail).clamp(0, 1)
    return torch.where(chosen(generator, n, 0.6, pixels), swapped, painted)


def degrade(pixels: Tensor, generator: Generator) -> Tensor:
    """Pixelate, blur or add noise: a third of the images each, strength drawn per third."""

    def pixelate(x: Tensor) -> Tensor:
        cells = integer(generator, 7, 24)
        return F.interpolate(F.adaptive_avg_pool2d(x, cells), size=x.shape[-2:], mode="nearest")

    def blur(x: Tensor) -> Tensor:
        return low_pass(x, integer(generator, 8, 28))

    def noise(x: Tensor) -> Tensor:
        sigma = uniform(generator, len(x), 0.03, 0.25, x)
        return x + sigma * torch.randn(x.shape, generator=generator).to(x.device)

    parts: tuple[Callable[[Tensor], Tensor], ...] = (pixelate, blur, noise)
    done = [f(x) for f, x in zip(parts, pixels.tensor_split(3), strict=True) if len(x)]
    return torch.cat(done).clamp_(0, 1)


def views(pixels: Tensor, edges: Tensor, generator: Generator, kinds: Tensor) -> Tensor:
    """Render each image in its kind of view.

    Args:
        pixels: RGB, already warped.
        edges: (N, 1, H, W) edge maps warped alike.
        generator: source of randomness.
        kinds: (N,) 0 photo, 1 drawing, 2 re-coloured, 3 degraded.
    """
    out = pixels.clone()
    scene = shuffled(pixels, generator)
    drawn, painted, worse = (torch.nonzero(kinds == kind).flatten() for kind in (1, 2, 3))
    if len(drawn):
        out[drawn] = draw_edges(edges[drawn], scene[drawn], generator)
    if len(painted):
        out[painted] = recolour(pixels[painted], scene[painted], generator)
    if len(worse):
        out[worse] = degrade(pixels[worse], generator)
    rest = torch.nonzero(kinds != 1).flatten()
    out[rest] = jitter(out[rest], generator, strength=0.3, grey_share=0.2)
    return erase(out, generator, share=0.3)
