"""From a study to ordered steps with their keys. Runs nothing, writes nothing."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from privbench.data import (
    AUTO,
    Dataset,
    Preset,
    Split,
    attributes_digest,
    check_protocol,
    facts_of,
    get_preset,
    part_digest,
    split,
    trials,
)
from privbench.errors import (
    ConfigError,
    PluginError,
    PluginLoadError,
    PrivbenchError,
    UnknownPluginError,
    did_you_mean,
)
from privbench.keys import code_digest, key
from privbench.registry import Registered, Registry, make_config
from privbench.spec import RANDOM, Config, Kind, Knowledge, PluginSpec
from privbench.store import Artefact, Store
from privbench.types import FindDetector, FoundDetector

VALIDATION = "attacker-validation"
ATTACKER_PARTS = ("attacker-train", VALIDATION)
DEFAULT_BATCH = 64
MOST_DRAWS = 64

Stage = Literal["anonymize", "invert", "attack", "rows", "record", "finetune", "sample", "infer"]


class Choice(BaseModel):
    """A plugin by id, with settings that differ from its defaults.

    Attributes:
        draws: of an anonymizer: how many independent draws of each probe are released.
        fixed_seed: of an anonymizer: all images share one seed (an ablation: a seed is fresh for
            each image unless somebody forgets to change it).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    settings: dict[str, Any] = Field(default_factory=dict)
    draws: int = Field(default=1, ge=1, le=MOST_DRAWS)
    fixed_seed: bool = False


JUDGES = (
    Choice(id="naive-recogniser:tiny-recogniser"),
    Choice(id="naive-recogniser:dlib", settings={"mirror": "off"}),  # it is slow
)
"""Recognisers that judge reconstructions where a study names none; those that can be had here."""


class Study(BaseModel):
    """What to run: every anonymizer under every attack.

    Attributes:
        metrics: all that can run here and are tagged `default`, when empty.
        judges: attacks without any knowledge that judge what inversion attacks reconstruct;
            `JUDGES` when empty.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, ...
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    anonymizers: tuple[Choice, ...]
    attacks: tuple[Choice, ...]
    metrics: tuple[Choice, ...] = ()
    judges: tuple[Choice, ...] = ()
    dataset: Choice = Choice(id="synthfaces")
    protocol: str = AUTO
    seed: int = Field(default=0, ge=0)
    device: str = "auto"


def load_study(path: Path) -> Study:
    """Read a study from TOML.

    A plugin is an id, or a table with `id` and its settings:

        protocol = "quick"
        attacks = ["contrastive-reid"]

        [[anonymizers]]
        id = "controlnet-canny"
        steps = 20

    Raises:
        ConfigError: unreadable, not TOML, or an unknown or ill-typed entry.
    """
    try:
        body = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"Cannot read the study {path}: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    for name in body:
        if name not in Study.model_fields:
            raise ConfigError(
                f"{path} has an unknown entry {name!r}. {did_you_mean(name, Study.model_fields)}"
            )
    for name in ("anonymizers", "attacks", "metrics", "judges"):
        if name in body:
            entries = body[name] if isinstance(body[name], list) else [body[name]]
            body[name] = [_choice(entry, name, path) for entry in entries]
    if "dataset" in body:
        body["dataset"] = _choice(body["dataset"], "dataset", path)
    try:
        return Study.model_validate(body)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ConfigError(f"{path}: {problems}") from None


def _choice(entry: object, name: str, path: Path) -> dict[str, Any]:
    if isinstance(entry, str):
        return {"id": entry}
    if isinstance(entry, dict) and isinstance(entry.get("id"), str):
        names = ("id", "draws", "fixed_seed") if name == "anonymizers" else ("id",)
        own = {k: v for k, v in entry.items() if k in names}
        return own | {"settings": {k: v for k, v in entry.items() if k not in own}}
    raise ConfigError(
        f"{path}: an entry of {name} must be an id or a table with `id`; got {entry!r}."
    )


@dataclass(frozen=True, slots=True)
class Resolved:
    """A plugin ready to be built: configuration checked, code and weights hashed."""

    registered: Registered
    config: Config
    code: str
    weights: Mapping[str, str]

    @property
    def id(self) -> str:
        """The plugin's id."""
        return self.registered.spec.id

    def ref(self) -> dict[str, Any]:
        """What of this plugin enters a key."""
        return {
            "id": self.id,
            "version": self.registered.spec.version,
            "config": self.config.model_dump(mode="json"),
            "code": self.code,
            "weights": dict(self.weights),
        }

    @property
    def batch_size(self) -> int:
        """Fixed batch shape: the plugin's own setting, or the harness's."""
        return int(getattr(self.config, "batch_size", DEFAULT_BATCH))


