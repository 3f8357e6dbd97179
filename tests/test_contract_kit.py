"""The contract kit itself: which checks, what comes of them, and what it takes to fail one."""

from __future__ import annotations

import re
import types
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import planted
from privbench import testing as kit
from privbench.errors import ConfigError
from privbench.spec import KINDS, NoConfig, PluginSpec, Tags
from privbench.testing import describe
from privbench.testing.check import PREFIX
from privbench.testing.families import FAMILIES, family_of

pytestmark = pytest.mark.usefixtures("one_thread")

DOCS = Path(__file__).parents[1] / "docs" / "contract.md"
HONEST = planted.HONEST["anonymizer"]


def functions(module: types.ModuleType) -> Mapping[str, Any]:
    """The checks of a module, by name; not those that it shares with others."""
    return {
        name.removeprefix(PREFIX): value
        for name, value in vars(module).items()
        if name.startswith(PREFIX) and value.__module__ == module.__name__
    }


SHARED = {"every plugin": describe, "every plugin in use": FAMILIES["attack"].module.conduct}
SECTIONS = {**SHARED, **{name: family.module for name, family in FAMILIES.items()}}
ALL = [(section, name) for section, module in SECTIONS.items() for name in functions(module)]


# --- every check is proved and described ---------------------------------------------------------


@pytest.mark.parametrize(("section", "name"), ALL, ids=[f"{s}-{n}" for s, n in ALL])
def test_every_check_has_a_planted_defect_and_a_line_that_says_what_it_proves(
    section: str, name: str
) -> None:
    """`plugin check` prints the line; `test_contract_planted` runs the defect."""
    planned = {
        (family_of(planted.HONEST[of]), defect)
        for of, defects in planted.PLANTED.items()
        for defect in defects
    }
    if section in SHARED:
        assert any(check == name for _, check in planned)
    else:
        assert (section, name) in planned
    line = kit.Check(functions(SECTIONS[section])[name], kit.Workbench(HONEST)).proves
    assert line.endswith(".")
    assert line[0].isupper()
    assert len(line) < 200


@pytest.mark.parametrize("family", FAMILIES)
def test_checks_that_planted_plugins_meet_are_all_there_are(family: str) -> None:
    """No check of a family is left out whatever the tags are: each is listed by some plugin."""
    listed = {
        check.name
        for of, spec in planted.HONEST.items()
        if family_of(spec) == family
        for check in [*kit.checks_of(spec), *_with_special_tags(spec)]
    }
    assert listed >= set(functions(FAMILIES[family].module))


def _with_special_tags(spec: PluginSpec) -> list[kit.Check]:
    return kit.checks_of(replace(spec, weights=planted.bad_weights))


def test_the_page_has_a_heading_for_each_check_and_no_other() -> None:
    """`docs/contract.md` and the code name the same checks, family by family."""
    text = DOCS.read_text(encoding="utf-8")
    found: dict[str, list[str]] = {}
    for section in re.split(r"^## ", text, flags=re.M)[1:]:
        found[section.partition("\n")[0]] = re.findall(r"^### `(\w+)`$", section, flags=re.M)
    described = {title: sorted(names) for title, names in found.items() if names}
    titles = {section: section[0].upper() + section[1:] for section in SECTIONS}
    expected = {titles[s]: sorted(functions(module)) for s, module in SECTIONS.items()}
    assert described == expected


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_checks_beyond_its_description(kind: Any) -> None:
    """Nothing is installed unchecked."""
    spec = next(spec for spec in planted.HONEST.values() if spec.kind == kind)
    assert len(kit.checks_of(spec)) > len(describe.checks(spec)) + 3


# --- findings ------------------------------------------------------------------------------------


def status_of(spec: PluginSpec, check: str, expected: Mapping[str, str] = {}) -> kit.Finding:
    """What came of one check."""
    found = kit.check_plugin(spec, expected_failures=expected)
    return next(f for f in found if f.check == check)


