"""Commands about plugins: which there are, and what they say of themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from privbench import show
from privbench.errors import ConfigError, did_you_mean
from privbench.scaffold import TemplateKind, write_package

if TYPE_CHECKING:
    from privbench.testing import Finding, Status

STATUSES: Mapping[Status, str] = {
    "passed": "passed",
    "failed": "failed",
    "expected": "failed as expected",
    "unexpected-pass": "passed against the expectation",
}
"""What a summary calls the outcomes of checks."""

plugin_app = App(name="plugin", help="Write a plugin of your own, and check it.")


def list_plugins(*, kind: str = "") -> int:
    """List plugins with the package that each comes from, and why one cannot be used here.

    Parameters
    ----------
    kind
        Only those of one kind: anonymizer, attack, metric, dataset or detector.
    """
    from rich.markup import escape

    from privbench.registry import load_registry
    from privbench.spec import KINDS

    _check_kind(kind)
    registry = load_registry()
    for each in (k for k in KINDS if kind in ("", k)):
        table = show.table(each, "version", "package", "summary")
        for plugin in registry.of_kind(each):
            spec = plugin.spec
            why = f" [unavailable: {plugin.unavailable}]" if plugin.unavailable else ""
            words = (spec.id, str(spec.version), plugin.distribution, spec.summary + why)
            table.add_row(*map(escape, words))
        show.console().print(table)
    for name, reason in registry.failures.items():
        show.complain(f"not loaded: {name}: {reason}")
    return 0


def describe(plugin: str) -> int:
    """Show a plugin's settings, defaults and facts.

    Parameters
    ----------
    plugin
        Its id.
    """
    from rich.markup import escape

    from privbench.registry import load_registry, setting_type
    from privbench.spec import API_VERSION

    console = show.console()
    for entry in load_registry().named(plugin):
        spec = entry.spec
        console.print(f"[bold]{spec.id}[/] ({spec.kind}, version {spec.version})")
        console.print(escape(spec.summary))
        facts = {
            "from": f"{entry.distribution}, plugin API {API_VERSION}",
            "threat model": spec.tags.knowledge,
            "control": spec.tags.control,
            "fitted on": spec.tags.fit_on,
            "licence": spec.licence,
            "unavailable": entry.unavailable,
        }
        for name, value in facts.items():
            if value:
                console.print(f"{name}: {escape(str(value))}")
        if spec.config.model_fields:
            table = show.table("setting", "type", "default", "meaning")
            for name, info in spec.config.model_fields.items():
                words = (setting_type(info), str(info.default), info.description or "")
                table.add_row(name, *map(escape, words))
            console.print(table)
    return 0


@plugin_app.command(name="new")
def new_plugin(name: str, *, kind: TemplateKind, out: Path | None = None) -> int:
    """Write a small package with one plugin that works; then make it yours.

    Parameters
    ----------
    name
        Of the package, as pip knows it: privbench-blur.
    kind
        What the plugin is.
    out
        Folder to write, new or empty; ./NAME by default.
    """
    folder = out or Path(name)
    plugin = write_package(name, kind, folder)
    print(f"{folder}: a package with the {kind} {plugin}. Next:")
    print(f"    pip install -e '{folder}[test]'")
    print(f"    privbench plugin check {plugin}")
    return 0


@plugin_app.command(name="check")
def check(
    plugin: str,
    *,
    kind: str = "",
    expect_failure: Annotated[tuple[str, ...], Parameter(negative="")] = (),
) -> int:
    """Run the contract kit on an installed plugin: every promise that privbench relies on.

    Exit code 2 if one is broken, or if one holds that was expected to fail.

    Parameters
    ----------
    plugin
        Its id.
    kind
        Its kind, where plugins of several kinds have that id.
    expect_failure
        A check that it cannot pass, and why: NAME=REASON; may be repeated.
    """
    from privbench.registry import load_registry

    _check_kind(kind)
    expected = _reasons(expect_failure)
    registry = load_registry()
    kinds = [entry.spec.kind for entry in registry.named(plugin)]
    chosen = [each for each in kinds if kind in ("", each)]
    if len(chosen) != 1:
        raise ConfigError(f"{plugin} is the id of: {', '.join(kinds)}. Say which with --kind.")
    spec = registry.get(chosen[0], plugin).spec

    from privbench.testing import check_plugin

    with show.reporter() as reporter:
        findings = check_plugin(spec, expected_failures=expected, reporter=reporter)
    _print(findings)
    return 2 if any(finding.broken for finding in findings) else 0


def _print(findings: Sequence[Finding]) -> None:
    """One line for each check, and a summary."""
    from rich.markup import escape

    table = show.table("check", "", "seconds", "what it proves, or what was wrong")
    for finding in findings:
        style = "bold red" if finding.broken else ""
        said = finding.problem or finding.proves
        words = (finding.check, finding.status, f"{finding.seconds:.1f}", said)
        table.add_row(*map(escape, words), style=style)
    show.console().print(table)
    counts = Counter(finding.status for finding in findings)
    told = ", ".join(f"{counts[status]} {words}" for status, words in STATUSES.items()
                     if counts[status])  # fmt: skip
    print(f"{told}, in {sum(finding.seconds for finding in findings):.1f} s")


def _check_kind(kind: str) -> None:
    """Refuse a kind that there is not; "" stands for all."""
    from privbench.spec import KINDS

    if kind and kind not in KINDS:
        raise ConfigError(f"There is no kind of plugin {kind!r}. {did_you_mean(kind, KINDS)}")


def _reasons(given: tuple[str, ...]) -> Mapping[str, str]:
    """`NAME=REASON` of each expected failure."""
    pairs = [text.partition("=") for text in given]
    for text, (name, _, reason) in zip(given, pairs, strict=True):
        if not name or not reason.strip():
            raise ConfigError(f"--expect-failure takes NAME=REASON; got {text!r}.")
    return {name: reason for name, _, reason in pairs}