def resolve(registry: Registry, kind: Kind, choice: Choice) -> Resolved:
    """Look a plugin up, check its settings, hash its code and weights.

    Raises:
        PrivbenchError: there is none, its settings do not fit, or its own code failed.
    """
    found = registry.get(kind, plain_id(choice.id))
    settings = choice.settings
    if ":" in choice.id:
        settings = {_argument(found.spec, choice.id): choice.id.partition(":")[2]} | settings
    try:
        config = make_config(found.spec, settings)
        weights = found.spec.weights(config) if found.spec.weights else {}
    except PrivbenchError:
        raise
    except Exception as error:
        raise PluginError(
            f"The {kind} {found.spec.id} ({found.distribution}) failed while being planned: "
            f"{type(error).__name__}: {error}"
        ) from error
    return Resolved(found, config, code_digest(found.spec.build.__module__), weights)


def plain_id(given: str) -> str:
    """The id in `id` or `id:VALUE`."""
    return given.partition(":")[0]


def _argument(spec: PluginSpec, given: str) -> str:
    """The setting that `id:VALUE` fills in."""
    if not spec.argument:
        raise ConfigError(
            f"{spec.kind} {spec.id} takes no value after a colon; got {given!r}. "
            f"`privbench describe {spec.id}` shows its settings."
        )
    return spec.argument


@dataclass(frozen=True, slots=True)
class Step:
    """One artefact to have.

    Attributes:
        stage: which kind of step.
        plugin: id of the plugin that computes it.
        label: what a person calls it, e.g. `controlnet-canny: probes`.
        inputs: everything the result depends on.
        key: their hash.
    """

    stage: Stage
    plugin: str
    label: str
    inputs: Mapping[str, Any]
    key: str


def _step(stage: Stage, owner: str, label: str, /, **inputs: Any) -> Step:
    full = {"stage": stage, **inputs}
    return Step(stage, owner, label, full, key(full))


