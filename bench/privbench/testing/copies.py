"""Is a release its source under another name?"""

from __future__ import annotations

import torch

RECOVERED = 1.0
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
    wanted = sources.flatten(2).double()
    found = []
    for i, image in enumerate(released.double()):
        turned = [torch.rot90(image, quarter, (1, 2)) for quarter in range(4)]
        if any(_explains(view, wanted) for x in turned for view in (x, x.flip(2))):
            found.append(i)
    return found


def _explains(release: torch.Tensor, sources: torch.Tensor) -> bool:
    """Whether (3, H, W) explains one of (M, 3, P) sources by one linear map of its colours."""
    colours = release.flatten(1)
    design = torch.cat([colours, torch.ones(1, colours.shape[1], dtype=colours.dtype)]).T
    targets = sources.flatten(0, 1).T
    inverse = torch.linalg.pinv(design.T @ design, hermitian=True)
    residual = targets - design @ (inverse @ (design.T @ targets))
    errors = residual.square().mean(0).view(-1, 3).mean(1).sqrt()
    return bool((errors < RECOVERED).any())
