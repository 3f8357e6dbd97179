"""The contract kit: checks that a plugin keeps its promises, for authors to run.

    from privbench.testing import Check, parametrize_with_checks

    @parametrize_with_checks([SPEC])
    def test_contract(check: Check) -> None:
        check()

The checks use the specification's `smoke` settings, images that the kit draws itself, and the CPU.
`docs/contract.md` says of each what it proves and how to mend a failure.
"""

from __future__ import annotations

from privbench.testing.check import Check, Finding, Status, Workbench
from privbench.testing.suite import (
    ExpectedFailures,
    check_plugin,
    checks_of,
    parametrize_with_checks,
)

__all__ = [
    "Check",
    "ExpectedFailures",
    "Finding",
    "Status",
    "Workbench",
    "check_plugin",
    "checks_of",
    "parametrize_with_checks",
]