@dataclass(frozen=True, slots=True)
class Cell:
    """One anonymizer under one attack.

    Attributes:
        choice: how the anonymizer's release was asked for.
        threat_model: the attacker's knowledge; of a fusion, the strongest of its members.
        anonymize: part name, or `part#draw` -> step.
        score: the attack's step.
        rows: metric id -> step, for metrics of identification.
        utility: metric id -> step, for metrics of the release.
        record: the last step.
        members: cells whose scores the attack fuses.
        invert: the step that reconstructs, of an attack that does.
        judges: recognisers of reconstructions by name; empty for other attacks.
        inversion: metric id -> step, for metrics of an inversion.
    """

    anonymizer: Resolved
    attack: Resolved
    choice: Choice
    threat_model: Knowledge
    anonymize: Mapping[str, Step]
    score: Step
    rows: Mapping[str, Step]
    utility: Mapping[str, Step]
    record: Step
    members: tuple[Cell, ...] = ()
    invert: Step | None = None
    judges: Mapping[str, Resolved] = field(default_factory=dict)
    inversion: Mapping[str, Step] = field(default_factory=dict)

    @property
    def draws(self) -> int:
        """Independent draws of each probe that the release holds."""
        return sum(name.partition("#")[0] == "probes" for name in self.anonymize)

    @property
    def fixed_seed(self) -> bool:
        """All images share one seed."""
        return self.choice.fixed_seed and self.anonymizer.registered.spec.tags.stochastic

    @property
    def label(self) -> str:
        """What a picture calls it."""
        return f"{self.anonymizer.id}: {self.attack.id}"

    def steps(self) -> Iterator[Step]:
        """All steps in order."""
        yield from self.anonymize.values()
        yield from (member.score for member in self.members)
        if self.invert:
            yield self.invert
        yield self.score
        yield from self.rows.values()
        yield from self.utility.values()
        yield from self.inversion.values()
        yield self.record


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A study with everything resolved."""

    study: Study
    preset: Preset
    data: Dataset
    data_plugin: Resolved
    split: Split
    metrics: Mapping[str, Resolved]
    cells: tuple[Cell, ...]

    def steps(self) -> list[Step]:
        """Distinct steps of all cells, in order."""
        return list({s.key: s for cell in self.cells for s in cell.steps()}.values())


def make_plan(study: Study, registry: Registry, device_type: str) -> Plan:
    """Resolve a study.

    Args:
        device_type: `cpu` or `cuda`: what a dtype of `auto` is resolved by.

    Raises:
        PrivbenchError: anything wrong with ids, settings, models or data, before any work.
    """
    if not study.anonymizers or not study.attacks:
        raise ConfigError("A study needs at least one anonymizer and one attack.")
    check_protocol(study.protocol)
    data_plugin = resolve(registry, "dataset", study.dataset)
    chosen = study.metrics or tuple(
        Choice(id=m.spec.id)
        for m in registry.of_kind("metric")
        if m.spec.tags.default and not m.unavailable
    )
    metrics = {c.id: resolve(registry, "metric", c) for c in chosen}
    for name, metric in metrics.items():
        if metric.registered.spec.tags.evidence == "membership":
            raise ConfigError(
                f"The metric {name} measures membership inference; a run of these anonymizers and "
                "attacks has none."
            )
    anonymizers = [(resolve(registry, "anonymizer", c), c) for c in study.anonymizers]
    attacks = [resolve(registry, "attack", c) for c in study.attacks]
    for plugin in (*(a for a, _ in anonymizers), *attacks, *metrics.values()):
        refuse_random(plugin)
    _check_fusion(attacks)
    inverters = [a for a in attacks if a.registered.spec.tags.inverts]
    judges = find_judges(registry, study.judges) if inverters or study.judges else {}
    for attack in inverters:
        _refuse_seen(attack, judges)
    data = open_dataset(registry, data_plugin)
    preset = get_preset(study.protocol, data)
    parts = split(data, preset)
    digests = {name: part_digest(data, rows) for name, rows in parts.parts().items()}
    labels = {name: attributes_digest(data, rows) for name, rows in parts.parts().items()}
    facts = _facts_digest(data, data_plugin)
    context = _Context(study.seed, preset, digests, labels, metrics, judges, device_type, facts)
    cells = tuple(
        cell
        for anonymizer, choice in anonymizers
        for cell in _row(context, anonymizer, choice, attacks)
    )
    return Plan(study, preset, data, data_plugin, parts, metrics, cells)


def open_dataset(registry: Registry, plugin: Resolved) -> Dataset:
    """Build a data set; one that aligns may ask for any installed detector."""
    spec = plugin.registered.spec
    build: Any = spec.build
    more = (find_detector(registry),) if spec.tags.aligns else ()
    made: Dataset = build(plugin.config, *more)
    return made


def find_detector(registry: Registry) -> FindDetector:
    """Looks detectors up by `ID` or `ID:VALUE`."""

    def find(text: str) -> FoundDetector:
        found = resolve(registry, "detector", Choice(id=text))
        ref = found.ref()  # a path is no fact: the hash of what lies there is
        ref["config"] = {k: v for k, v in ref["config"].items() if not _is_path(v)}
        return FoundDetector(lambda: found.registered.spec.build(found.config), ref)

    return find


def _is_path(value: object) -> bool:
    return isinstance(value, str) and Path(value).expanduser().exists()


def _facts_digest(data: Dataset, plugin: Resolved) -> str:
    """What a record says of its data set beyond the images that are used."""
    return key({"id": plugin.id, "facts": facts_of(data)})


def find_judges(registry: Registry, chosen: Sequence[Choice]) -> dict[str, Resolved]:
    """The recognisers that judge reconstructions, by name.

    Raises:
        ConfigError: one knows the anonymizer or is a control; two of one name; or none is named
            and none of `JUDGES` can be had here.
        PrivbenchError: one that is named cannot be had.
    """
    if not chosen:
        found = {}
        for choice in JUDGES:
            try:
                found[judge_name(choice.id)] = resolve(registry, "attack", choice)
            except (PluginLoadError, UnknownPluginError):
                continue  # dlib is an extra
        if not found:
            names = ", ".join(choice.id for choice in JUDGES)
            raise ConfigError(
                f"Inversion attacks need a judge, and none of {names} can be had here. Name one "
                "with --judge."
            )
        return found
    judges: dict[str, Resolved] = {}
    usual = {choice.id: choice.settings for choice in JUDGES}
    for given in chosen:
        choice = Choice(id=given.id, settings=usual.get(given.id, {}) | given.settings)
        judge, name = resolve(registry, "attack", choice), judge_name(choice.id)
        refuse_random(judge)
        tags = judge.registered.spec.tags
        if tags.knowledge != "none" or tags.control or tags.fuses or tags.inverts:
            raise ConfigError(
                f"{judge.id} cannot judge reconstructions: a judge is a recogniser that knows "
                f"nothing of the anonymizer, such as {JUDGES[0].id}."
            )
        if name in judges:
            raise ConfigError(f"Two judges are called {name!r}; each needs a name of its own.")
        judges[name] = judge
    return judges


def judge_name(given: str) -> str:
    """The value in `id:VALUE`, else the id."""
    return given.partition(":")[2] or given


def _refuse_seen(attack: Resolved, judges: Mapping[str, Resolved]) -> None:
    """A judge whose weights the attack uses would be judging itself."""
    own = {value for name, value in attack.weights.items() if not name.endswith(".json")}
    for name, judge in judges.items():
        if own & set(judge.weights.values()):
            raise ConfigError(
                f"{attack.id} uses the weights of {name}, so {name} cannot judge what it "
                "reconstructs. Choose another --judge."
            )


def is_member(attack: Resolved) -> bool:
    """Whether attacks that fuse others take this one: neither one of them nor a control."""
    tags = attack.registered.spec.tags
    return not tags.fuses and tags.control is None


def _check_fusion(attacks: Sequence[Resolved]) -> None:
    members = [a.id for a in attacks if is_member(a)]
    for attack in attacks:
        if attack.registered.spec.tags.fuses and len(members) < 2:
            raise ConfigError(
                f"{attack.id} combines the other attacks of a run and needs two at least, controls "
                f"aside; this run has {', '.join(members) or 'none'}. Add some with --attack."
            )


@dataclass(frozen=True, slots=True)
class _Context:
    """What the keys of all cells depend on."""

    seed: int
    preset: Preset
    digests: Mapping[str, str]
    labels: Mapping[str, str]
    metrics: Mapping[str, Resolved]
    judges: Mapping[str, Resolved]
    device_type: str
    facts: str


def _row(
    context: _Context, anonymizer: Resolved, choice: Choice, attacks: Sequence[Resolved]
) -> list[Cell]:
    """One anonymizer under every attack, those that fuse last: they rest on the others."""
    cells = {
        i: _cell(context, anonymizer, choice, attack)
        for i, attack in enumerate(attacks)
        if not attack.registered.spec.tags.fuses
    }
    members = [cell for i, cell in cells.items() if is_member(attacks[i])]
    fused = {
        i: _cell(context, anonymizer, choice, attack, members)
        for i, attack in enumerate(attacks)
        if i not in cells
    }
    return [*cells.values(), *fused.values()]


def _releases(
    context: _Context, anonymizer: Resolved, choice: Choice, adaptive: bool
) -> dict[str, Step]:
    """The steps that anonymize what one attack needs: part, or `part#draw`, to step."""
    spec = anonymizer.registered.spec
    parts = {
        "probes",
        "cross-gallery",
        "non-mated",
        VALIDATION,
        *(ATTACKER_PARTS if adaptive else ()),
    }
    steps = {}
    for part in sorted(parts, key=list(context.digests).index):
        draws = choice.draws if spec.tags.stochastic and part != "cross-gallery" else 1
        for draw in range(draws):
            name = drawn(part, draw)
            unusual = {"draw": draw} if draw else {}
            unusual |= {"fixed_seed": True} if choice.fixed_seed and spec.tags.stochastic else {}
            steps[name] = _step(
                "anonymize",
                anonymizer.id,
                f"{anonymizer.id}: {name}",
                plugin=anonymizer.ref(),
                data=context.digests[part],
                fit=_fit_digest(context, spec.tags.fit_on, part),
                batch=anonymizer.batch_size,
                seed=context.seed,
                dtype=dtype_of(anonymizer, context.device_type),
                **unusual,
            )
    return steps


def released_with(part: str) -> tuple[str, ...]:
    """Parts that are one release: what `fit_on="release"` sees beside a part, itself included."""
    groups = (ATTACKER_PARTS, ("probes", "non-mated"))
    return next((group for group in groups if part in group), (part,))


def _fit_digest(context: _Context, on: str | None, part: str) -> Any:
    if on == "release":
        return [context.digests[name] for name in released_with(part)]
    return context.digests.get(on or "", "")


def drawn(part: str, draw: int) -> str:
    """Name of one draw of a part: `probes`, `probes#1`, ..."""
    return f"{part}#{draw}" if draw else part


def part_and_draw(name: str) -> tuple[str, int]:
    """The part and the draw that `drawn` made a name of."""
    part, _, draw = name.partition("#")
    return part, int(draw or 0)


def _cell(
    context: _Context,
    anonymizer: Resolved,
    choice: Choice,
    attack: Resolved,
    members: Sequence[Cell] = (),
) -> Cell:
    digests, preset = context.digests, context.preset
    knowledge = strongest([attack, *(cell.attack for cell in members)])
    anonymize = _releases(context, anonymizer, choice, knowledge == "adaptive")
    label = f"{attack.id} on {anonymizer.id}"
    if members:
        inputs: dict[str, Any] = {"members": {n: c.score.key for n, c in labelled(members).items()}}
    else:
        inputs = {
            "anonymize": {part: step.key for part, step in anonymize.items()},
            "data": {p: digests[p] for p in (*ATTACKER_PARTS, "gallery", "probes", "non-mated")},
            "seed": context.seed,
            "dtype": dtype_of(attack, context.device_type),
        }
    invert = None
    if attack.registered.spec.tags.inverts:
        invert = _step(
            "invert", attack.id, f"{label}: reconstructions", plugin=attack.ref(), **inputs
        )
        judges = {name: judge.ref() for name, judge in context.judges.items()}
        inputs = {"invert": invert.key, "judges": judges}
    score = _step("attack", attack.id, label, plugin=attack.ref(), **inputs)
    shape = {
        "trials": [[t.name, t.references] for t in trials(preset)],
        "preset": [preset.name, preset.version],
    }
    core = code_digest("privbench.evidence")
    rows = {}
    utility = {}
    inversion = {}
    for name, metric in context.metrics.items():
        tags = metric.registered.spec.tags
        if tags.evidence == "inversion":
            if invert:
                seen = {"attack": score.key, "core": core, **shape}
                inversion[name] = _step(
                    "rows", name, f"{name} of {label}", plugin=metric.ref(), **seen
                )
        elif tags.evidence != "release":
            rows[name] = _step(
                "rows",
                name,
                f"{name} of {label}",
                plugin=metric.ref(),
                attack=score.key,
                core=core,
                **shape,
            )
        else:
            parts = ("probes", tags.fit_on) if tags.fit_on else ("probes",)
            utility[name] = _step(
                "rows",
                name,
                f"{name} of {anonymizer.id}",
                plugin=metric.ref(),
                anonymize=anonymize["probes"].key,
                fit=digests.get(tags.fit_on or "", ""),
                labels={part: context.labels.get(part, "") for part in parts},
            )
    record = _step(
        "record",
        anonymizer.id,
        f"record of {label}",
        rows={name: step.key for name, step in rows.items()},
        utility={name: step.key for name, step in utility.items()},
        attack=score.key,
        facts=context.facts,
        release=[choice.draws, choice.fixed_seed],
        statistics=code_digest("privbench.stats"),
        resamples=preset.resamples,
        **({"inversion": {name: step.key for name, step in inversion.items()}} if invert else {}),
    )
    return Cell(
        anonymizer,
        attack,
        choice,
        knowledge,
        anonymize,
        score,
        rows,
        utility,
        record,
        tuple(members),
        invert,
        context.judges if invert else {},
        inversion,
    )


def strongest(attacks: Sequence[Resolved]) -> Knowledge:
    """The strongest threat model among attacks."""
    return most_known(a.registered.spec.tags.knowledge for a in attacks)


def most_known(models: Iterable[Knowledge | None]) -> Knowledge:
    """The strongest of some threat models."""
    order: tuple[Knowledge, ...] = ("none", "black-box", "adaptive", "gray-box")
    return max((model or "none" for model in models), key=order.index)


def labelled(members: Sequence[Cell]) -> dict[str, Cell]:
    """Cells by their attack's id; a second one of the same id is `id#2`."""
    found: dict[str, Cell] = {}
    for cell in members:
        same = sum(c.attack.id == cell.attack.id for c in found.values())
        found[f"{cell.attack.id}#{same + 1}" if same else cell.attack.id] = cell
    return found


