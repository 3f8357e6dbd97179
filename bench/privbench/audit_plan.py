"""From a question about membership to ordered steps with their keys. Runs nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from privbench.data import AUTO, Dataset, part_digest
from privbench.errors import ConfigError, did_you_mean
from privbench.keys import code_digest, key
from privbench.plan import (
    Choice,
    Resolved,
    Stage,
    Step,
    dtype_of,
    open_dataset,
    refuse_random,
    resolve,
)
from privbench.populations import (
    ATTACKERS,
    AUXILIARY,
    FOREIGN,
    QUERIES,
    SEEN,
    UNSEEN,
    WILD,
    MembershipPreset,
    membership_preset,
    populate,
)
from privbench.registry import Registry
from privbench.spec import GeneratorConfig, PluginSpec
from privbench.types import Ints

MOST_FOLDS: Final = 32
MEMBERSHIP: Final = "membership"


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Trial(_Model):
    """Two sets of photographs that an attack ought to tell apart.

    Attributes:
        name: of the trial.
        suspects: the part whose images count as members.
        others: the part whose images do not.
        mark: an anonymizer that is put on the suspects.
        mark_others: it is put on the others as well.
    """

    name: str
    suspects: str = SEEN
    others: str = UNSEEN
    mark: str = ""
    mark_others: bool = False

    def sides(self) -> tuple[str, str]:
        """Both query sets, as `marked` names them."""
        return marked(self.suspects, self.mark), marked(
            self.others, self.mark if self.mark_others else ""
        )


PRIMARY: Final = "in-distribution"
"""Members against photographs of the same population that nobody was trained on: membership, and
nothing else. All other trials also measure what the populations look like."""

TRIALS: Final = (
    Trial(name=PRIMARY),
    Trial(name="attacker-population", others=AUXILIARY),
    Trial(name="other-population", others=FOREIGN),
    Trial(name="wild", others=WILD),
)
GENERATED: Final = Trial(name="generated", suspects="generated", others="own-generated")
"""Fresh samples of the target against fresh samples of the attacker's own model."""

SAMPLES: Final = ("generated", "own-generated")


def marked(part: str, mark: str) -> str:
    """Name of a query set: a part, with the mark that its images carry."""
    return f"{part}+{mark}" if mark else part


class Target(_Model):
    """A generative anonymizer and what it is trained on.

    Attributes:
        anonymizer: with its settings.
        trained_on: parts.
        mark: an anonymizer, a watermark say, that is put on the images beforehand.
        attackers: settings in which the attacker's own model differs.
        folds: draws of people on which it is trained anew; the study's, when empty.
        attacks: the study's, when empty.
        trials: names of those that matter here; all of the study's, when empty.
    """

    anonymizer: Choice
    trained_on: tuple[str, ...] = (SEEN,)
    mark: str = ""
    attackers: dict[str, Any] = Field(default_factory=dict)
    folds: tuple[int, ...] = ()
    attacks: tuple[Choice, ...] = ()
    trials: tuple[str, ...] = ()


class MembershipStudy(_Model):
    """What to run: every target under every attack.

    Attributes:
        metrics: of evidence `membership`; the one of that name when empty.
        folds: how many times each target is trained anew, each time on other people.
    """

    targets: tuple[Target, ...] = Field(min_length=1)
    attacks: tuple[Choice, ...]
    trials: tuple[Trial, ...] = TRIALS
    metrics: tuple[Choice, ...] = (Choice(id=MEMBERSHIP),)
    dataset: Choice = Choice(id="synthfaces")
    protocol: str = AUTO
    folds: int = Field(default=1, ge=1, le=MOST_FOLDS)
    seed: int = Field(default=0, ge=0)
    device: str = "auto"


Role = Literal["target", "own", "base"]


@dataclass(frozen=True, slots=True)
class Model:
    """One generative model, trained or as it was found.

    Attributes:
        config: of the anonymizer, as this model uses it.
        finetune: the step that trains it; None where nothing is trained.
    """

    role: Role
    plugin: Resolved
    config: GeneratorConfig
    trained_on: tuple[str, ...]
    mark: str
    finetune: Step | None