def test_expected_failures_are_strict() -> None:
    """An expected failure that fails is none; one that passes is one; both say the reason."""
    broken = planted.defective("anonymizer", "output")
    reason = {"output": "it is bright"}
    assert status_of(broken, "output").status == "failed"
    found = status_of(broken, "output", reason)
    assert (found.status, found.broken) == ("expected", False)
    assert "values in [0, 1]" in found.problem
    assert found.problem.endswith("it is bright")
    found = status_of(HONEST, "output", reason)
    assert (found.status, found.broken) == ("unexpected-pass", True)
    assert "it is bright" in found.problem
    assert status_of(HONEST, "output").status == "passed"


def test_an_expected_failure_of_no_check_is_refused_with_a_suggestion() -> None:
    """A misspelt name would excuse nothing, and nobody would notice."""
    for use in (
        lambda: kit.check_plugin(HONEST, expected_failures={"outputs": "why"}),
        lambda: kit.parametrize_with_checks([HONEST], {"outputs": "why"}),
        lambda: kit.parametrize_with_checks([HONEST], {HONEST.id: {"outputs": "why"}}),
    ):
        with pytest.raises(ConfigError, match=r"no check 'outputs'.*output"):
            use()
    with pytest.raises(ConfigError, match=r"'planted/mosaik', which is not checked.*mosaic"):
        kit.parametrize_with_checks([HONEST], {"planted/mosaik": {"output": "why"}})
    with pytest.raises(ConfigError, match="needs a reason"):
        kit.check_plugin(HONEST, expected_failures={"output": " "})


def test_a_crash_is_a_finding() -> None:
    """An exception inside a plugin is reported like any other broken promise."""
    crashing = replace(HONEST, build=planted.bad_weights)
    found = status_of(crashing, "output")
    assert found.status == "failed"
    assert "AttributeError" in found.problem


def test_parametrize_names_each_test_and_marks_expected_failures() -> None:
    """The pytest form: ids `plugin-check`, strict expected failures with their reason."""
    other = replace(HONEST, id="planted/other")
    expected = {HONEST.id: {"order": "it counts"}}
    mark = kit.parametrize_with_checks([HONEST, other], expected).mark
    assert mark.args[0] == "check"
    rows = {row.id: row for row in mark.args[1]}
    assert {"planted/mosaic-order", "planted/other-order"} <= set(rows)
    (xfail,) = rows["planted/mosaic-order"].marks
    assert (xfail.name, xfail.kwargs) == ("xfail", {"reason": "it counts", "strict": True})
    assert not rows["planted/other-order"].marks


@kit.parametrize_with_checks([HONEST])
def test_the_decorator_runs_every_check(check: kit.Check) -> None:
    """As an author uses it."""
    check()


def test_collecting_the_checks_builds_nothing() -> None:
    """A plugin is built when its first check runs, not when pytest collects."""
    assert len(kit.checks_of(replace(HONEST, build=types.SimpleNamespace))) > 10


def test_progress_counts_the_checks() -> None:
    """A reporter hears of every check."""
    from privbench.progress import Silent

    class Counting(Silent):
        done = 0

        def task(self, label: str, total: int, unit: str = "images") -> Any:
            self.total = total
            return super().task(label, total, unit)

    reporter = Counting()
    assert len(kit.check_plugin(HONEST, reporter=reporter)) == reporter.total


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"summary": "two\nlines"}, "one line"),
        ({"summary": "x" * 101}, "longer than 100"),
        ({"build": lambda _: None}, "top of its module"),
        ({"tags": Tags(knowledge="none")}, "Tags.knowledge belongs"),
        ({"tags": Tags(evidence="release")}, "Tags.evidence belongs"),
    ],
)
def test_a_description_must_fit(changes: Mapping[str, Any], message: str) -> None:
    """Each rule of `check_description` says what is wrong."""
    assert message in status_of(replace(HONEST, **changes), "description").problem


def test_a_plugin_without_settings_is_described() -> None:
    """`NoConfig` is a configuration like any other."""
    assert status_of(replace(HONEST, config=NoConfig), "config").status == "passed"
