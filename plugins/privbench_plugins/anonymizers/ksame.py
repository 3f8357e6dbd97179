"""k-Same: at least k people share each released image (Newton, Sweeney and Malin 2005)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from privbench.spec import Config, PluginSpec, Tags

if TYPE_CHECKING:
    from privbench.types import Anonymizer


class KSameConfig(Config):
    """Options of `k-same-pixel`."""

    k: int = Field(
        default=5, ge=2, le=1000, description="People that share each released image, at least."
    )


class KSameEigenConfig(KSameConfig):
    """Options of `k-same-eigen`."""

    components: int = Field(
        default=64,
        ge=0,
        description="Principal components of the released set in which is averaged; 0: all.",
    )


def build_pixel(config: KSameConfig) -> Anonymizer:
    """Averages of pixels."""
    from privbench_plugins.anonymizers._ksame import KSame

    return KSame(config.k)


def build_eigen(config: KSameEigenConfig) -> Anonymizer:
    """Averages of principal components."""
    from privbench_plugins.anonymizers._ksame import KSame

    return KSame(config.k, True, config.components)


SPECS: tuple[PluginSpec, ...] = (
    PluginSpec(
        kind="anonymizer",
        id="k-same-pixel",
        version=1,
        summary="k-Same: the average face of at least k people, by pixels.",
        build=build_pixel,
        config=KSameConfig,
        tags=Tags(fit_on="release"),
        smoke={"k": 2},
    ),
    PluginSpec(
        kind="anonymizer",
        id="k-same-eigen",
        version=1,
        summary="k-Same-Eigen: the average face of at least k people, by principal components.",
        build=build_eigen,
        config=KSameEigenConfig,
        tags=Tags(fit_on="release"),
        smoke={"k": 2},
    ),
)