def is_random(plugin: Resolved) -> bool:
    """Whether a plugin has random weights, good for timing only (see `privbench.spec.RANDOM`)."""
    return any(value.startswith(RANDOM) for value in plugin.weights.values())


def refuse_random(plugin: Resolved) -> None:
    """Let no plugin with random weights come near a number about privacy.

    Raises:
        ConfigError: it has some.
    """
    if is_random(plugin):
        raise ConfigError(
            f"{plugin.id} is set to a model with random weights, which is for timing only: what "
            "it makes says nothing about privacy. Measure an anonymizer's speed with "
            "`privbench time`, or run it with a trained model."
        )


def dtype_of(plugin: Resolved, device_type: str) -> str:
    """The plugin's dtype; `auto` depends on the device, so it carries the device's type."""
    name = str(getattr(plugin.config, "dtype", "float32"))
    return f"{name}/{device_type}" if name == "auto" else name


@dataclass(frozen=True, slots=True)
class Status:
    """Whether a step is in the store, and if not, why.

    Attributes:
        hit: it is there.
        reason: for a miss: the nearest stored step and what differs; for a hit: "".
    """

    step: Step
    hit: bool
    reason: str


class Planned(Protocol):
    """Whatever knows its steps."""

    def steps(self) -> list[Step]:
        """Distinct steps, in order."""
        ...


