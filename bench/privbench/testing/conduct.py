"""How a plugin behaves in its process, whatever its kind."""

from __future__ import annotations

from collections.abc import Callable

from privbench.testing.bench import UsableBench
from privbench.testing.check import require

Check = Callable[[UsableBench], None]


def check_repeatable(bench: UsableBench) -> None:
    """Made and used again with the same seeds, it gives the same bits, whatever the global random
    states of torch, numpy and Python are.
    """
    differs = bench.second.differs
    require(not differs, bench, f"{differs} came out different when it was made and used again")


def check_offline(bench: UsableBench) -> None:
    """Its smoke settings need no network: it asks for no other computer, nor do its processes."""
    bench.first  # noqa: B018 - whoever uses the plugin first, the kit has listened
    asked = ", ".join(sorted(set(bench.refused.addresses())))
    require(not asked, bench, f"its smoke settings must need no network; it asked for {asked}")


def check_resources(bench: UsableBench) -> None:
    """Used again it holds no more than before, and dropped it leaves nothing: no threads, open
    files, child processes, or memory.
    """
    second = bench.second
    require(not second.kept, bench, f"each use leaves more behind: {second.kept}")
    require(not second.left, bench, f"when it was dropped, it left behind {second.left}")


CHECKS: tuple[Check, ...] = (check_offline, check_repeatable, check_resources)