@dataclass(frozen=True, slots=True)
class AuditCell:
    """One target of one fold under one attack.

    Attributes:
        models: role -> model; `own` and `base` are the attacker's.
        samples: what is sampled -> step: `target`, `own`, `base`, and the fresh `generated` and
            `own-generated`.
        marks: id -> the anonymizer that makes the mark.
        infer: the attack's step.
    """

    target: Target
    fold: int
    attack: Resolved
    models: Mapping[Role, Model]
    samples: Mapping[str, Step]
    marks: Mapping[str, Resolved]
    trials: tuple[Trial, ...]
    parts: Mapping[str, Ints]
    infer: Step
    record: Step

    @property
    def anonymizer(self) -> Resolved:
        """The target's plugin."""
        return self.models["target"].plugin

    @property
    def label(self) -> str:
        """What a person calls it."""
        return f"{self.attack.id} on {self.anonymizer.id}"

    def queries(self) -> tuple[str, ...]:
        """Every set of images that the attack scores, once."""
        return query_sets(self.trials, self.parts)

    def steps(self) -> Iterator[Step]:
        """All steps that the cell may need, in order."""
        yield from (m.finetune for m in self.models.values() if m.finetune)
        yield from self.samples.values()
        yield self.infer
        yield self.record


@dataclass(frozen=True, slots=True, eq=False)
class AuditPlan:
    """A membership study with everything resolved."""

    study: MembershipStudy
    preset: MembershipPreset
    data: Dataset
    data_plugin: Resolved
    metrics: Mapping[str, Resolved]
    cells: tuple[AuditCell, ...]

    def steps(self) -> list[Step]:
        """Distinct steps of all cells, in order."""
        return list({s.key: s for cell in self.cells for s in cell.steps()}.values())


def query_sets(trials: Sequence[Trial], parts: Mapping[str, Ints]) -> tuple[str, ...]:
    """What trials and set tests need scored: parts, some of them with a mark, and samples."""
    always = [p for p in ("calibration", "unpublished", "unseen", "seen") if p in parts]
    sides = [side for trial in trials for side in trial.sides()]
    return tuple(dict.fromkeys([*always, *sides]))


def is_membership(anonymizers: Sequence[PluginSpec], attacks: Sequence[PluginSpec]) -> bool:
    """Whether a run is about membership.

    Raises:
        ConfigError: some plugins are and others are not.
    """
    generates = [a.tags.generates for a in anonymizers]
    infers = [bool(a.tags.infers) for a in attacks]
    if not any(generates) and not any(infers):
        return False
    odd = [a.id for a, g in zip(anonymizers, generates, strict=True) if not g]
    wrong = [a.id for a, i in zip(attacks, infers, strict=True) if not i]
    if odd:
        raise ConfigError(
            f"{', '.join(odd)} releases images of its sources and is trained on none of them: "
            "membership cannot be inferred. Use a generative anonymizer, such as ldm-finetune, "
            "or attacks on identity, such as contrastive-reid."
        )
    if wrong:
        raise ConfigError(
            f"{', '.join(wrong)} attacks released images one by one; a generative anonymizer "
            "releases samples, which show nobody in particular. Use attacks on membership, such "
            "as mia-generated."
        )
    return True


def make_audit(study: MembershipStudy, registry: Registry, device_type: str) -> AuditPlan:
    """Resolve a membership study.

    Raises:
        PrivbenchError: anything wrong with ids, settings, models or data, before any work.
    """
    data_plugin = resolve(registry, "dataset", study.dataset)
    metrics = {c.id: resolve(registry, "metric", c) for c in study.metrics}
    _check_parts(study)
    for name, metric in metrics.items():
        if metric.registered.spec.tags.evidence != MEMBERSHIP:
            raise ConfigError(f"The metric {name} does not measure membership inference.")
    plugins = [resolve(registry, "anonymizer", t.anonymizer) for t in study.targets]
    attacks = [
        [resolve(registry, "attack", c) for c in target.attacks or study.attacks]
        for target in study.targets
    ]
    is_membership(
        [p.registered.spec for p in plugins], [a.registered.spec for own in attacks for a in own]
    )
    for plugin in (*plugins, *(a for own in attacks for a in own)):
        refuse_random(plugin)
    names = {t.mark for t in study.targets} | {t.mark for t in study.trials}
    marks = {n: resolve(registry, "anonymizer", Choice(id=n)) for n in sorted(names - {""})}
    data = open_dataset(registry, data_plugin)
    preset = membership_preset(study.protocol, data)
    maker = _Maker(study, preset, data, metrics, marks, device_type)
    cells = tuple(
        cell
        for target, plugin, own in zip(study.targets, plugins, attacks, strict=True)
        for fold in target.folds or range(study.folds)
        for cell in maker.row(target, plugin, fold, own)
    )
    return AuditPlan(study, preset, data, data_plugin, metrics, cells)