def status(plan: Planned, store: Store) -> list[Status]:
    """Hit or miss of every step, with reasons. Reads the store; computes nothing."""
    missing: dict[str, str] = {}
    found = []
    for step in plan.steps():
        if store.find(step.stage, step.plugin, step.key):
            found.append(Status(step, True, ""))
            continue
        reason = _reason(step, store.siblings(step.stage, step.plugin), missing)
        if done := len(store.parts(step.key)):
            reason = f"interrupted: {done} part(s) are kept and taken up again"
        missing[step.key] = step.label
        found.append(Status(step, False, reason))
    return found


def _reason(step: Step, siblings: Sequence[Artefact], missing: Mapping[str, str]) -> str:
    """Why there is no artefact: what differs from the nearest one that exists."""
    if not siblings:
        return f"first {step.stage} of {step.plugin} in this store"
    mine = _flat(step.inputs)
    nearest = min((_difference(mine, _flat(s.inputs)) for s in siblings), key=len)
    upstream = [missing[new] for _, _, new in nearest if isinstance(new, str) and new in missing]
    if upstream and len(upstream) == len(nearest):
        return f"follows: {'; '.join(upstream[:2])}"
    shown = [f"{n}: {_short(old)} -> {_short(new)}" for n, old, new in nearest[:3]]
    more = f" and {len(nearest) - 3} more" if len(nearest) > 3 else ""
    return "changed " + "; ".join(shown) + more


