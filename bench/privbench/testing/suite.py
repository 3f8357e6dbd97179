"""Which checks a plugin gets, and how to run them: by pytest, or all at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import torch

from privbench.errors import ConfigError, did_you_mean
from privbench.progress import Reporter, Silent
from privbench.spec import PluginSpec
from privbench.testing import describe
from privbench.testing.check import Check, Finding
from privbench.testing.detector import DetectorBench
from privbench.testing.families import FAMILIES, family_of

ExpectedFailures = Mapping[str, str]
"""Name of a check to the reason why the plugin cannot pass it."""

NONE: ExpectedFailures = MappingProxyType({})


def checks_of(spec: PluginSpec, faces: torch.Tensor | None = None) -> list[Check]:
    """The checks that apply to a plugin by its kind and tags. Nothing is built yet.

    Args:
        spec: of the plugin.
        faces: (N, 3, H, W) uint8 images in which a detector should find something; at least two.
            The kit's own drawings have eyes and a mouth, and few detectors take them for faces.
    """
    family = FAMILIES[family_of(spec)]
    bench = family.bench(spec)
    if isinstance(bench, DetectorBench) and faces is not None:
        bench.faces = faces
    return [Check(function, bench) for function in (*describe.checks(spec), *family.checks(spec))]


def check_plugin(
    spec: PluginSpec,
    *,
    expected_failures: ExpectedFailures = NONE,
    reporter: Reporter | None = None,
    faces: torch.Tensor | None = None,
) -> list[Finding]:
    """Run every check that applies; what came of each, in their order.

    Args:
        spec: of the plugin.
        expected_failures: checks that it cannot pass, with the reason. They are strict: one that
            passes is a failure too.
        reporter: progress; silent by default.
        faces: see `checks_of`.

    Raises:
        ConfigError: an expected failure names no check of this plugin.
    """
    checks = checks_of(spec, faces)
    _refuse_unknown(expected_failures, checks, spec)
    findings = []
    with (reporter or Silent()).task(f"checks of {spec.id}", len(checks), "checks") as task:
        for check in checks:
            findings.append(check.find(expected_failures.get(check.name, "")))
            task.advance()
    return findings


def parametrize_with_checks(
    specs: Iterable[PluginSpec],
    expected_failures: ExpectedFailures | Mapping[str, ExpectedFailures] = NONE,
    faces: torch.Tensor | None = None,
) -> Callable[[Any], Any]:
    """A pytest decorator: the test runs once for each check of each plugin, as `check`.

        @parametrize_with_checks([SPEC])
        def test_contract(check):
            check()

    Args:
        specs: of the plugins.
        expected_failures: name of a check to the reason why the plugin cannot pass it; or, of
            several plugins, such a mapping by id. The tests become strict expected failures.
        faces: see `checks_of`.

    Raises:
        ConfigError: an expected failure names no check of its plugin, or a plugin not given.
    """
    import pytest

    given, rows = list(specs), []
    by_id = _by_id(expected_failures, given)
    for spec in given:
        checks, expected = checks_of(spec, faces), by_id.get(spec.id, {})
        _refuse_unknown(expected, checks, spec)
        for check in checks:
            reason = expected.get(check.name)
            marks = [pytest.mark.xfail(reason=reason, strict=True)] if reason else []
            rows.append(pytest.param(check, id=f"{spec.id}-{check.name}", marks=marks))
    return pytest.mark.parametrize("check", rows)


def _by_id(
    expected: ExpectedFailures | Mapping[str, ExpectedFailures], specs: list[PluginSpec]
) -> Mapping[str, ExpectedFailures]:
    plain = {name: reason for name, reason in expected.items() if isinstance(reason, str)}
    nested = {name: more for name, more in expected.items() if not isinstance(more, str)}
    if plain:
        return {spec.id: plain for spec in specs}
    ids = [spec.id for spec in specs]
    for plugin in nested:
        if plugin not in ids:
            raise ConfigError(
                f"Expected failures are given for {plugin!r}, which is not checked here. "
                f"{did_you_mean(plugin, ids)}"
            )
    return nested


def _refuse_unknown(expected: ExpectedFailures, checks: list[Check], spec: PluginSpec) -> None:
    known = [check.name for check in checks]
    for name, reason in expected.items():
        if name not in known:
            raise ConfigError(
                f"{spec.kind} {spec.id} has no check {name!r} that could be expected to fail. "
                f"{did_you_mean(name, known)}"
            )
        if not reason.strip():
            raise ConfigError(f"The expected failure of {name} needs a reason.")