def _check_parts(study: MembershipStudy) -> None:
    """Refuse parts that no protocol has.

    Raises:
        ConfigError: there is one.
    """
    parts = (*QUERIES, *ATTACKERS)
    named: list[tuple[str, tuple[str, ...]]] = []
    named += [(p, parts) for t in study.targets for p in t.trained_on]
    named += [(p, (*parts, *SAMPLES)) for t in study.trials for p in (t.suspects, t.others)]
    for part, known in named:
        if part not in known:
            raise ConfigError(f"There is no part {part!r}. {did_you_mean(part, known)}")


@dataclass(frozen=True, slots=True, eq=False)
class _Maker:
    """What the keys of all cells depend on."""

    study: MembershipStudy
    preset: MembershipPreset
    data: Dataset
    metrics: Mapping[str, Resolved]
    marks: Mapping[str, Resolved]
    device_type: str

    def row(
        self, target: Target, plugin: Resolved, fold: int, attacks: Sequence[Resolved]
    ) -> list[AuditCell]:
        """One target under every attack."""
        parts = populate(self.data, self.preset, fold)
        digests = {name: part_digest(self.data, rows) for name, rows in parts.items()}
        known = (*parts, *SAMPLES)
        trials = tuple(
            t for t in self.study.trials
            if {t.suspects, t.others} <= set(known)
            and self._fits(t, plugin)
            and (not target.trials or t.name in target.trials)
        )  # fmt: skip
        models = self._models(target, plugin, digests, fold)
        wanted: tuple[tuple[str, Role, str], ...] = (
            ("target", "target", "released"),
            ("own", "own", "released"),
            ("base", "base", "released"),
            ("generated", "target", "fresh"),
            ("own-generated", "own", "fresh"),
        )
        samples = {name: self._sample(models[role], what) for name, role, what in wanted}
        if not any(t.suspects in SAMPLES or t.others in SAMPLES for t in trials):
            for name in SAMPLES:
                del samples[name]
        return [
            self._cell(target, fold, attack, models, samples, trials, parts, digests)
            for attack in attacks
        ]

    @staticmethod
    def _fits(trial: Trial, plugin: Resolved) -> bool:
        """Fresh samples need a model."""
        config = plugin.config
        existing = isinstance(config, GeneratorConfig) and config.existing == "release"
        return trial.suspects not in SAMPLES or not existing

    def _models(
        self, target: Target, plugin: Resolved, digests: Mapping[str, str], fold: int
    ) -> dict[Role, Model]:
        config = plugin.config
        assert isinstance(config, GeneratorConfig)  # noqa: S101 - PluginSpec checked it
        wanted: tuple[tuple[Role, GeneratorConfig, tuple[str, ...], str], ...] = (
            ("target", config, target.trained_on, target.mark),
            ("own", _changed(config.own(), target.attackers), (AUXILIARY,), ""),
            ("base", config.base(), (), ""),
        )
        return {
            role: self._model(role, plugin, its, parts, mark, digests, fold)
            for role, its, parts, mark in wanted
        }

    def _model(
        self,
        role: Role,
        plugin: Resolved,
        config: GeneratorConfig,
        trained_on: tuple[str, ...],
        mark: str,
        digests: Mapping[str, str],
        fold: int,
    ) -> Model:
        spec = plugin.registered.spec
        weights = spec.weights(config) if spec.weights else {}
        own = Resolved(plugin.registered, config, plugin.code, weights)
        recipe = config.recipe()
        if not recipe:
            return Model(role, own, config, trained_on, mark, None)
        if lacking := [part for part in trained_on if part not in digests]:
            raise ConfigError(f"Protocol {self.preset.name} has no part {', '.join(lacking)}.")
        on = " and ".join(trained_on)
        inputs = {
            "plugin": _training(own, recipe),
            # GPUs train in bfloat16: one training is not the other
            **({"device": self.device_type} if self.device_type != "cpu" else {}),
            "data": [digests[part] for part in trained_on],
            "mark": self.marks[mark].ref() if mark else "",
            "seed": [self.study.seed, fold if role == "target" else 0],
        }
        which = f", fold {fold}" if role == "target" else ""
        label = f"{own.id}: fine-tuning on {marked(on, mark)}{which}"
        step = _step("finetune", own.id, label, inputs)
        return Model(role, own, config, trained_on, mark, step)

    def _sample(self, model: Model, what: str) -> Step:
        config = model.config
        name = {"target": "the target", "own": "the attacker's model", "base": "the base model"}
        trained = model.finetune.key if model.finetune else ""
        settings = {
            k: v for k, v in config.model_dump(mode="json").items() if k not in config.recipe()
        }
        return _step(
            "sample",
            model.plugin.id,
            f"{model.plugin.id}: {what} samples of {name[model.role]}",
            {
                "plugin": model.plugin.ref() | {"config": settings},
                "trained": trained,
                "checkpoint": config.checkpoint() if trained else 0,
                "what": [what, model.role],
                "photographs": self.data.digest,  # samples are made in their size
                "seed": self.study.seed,
                "dtype": dtype_of(model.plugin, self.device_type),
            },
        )

    def _cell(
        self,
        target: Target,
        fold: int,
        attack: Resolved,
        models: Mapping[Role, Model],
        samples: Mapping[str, Step],
        trials: tuple[Trial, ...],
        parts: Mapping[str, Ints],
        digests: Mapping[str, str],
    ) -> AuditCell:
        label = f"{attack.id} on {models['target'].plugin.id}, fold {fold}"
        queries = query_sets(trials, parts)
        used = {m for t in trials for m in (t.mark,) if m}
        inputs: dict[str, Any] = {
            "plugin": attack.ref(),
            "samples": {name: step.key for name, step in samples.items()},
            "trained": models["target"].finetune.key if models["target"].finetune else "",
            "data": dict(digests),
            "queries": list(queries),
            "marks": {m: self.marks[m].ref() for m in sorted(used)},
            "seed": self.study.seed,
            "dtype": dtype_of(attack, self.device_type),
        }
        if attack.registered.spec.tags.infers == "labels":
            inputs = {k: inputs[k] for k in ("plugin", "data", "queries", "marks", "seed")}
            inputs["trials"] = [list(t.sides()) for t in trials]
        infer = _step("infer", attack.id, label, inputs)
        record = _step(
            "record",
            models["target"].plugin.id,
            f"record of {label}",
            {
                "infer": infer.key,
                "trials": [t.model_dump() for t in trials],
                "metrics": {name: m.ref() for name, m in self.metrics.items()},
                "statistics": code_digest("privbench.audit_numbers"),
                "resamples": self.preset.resamples,
                "target": target.model_dump(mode="json"),
                "samples": {name: step.key for name, step in samples.items()},
            },
        )
        return AuditCell(
            target, fold, attack, models, samples, self.marks, trials, parts, infer, record
        )


def _changed(config: GeneratorConfig, settings: Mapping[str, Any]) -> GeneratorConfig:
    """A configuration with some settings changed.

    Raises:
        ConfigError: they do not fit.
    """
    if not settings:
        return config
    try:
        return type(config).model_validate(config.model_dump() | dict(settings))
    except ValidationError as error:
        raise ConfigError(f"The attacker's own model: {error.errors()[0]['msg']}") from None


def _training(plugin: Resolved, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """What of a generative plugin its training depends on."""
    return plugin.ref() | {"config": dict(recipe)}


def _step(stage: Stage, owner: str, label: str, inputs: Mapping[str, Any]) -> Step:
    full = {"stage": stage, **inputs}
    return Step(stage, owner, label, full, key(full))
