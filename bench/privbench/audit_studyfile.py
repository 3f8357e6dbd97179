"""Study files about membership: targets, and rows that say what is asked of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from privbench.audit_plan import GENERATED, PRIMARY, TRIALS, Trial
from privbench.data import AUTO
from privbench.errors import ConfigError, did_you_mean
from privbench.plan import Choice
from privbench.populations import SEEN

TASK: Final = "membership"
"""What `task` says in such a file."""

Group = Literal["paper", "control", "peer", "epochs", "guidance"]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StudyTarget(_Model):
    """One fine-tuned model.

    Attributes:
        name: by which rows call it.
        fold: which draw of people.
        anonymizer: plugin id.
        settings: that differ from the study's.
        quick_settings: that differ in the quick form; None: not a part of it.
    """

    name: str = Field(min_length=1, max_length=40)
    fold: int = Field(default=0, ge=0, le=31)
    anonymizer: str = "ldm-finetune"
    trained_on: tuple[str, ...] = (SEEN,)
    mark: str = ""
    settings: dict[str, Any] = {}
    quick_settings: dict[str, Any] | None = None


class Row(_Model):
    """One question: can these two sets be told apart by what this target released?

    Attributes:
        id: of the row; the paper's number where it is the paper's.
        group: where it stands.
        what: in words.
        targets: by name; several are retrained targets, over which the interval is taken.
        settings: in which they are sampled.
        quick_settings: in the quick form; None: not a part of it.
        attacks: ids, with settings; the study's when empty.
        reported: what the paper printed, by attack id.
        x: place on the axis of a sweep.
    """

    id: str = Field(min_length=1, max_length=12)
    group: Group
    what: str
    targets: tuple[str, ...] = Field(min_length=1)
    trial: str = PRIMARY
    settings: dict[str, Any] = {}
    quick_settings: dict[str, Any] | None = None
    attacks: tuple[Choice, ...] = ()
    reported: dict[str, str] = {}
    x: float | None = None

    @field_validator("attacks", mode="before")
    @classmethod
    def _ids(cls, value: Any) -> Any:
        return choices(value)


class QuickForm(_Model):
    """What the quick form does differently.

    Attributes:
        settings: of every target, over all others.
        attack_settings: attack id -> settings.
    """

    protocol: str = "quick"
    dataset: Choice = Choice(id="synthfaces")
    settings: dict[str, Any] = {}
    attackers: dict[str, Any] = {}
    attack_settings: dict[str, dict[str, Any]] = {}


class AuditStudyFile(_Model):
    """A study about membership. `docs/studies.md` explains each entry.

    Attributes:
        settings: of every target.
        attackers: settings in which the attacker's own model differs.
        attacks: of rows that name none.
        pictures: rows whose targets' samples are shown, by id.
        notes: sentences for the page.
    """

    task: Literal["membership"] = TASK
    title: str
    question: str
    protocol: str = AUTO
    dataset: Choice = Choice(id="synthfaces")
    seed: int = Field(default=0, ge=0)
    settings: dict[str, Any] = {}
    attackers: dict[str, Any] = {}
    attacks: tuple[Choice, ...] = Field(min_length=1)
    trials: tuple[Trial, ...] = (*TRIALS, GENERATED)
    targets: tuple[StudyTarget, ...] = Field(min_length=1)
    rows: tuple[Row, ...] = Field(min_length=1)
    pictures: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    quick: QuickForm = QuickForm()

    @field_validator("attacks", mode="before")
    @classmethod
    def _ids(cls, value: Any) -> Any:
        return choices(value)

    @field_validator("dataset", mode="before")
    @classmethod
    def _id(cls, value: Any) -> Any:
        return choices([value])[0]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        targets, trials = [t.name for t in self.targets], [t.name for t in self.trials]
        for names, what in ((targets, "targets"), ([r.id for r in self.rows], "rows"),
                            (trials, "trials")):  # fmt: skip
            if twice := {name for name in names if names.count(name) > 1}:
                raise ValueError(f"{what} must be distinct; {', '.join(sorted(twice))} is not")
        for row in self.rows:
            for target in row.targets:
                if target not in targets:
                    raise ValueError(
                        f"row {row.id} is about {target!r}, which is no target. "
                        f"{did_you_mean(target, targets)}"
                    )
            if row.trial not in trials:
                raise ValueError(
                    f"row {row.id} is about {row.trial!r}, which is no trial. "
                    f"{did_you_mean(row.trial, trials)}"
                )
        for name in self.pictures:
            if name not in (known := [row.id for row in self.rows]):
                raise ValueError(f"{name!r} is no row to show. {did_you_mean(name, known)}")
        return self

    def target(self, name: str) -> StudyTarget:
        """A target by name."""
        return next(t for t in self.targets if t.name == name)


def choices(value: Any) -> Any:
    """Ids, or tables with `id` and settings, as tables."""
    if not isinstance(value, list | tuple):
        return value
    return [
        {"id": v}
        if isinstance(v, str)
        else {"id": v.get("id"), "settings": {k: x for k, x in v.items() if k != "id"}}
        if isinstance(v, dict) and "settings" not in v
        else v
        for v in value
    ]


def parse_audit_study(body: Mapping[str, Any], name: str) -> AuditStudyFile:
    """A study about membership from a TOML or JSON table.

    Raises:
        ConfigError: an unknown or ill-typed entry, or entries that contradict each other.
    """
    try:
        return AuditStudyFile.model_validate(body)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'study'}: {e['msg']}" for e in error.errors()
        )
        raise ConfigError(f"{name} is not a study: {problems}") from None
