"""Training an attack, with nothing of evaluation in reach."""

from __future__ import annotations

from typing import Any, cast

import torch

from privbench.keys import canonical_json, stage_seed
from privbench.oracle import CountedOracle
from privbench.plan import ATTACKER_PARTS, Resolved
from privbench.progress import Prefixed
from privbench.session import Session, blame
from privbench.timing import stopwatch
from privbench.types import Attack, AttackerView, TrainedAttack


def seed_of(session: Session, plugin: Resolved) -> int:
    """All randomness of an attack comes from it."""
    return stage_seed(session.plan.study.seed, "attack", plugin.id)


def train(
    session: Session, plugin: Resolved, draws: int, oracle: CountedOracle | None
) -> tuple[Any, float]:
    """The trained attack or inverter, and the seconds that it took.

    Raises:
        DataError: the attacker's part holds an identity or an image of evaluation.
        PluginError: the attack failed, or asked for an evaluation image.
    """
    session.refuse_leak()
    own, held_out = (session.part(part) for part in ATTACKER_PARTS)
    view = AttackerView(
        train=own,
        validation=held_out,
        oracle=oracle,
        seed=seed_of(session, plugin),
        device=session.device,
        reporter=Prefixed(session.reporter, plugin.id),
        draws=draws,
    )
    torch.manual_seed(view.seed)
    with stopwatch(session.device) as seconds, blame(plugin, "training"), session.sealed():
        trained = cast(Attack, session.build(plugin)).train(view)
    return trained, seconds[0]


def train_once(session: Session, plugin: Resolved, draws: int) -> tuple[TrainedAttack, float]:
    """As `train`, for an attack that never asks: the same for all anonymizers of a run."""
    name = canonical_json([plugin.ref(), draws])
    if name not in session.trained:
        session.trained[name] = train(session, plugin, draws, None)
    return session.trained[name]
