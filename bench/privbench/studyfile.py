"""Study files: which variants are compared, under which attacks, and what is asked of them."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from privbench.audit_studyfile import TASK, AuditStudyFile, choices, parse_audit_study
from privbench.errors import ConfigError, did_you_mean
from privbench.plan import Choice

Group = Literal["condition", "sweep", "baseline", "control", "diagnostic"]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Variant(_Model):
    """One anonymizer with its settings, as a row of the study.

    Attributes:
        label: its name in tables and plots; distinct.
        group: where it stands; controls and diagnostics are no candidates for use.
        anonymizer: plugin id.
        settings: that differ from the plugin's defaults.
        quick: part of the quick form.
        draws: independent draws of each probe that are released.
        fixed_seed: all images share one seed.
        picture: has a row in the picture grid.
        without: attacks, by id, that are not run on it: their cost.
    """

    label: str = Field(min_length=1, max_length=60)
    group: Group
    anonymizer: str
    settings: dict[str, Any] = {}
    draws: int = Field(default=1, ge=1, le=64)
    fixed_seed: bool = False
    quick: bool = False
    picture: bool = True
    without: tuple[str, ...] = ()


class Sweep(_Model):
    """One setting of one variant over several values; the variant itself is the default's point.

    Attributes:
        variant: label of the variant that is varied.
        setting: name of the setting.
        values: without the default.
        quick: those that are part of the quick form.
        picture: the sweep's variants have rows in the picture grid.
    """

    variant: str
    setting: str
    values: tuple[float, ...] = Field(min_length=1)
    quick: tuple[float, ...] = ()
    picture: bool = False

    def label(self, value: float) -> str:
        """Label of the variant at one value."""
        return f"{self.variant} ({self.setting.replace('_', ' ')} {value:g})"


class Curve(_Model):
    """One setting of an inversion attack over several values, on some variants.

    Attributes:
        attack: with the settings that stay.
        setting: name of the setting that is varied, an integer.
        values: ascending.
        variants: labels.
        judges: in place of the study's; one is cheaper than two.
    """

    attack: Choice
    setting: str = "queries"
    values: tuple[int, ...] = Field(min_length=1)
    variants: tuple[str, ...] = Field(min_length=1)
    judges: tuple[str, ...] = ()

    @field_validator("attack", mode="before")
    @classmethod
    def _id(cls, value: Any) -> Any:
        return choices([value])[0]

    def choices(self) -> tuple[Choice, ...]:
        """The attack at each value."""
        return tuple(
            Choice(id=self.attack.id, settings=self.attack.settings | {self.setting: value})
            for value in self.values
        )


class Reported(_Model):
    """A number from elsewhere that is printed beside the study's, with its caveats."""

    value: float
    what: str
    source: str
    caveats: tuple[str, ...]


class Quick(_Model):
    """What the quick form does differently."""

    protocol: str = ""
    attacks: tuple[Choice, ...] = ()


