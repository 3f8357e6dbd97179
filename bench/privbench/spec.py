"""What a plugin says about itself. Torch-free, so that `list` and `--help` are instant."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Kind = Literal["anonymizer", "attack", "metric", "dataset", "detector"]
KINDS: tuple[Kind, ...] = ("anonymizer", "attack", "metric", "dataset", "detector")

API_VERSION = 1
"""Version of what plugins rely on: the specification here, the hooks, `types`, `membership`.

A package names the version that it was written for (`PRIVBENCH_API = 1`), and is refused where
that is another one. Raised when a plugin that kept its promises could break, or give other
numbers, without a change of its own; what is only added does not raise it.
"""

API_NAME = "PRIVBENCH_API"
"""What the module behind an entry point calls the version it was written for."""

Knowledge = Literal["none", "black-box", "adaptive", "gray-box"]
"""What an attacker may know of the anonymizer, weakest first.

`none`: nothing; `black-box`: its released images and its general kind, and of a generative one
also answers to prompts (counted); `adaptive`: may also ask it to anonymize images of the
attacker's own (counted queries); `gray-box`: may also have the released model predict the noise in
images that the attacker chooses.
"""

EvidenceKind = Literal["identification", "open-set", "release", "inversion", "membership"]

RANDOM = "random:"
"""How a value of `PluginSpec.weights` begins where there are no trained weights behind it.

Such a plugin can be timed, and is refused wherever a number about privacy would come of it.
"""

ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*(/[a-z0-9]+(-[a-z0-9]+)*)?")
"""What ids look like."""


class Config(BaseModel):
    """Base of plugin configurations: frozen, typed, every field defaulted and described."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), defer_build=True
    )


class NoConfig(Config):
    """For plugins without options."""


class GeneratorConfig(Config):
    """Base of configurations of generative anonymizers (`Tags.generates`).

    A setting `model` names a fine-tuned model, and a setting `release` a folder of generated
    images, that exist already: an audit.
    """

    samples: int = Field(default=1000, ge=2, le=1_000_000, description="Images that are released.")

    @abstractmethod
    def recipe(self) -> Mapping[str, Any]:
        """The settings on which training depends; empty where nothing is trained.

        The others say how a trained model is sampled: one training serves all of their values.
        """

    @abstractmethod
    def checkpoint(self) -> int:
        """After how many epochs the released model is taken."""

    @property
    def existing(self) -> str:
        """`release` or `model` where that setting names one that exists already, to be audited."""
        return next((name for name in ("release", "model") if getattr(self, name, "")), "")

    @abstractmethod
    def released_epochs(self) -> tuple[int, ...]:
        """All epochs whose models one training keeps."""

    @abstractmethod
    def own(self) -> GeneratorConfig:
        """Settings of the model that an attacker trains by the same recipe on data of its own."""

    @abstractmethod
    def base(self) -> GeneratorConfig:
        """Settings of the same model before any fine-tuning."""


@dataclass(frozen=True, slots=True)
class Tags:
    """Facts that the harness acts on.

    Attributes:
        control: `positive` (privacy should be absent), `negative` (the attack should be at
            chance), `diagnostic` (shows what one signal gives away; nobody would release it),
            or None. Only None is ranked.
        stochastic: output depends on the seed.
        fit_on: data that `fit` must see before use, or None. An anonymizer may ask for either,
            a metric for `background`.
        knowledge: an attack's threat model; None for other kinds.
        evidence: what a metric measures: an attack's `identification` of probes, the same as an
            `open-set` task with probes of people who are not enrolled, the `release` beside its
            sources, or an `inversion` of it; None for other kinds.
        default: a metric that runs where a study names none. False for one that needs a file
            of the user's, or is slow.
        aligns: a data set whose settings may name a detector: `build(config, find)` then gets a
            `privbench.types.FindDetector`.
        fuses: an attack that combines the scores of the run's other attacks (`ScoreFusion`); its
            threat model is the strongest among theirs.
        inverts: an attack that reconstructs sources (`Inverter`), which recognisers then judge.
        generates: an anonymizer that is trained on the images to protect and releases samples
            (`privbench.membership.Generator`); its configuration is a `GeneratorConfig`.
        infers: an attack on membership in that training: `queries`, it scores images it has never
            seen (`MembershipAttack`); `labels`, a diagnostic that is shown who of other people was
            a member, and never what the anonymizer released (`LabelledBaseline`).
    """

    control: Literal["positive", "negative", "diagnostic"] | None = None
    stochastic: bool = False
    fit_on: Literal["background", "release"] | None = None
    knowledge: Knowledge | None = None
    evidence: Literal["identification", "open-set", "release", "inversion", "membership"] | None = (
        None
    )
    default: bool = True
    aligns: bool = False
    fuses: bool = False
    inverts: bool = False
    generates: bool = False
    infers: Literal["queries", "labels"] | None = None


@dataclass(frozen=True, slots=True)
class PluginSpec:
    """One plugin, described without importing anything heavy.

    Attributes:
        kind: which interface `build` returns.
        id: kebab-case; third parties write `distribution/name`.
        version: raise it when outputs change.
        summary: one line.
        build: module-level function `build(config) -> plugin`; imports heavy libraries inside.
            Its module and the modules it imports from the same package make the code hash.
        config: the configuration class.
        weights: `weights(config) -> {name: sha256}` of every weight file that is used, or None.
            Called when a run is planned, so it must not load the model. A value that begins
            with `RANDOM` stands for random weights.
        requires: modules that must be importable, beyond privbench's own dependencies.
        extra: the install hint shown when one of them is missing, e.g. `privbench[detect]`.
        smoke: settings for a tiny run (no network, no GPU), for tests.
        argument: the setting that `id:VALUE` fills in, e.g. the path of `folder:PATH`; "" if none.
        licence: of the weights and data that the plugin brings; "" when it brings none.
    """

    kind: Kind
    id: str
    version: int
    summary: str
    build: Callable[[Any], Any]
    config: type[Config] = NoConfig
    weights: Callable[[Any], Mapping[str, str]] | None = None
    tags: Tags = field(default_factory=Tags)
    requires: tuple[str, ...] = ()
    extra: str = ""
    smoke: Mapping[str, Any] = field(default_factory=dict)
    argument: str = ""
    licence: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}; got {self.kind!r}")
        if not ID.fullmatch(self.id):
            raise ValueError(
                f"id must be kebab-case, optionally `distribution/name`; got {self.id!r}"
            )
        if self.argument and self.argument not in self.config.model_fields:
            raise ValueError(f"argument of {self.id} names no setting: {self.argument!r}")
        if self.tags.inverts and (self.tags.knowledge != "adaptive" or self.tags.fuses):
            raise ValueError(f"{self.id} inverts, so it must be adaptive and fuse nothing")
        if self.tags.generates and not issubclass(self.config, GeneratorConfig):
            raise ValueError(f"config of {self.id}, which generates, must be a GeneratorConfig")
        if self.version < 1:
            raise ValueError(f"version of {self.id} must be 1 or more; got {self.version}")