def _flat(value: object, prefix: str = "") -> dict[str, object]:
    if isinstance(value, Mapping) and value:
        flat: dict[str, object] = {}
        for name, inner in value.items():
            flat |= _flat(inner, f"{prefix}.{name}" if prefix else str(name))
        return flat
    return {prefix: list(value) if isinstance(value, list | tuple) else value}


def _difference(
    mine: Mapping[str, object], other: Mapping[str, object]
) -> list[tuple[str, object, object]]:
    names = sorted(mine.keys() | other.keys())
    return [(n, other.get(n), mine.get(n)) for n in names if mine.get(n) != other.get(n)]


def _short(value: object) -> str:
    text = "none" if value is None else str(value)
    is_hash = len(text) == 64 and all(c in "0123456789abcdef" for c in text)
    return text[:8] if is_hash else text if len(text) <= 40 else text[:37] + "..."


def parse_settings(
    pairs: Sequence[str], selected: Sequence[tuple[Kind, str]], registry: Registry
) -> dict[tuple[Kind, str], dict[str, Any]]:
    """`key=value` or `plugin.key=value` onto the selected plugins.

    An unqualified key goes to the selected plugin that has it.

    Raises:
        ConfigError: not `key=value`; no selected plugin has the key; several have it.
    """
    fields = {
        (kind, name): registry.get(kind, plain_id(name)).spec.config.model_fields
        for kind, name in selected
    }
    result: dict[tuple[Kind, str], dict[str, Any]] = {ref: {} for ref in selected}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise ConfigError(f"--set takes key=value or plugin.key=value; got {pair!r}.")
        owner, dot, field = name.rpartition(".")
        if dot:
            owners = [ref for ref in selected if plain_id(ref[1]) == owner]
            if not owners:
                hint = did_you_mean(owner, [plain_id(plugin) for _, plugin in selected])
                raise ConfigError(f"--set {pair}: {owner!r} is not part of this run. {hint}")
        else:
            field = name
            owners = [ref for ref in selected if name in fields[ref]]
            if not owners:
                known = {f for names in fields.values() for f in names}
                hint = did_you_mean(name, known) if known else ""
                raise ConfigError(f"--set {pair}: no plugin of this run has {name!r}. {hint}")
            if len(owners) > 1:
                choices = " or ".join(f"{plain_id(plugin)}.{name}" for _, plugin in owners)
                raise ConfigError(f"--set {pair}: several plugins have {name!r}; say {choices}.")
        for ref in owners:
            result[ref][field] = value
    return result
