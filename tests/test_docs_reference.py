"""Generated pages are current, and everything has its heading."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import pytest
from cyclopts import App

from docs_kit import DOCS, GENERATED
from privbench import errors, hookspecs
from privbench.audit_record import MembershipRecord
from privbench.cli import app
from privbench.data import PROTOCOLS
from privbench.populations import MEMBERSHIP_PROTOCOLS
from privbench.record import Record
from privbench.record_schema import schema_text
from privbench.registry import load_registry

REFERENCE = (DOCS / "reference.md").read_text(encoding="utf-8")


def headings(text: str, level: int) -> list[str]:
    """Titles of a level, without code marks."""
    return [t.replace("`", "") for t in re.findall(rf"^#{{{level}}} (.+)$", text, re.MULTILINE)]


def test_the_reference_is_current() -> None:
    """docs/reference.md is what `python docs/reference.py` writes, to the byte, twice over."""
    again = "Write it again: python docs/reference.py"
    assert GENERATED["reference"]() == REFERENCE, again
    assert GENERATED["reference"]() == REFERENCE


def test_the_schema_is_current() -> None:
    """docs/record.schema.json is what `privbench schema` prints, to the byte."""
    path = DOCS / "record.schema.json"
    assert path.read_text(encoding="utf-8") == schema_text(), f"privbench schema > {path}"


def functions(group: App, path: str) -> Iterator[tuple[str, inspect.Signature]]:
    """Each command's words and its function's signature."""
    for name in (n for n in group if not n.startswith("-")):
        command = group[name]
        if command.default_command is None:
            yield from functions(command, f"{path} {name}")
        else:
            yield f"{path} {name}", inspect.signature(command.default_command, eval_str=True)


def options(signature: inspect.Signature) -> Iterator[str]:
    """Names of all options, those in groups included."""
    for name, parameter in signature.parameters.items():
        kinds = [k for k in getattr(parameter.annotation, "__args__", [parameter.annotation])
                 if hasattr(k, "__dataclass_fields__")]  # fmt: skip
        yield from (f for kind in kinds for f in kind.__dataclass_fields__)
        if not kinds:
            yield name


@pytest.mark.parametrize(("command", "signature"), list(functions(app, "privbench")))
def test_every_option_has_a_heading(command: str, signature: inspect.Signature) -> None:
    """Each parameter of a command's function has a heading under the command's, with a sentence."""
    _, _, section = REFERENCE.partition(f"### `{command}`\n")
    section = re.split(r"(?m)^#{2,3} ", section)[0]
    shown = [h.strip("-.").lower().replace("-", "_") for h in headings(section, 4)]
    assert sorted(shown) == sorted(name.lower() for name in options(signature))
    for words in re.split(r"(?m)^#### .+$", section):
        assert len(words.strip()) > 5


def test_every_hook_error_and_preset_has_a_heading() -> None:
    """Nothing that the code has is missing from the reference."""
    found = headings(REFERENCE, 3)
    hooks = [n for n, h in vars(hookspecs).items() if hasattr(h, "privbench_spec")]
    raised = [n for n, e in vars(errors).items() if inspect.isclass(e) and issubclass(e, Exception)]
    assert len(hooks) >= 2
    assert len(raised) >= 9
    for name in (
        *hooks,
        *raised,
        *PROTOCOLS,
        *(f"{n} of membership" for n in MEMBERSHIP_PROTOCOLS),
    ):
        assert name in found


def test_every_metric_has_a_heading() -> None:
    """docs/metrics.md defines each built-in metric under a heading of its own."""
    found = re.findall(r"^### .+$", (DOCS / "metrics.md").read_text(encoding="utf-8"), re.MULTILINE)
    named = {name for title in found for name in re.findall(r"`([^`]+)`", title)}
    ours = [p for p in load_registry().of_kind("metric") if p.distribution.startswith("privbench ")]
    assert {p.spec.id for p in ours} == named


def test_every_field_of_a_record_has_a_heading() -> None:
    """docs/records.md has one for each top-level field, and no other."""
    text = (DOCS / "records.md").read_text(encoding="utf-8")
    assert sorted(headings(text, 3)) == sorted(Record.model_fields)


def test_every_field_of_a_membership_record_is_described() -> None:
    """Those that it does not share with other records are in the table."""
    text = (DOCS / "records.md").read_text(encoding="utf-8")
    _, _, section = text.partition("## Records of membership")
    own = set(MembershipRecord.model_fields) - set(Record.model_fields)
    missing = set(Record.model_fields) - set(MembershipRecord.model_fields)
    assert set(re.findall(r"^\| `(\w+)`", section, re.MULTILINE)) == own
    _, _, sentence = " ".join(section.split()).partition("Its fields are those above, save")
    sentence = sentence.partition("besides")[0]
    assert set(re.findall(r"`(\w+)`", sentence)) == missing
