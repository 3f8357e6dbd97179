"""Is a release its source under another name?"""

from __future__ import annotations

import torch

RECOVERED = 2.0
"""Root mean square difference, in grey levels, below which a source counts as recovered."""


def recoverable(released: torch.Tensor, sources: torch.Tensor) -> list[int]:
    """Releases from which a source can be had by what anybody would try first.

    Each colour of the source is fitted, by least squares over the image, as a sum of the three
    colours of the release and a constant: that covers a plain copy, negatives, other brightness or
    contrast, swapped or mixed colours, and small changes. The release may have been turned by
    quarters and mirrored, and be of any image.

    Args:
        released: (N, 3, H, H) uint8.
        sources: (M, 3, H, H) uint8.
    """
    wanted = sources.flatten(2).double().flatten(0, 1)
    found = []
    for i, image in enumerate(released.double()):
        turned = [torch.rot90(image, quarter, (1, 2)) for quarter in range(4)]
        if any(_explains(view, wanted) for x in turned for view in (x, x.flip(2))):
            found.append(i)
    return found


def _explains(release: torch.Tensor, colours: torch.Tensor) -> bool:
    """Whether (3, H, W) explains three rows of (3 M, P), a source, by a linear map of its colours.

    The residual of least squares is what the projection on the release's colours leaves.
    """
    own = release.flatten(1)
    design = torch.cat([own, torch.ones(1, own.shape[1], dtype=own.dtype)])
    shared = design @ colours.T
    weights = torch.linalg.pinv(design @ design.T, hermitian=True) @ shared
    left = colours.square().sum(1) - (shared * weights).sum(0)
    errors = (left.clamp(min=0) / own.shape[1]).view(-1, 3).mean(1).sqrt()
    return bool((errors < RECOVERED).any())