class StudyFile(_Model):
    """A study. `docs/studies.md` explains each entry.

    Attributes:
        references: labels of variants from which paired differences are taken.
        metrics: those that are not installed are left out and named.
        judges: recognisers of reconstructions, as `privbench run --judge` takes them; empty: the
            usual ones that can be had.
        k: of the k-anonymity verdict.
        people: columns of the picture grid; 0 draws none. Only for images that may be shown.
        utility: columns of the utility table: `metric/output`, or `metric` for its first output;
            empty: all that exist.
        frontier: utilities of the privacy-utility plots, named likewise.
        notes: sentences for the page.
    """

    title: str
    question: str
    protocol: str = "quick"
    dataset: Choice = Choice(id="synthfaces")
    seed: int = Field(default=0, ge=0)
    attacks: tuple[Choice, ...] = Field(min_length=1)
    metrics: tuple[Choice, ...] = (Choice(id="identification"),)
    judges: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    k: int = Field(default=5, ge=2)
    people: int = Field(default=0, ge=0, le=12)
    utility: tuple[str, ...] = ()
    frontier: tuple[str, ...] = ("ssim",)
    notes: tuple[str, ...] = ()
    reported: tuple[Reported, ...] = ()
    quick: Quick = Quick()
    variants: tuple[Variant, ...] = Field(min_length=1)
    sweeps: tuple[Sweep, ...] = ()
    curves: tuple[Curve, ...] = ()

    @field_validator("attacks", "metrics", mode="before")
    @classmethod
    def _ids(cls, value: Any) -> Any:
        return choices(value)

    @field_validator("dataset", mode="before")
    @classmethod
    def _id(cls, value: Any) -> Any:
        return choices([value])[0]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        labels = [v.label for v in self.variants]
        for sweep in self.sweeps:
            if sweep.variant not in labels:
                raise ValueError(
                    f"a sweep varies {sweep.variant!r}, which is no variant. "
                    f"{did_you_mean(sweep.variant, labels)}"
                )
            if odd := set(sweep.quick) - set(sweep.values):
                raise ValueError(f"quick values {sorted(odd)} of a sweep are not among its values")
        every = [v.label for v in select(self, quick=False)]
        if twice := {x for x in every if every.count(x) > 1}:
            raise ValueError(f"labels must be distinct; {', '.join(sorted(twice))} is not")
        attacks = {choice.id for choice in (*self.attacks, *self.quick.attacks)}
        for left in (left for v in self.variants for left in v.without):
            if left not in attacks:
                raise ValueError(
                    f"a variant is without {left!r}, which is no attack of the study. "
                    f"{did_you_mean(left, attacks)}"
                )
        for label in (label for curve in self.curves for label in curve.variants):
            if label not in every:
                raise ValueError(
                    f"a curve is about {label!r}, which is no variant. {did_you_mean(label, every)}"
                )
        for reference in self.references:
            if reference not in every:
                raise ValueError(
                    f"the reference {reference!r} is no variant. {did_you_mean(reference, every)}"
                )
        return self


def select(study: StudyFile, quick: bool) -> tuple[Variant, ...]:
    """The variants to run, in the order of the tables: sweeps after all others."""
    chosen = [v for v in study.variants if v.quick or not quick]
    by_label = {v.label: v for v in study.variants}
    for sweep in study.sweeps:
        base = by_label[sweep.variant]
        for value in sweep.quick if quick else sweep.values:
            settings = base.settings | {sweep.setting: value}
            chosen.append(
                Variant(
                    label=sweep.label(value),
                    group="sweep",
                    anonymizer=base.anonymizer,
                    settings=settings,
                    quick=value in sweep.quick,
                    picture=sweep.picture,
                )
            )
    return tuple(chosen)


def load_study_file(name: str, known: Mapping[str, Path]) -> tuple[str, StudyFile | AuditStudyFile]:
    """A study by name or by path; returns its short name and its content.

    Args:
        name: of an installed study, or a path that ends in `.toml`.
        known: installed studies.

    Raises:
        ConfigError: no such study; or the file is unreadable, not TOML, or not a study.
    """
    if not name.endswith(".toml"):
        if name not in known:
            raise ConfigError(
                f"There is no study {name!r}. {did_you_mean(name, known)} "
                "A study of your own is a path that ends in .toml (docs/studies.md)."
            )
        path = known[name]
    else:
        path = Path(name)
    try:
        body = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"Cannot read the study {path}: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    if body.get("task") == TASK:
        return path.stem, parse_audit_study(body, str(path))
    return path.stem, parse_study(body, str(path))


def parse_study(body: Any, name: str) -> StudyFile:
    """A study from a TOML or JSON table.

    Raises:
        ConfigError: an unknown or ill-typed entry, or entries that contradict each other.
    """
    if isinstance(body, dict) and isinstance(quick := body.get("quick"), dict):
        body = body | {"quick": quick | {"attacks": choices(quick.get("attacks", []))}}
    try:
        return StudyFile.model_validate(body)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'study'}: {e['msg']}" for e in error.errors()
        )
        raise ConfigError(f"{name} is not a study: {problems}") from None
