"""`mia-blind`: what it is and can be set to. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import Field

from privbench.spec import Config, PluginSpec, Tags
from privbench_plugins.attacks.membership.black_box import (
    ENCODER,
    LICENCE,
    Batch,
    Embedder,
    network_files,
)

if TYPE_CHECKING:
    from privbench.membership import LabelledBaseline


class BlindConfig(Config):
    """Settings of `mia-blind`."""

    backbone: Embedder = ENCODER
    penalty: float = Field(
        default=10.0, gt=0, description="on the squared coefficients of the logistic regression"
    )
    cells: int = Field(
        default=4, ge=1, le=32, description="cells per side whose colour and contrast are measured"
    )
    batch: Batch = 64


def build(config: BlindConfig) -> LabelledBaseline:
    """Build the baseline."""
    from privbench_plugins.attacks.membership._blind import Blind

    return Blind(config)


def weights(config: BlindConfig) -> Mapping[str, str]:
    """SHA-256 of the embedder's files.

    Raises:
        ModelError: there is no such network.
    """
    return network_files(config.backbone)


SPECS = (
    PluginSpec(
        kind="attack",
        id="mia-blind",
        version=1,
        summary="Control: can members be told from others without the target? Is shown labels",
        build=build,
        config=BlindConfig,
        weights=weights,
        tags=Tags(knowledge="none", control="diagnostic", infers="labels"),
        smoke={"batch": 8},
        licence=LICENCE,
    ),
)
