"""Each check bites: honest plugins pass all, and a planted defect fails just the check for it."""

from __future__ import annotations

import pytest

import planted
from privbench.errors import PluginError
from privbench.testing import check_plugin, checks_of

pytestmark = pytest.mark.usefixtures("one_thread")

DEFECTS = [(of, defect) for of, defects in planted.PLANTED.items() for defect in defects]


@pytest.mark.parametrize("of", planted.HONEST)
def test_an_honest_plugin_passes_every_check(of: str) -> None:
    """The kit raises no false alarm."""
    assert [found for found in check_plugin(planted.HONEST[of]) if found.broken] == []


@pytest.mark.parametrize(("of", "defect"), DEFECTS, ids=[f"{a}-{b}" for a, b in DEFECTS])
def test_a_planted_defect_fails_the_check_for_it_and_no_other(of: str, defect: str) -> None:
    """The check finds its defect, also when it runs alone, and says whose it is; no other is led
    astray by it.
    """
    spec, check = planted.defective(of, defect), defect.partition(":")[0]
    broken = {found.check: found.problem for found in check_plugin(spec) if found.broken}
    assert set(broken) == {check}, broken
    assert broken[check].startswith(f"{spec.id}: ")
    alone = next(each for each in checks_of(spec) if each.name == check)
    with pytest.raises(PluginError):
        alone()
