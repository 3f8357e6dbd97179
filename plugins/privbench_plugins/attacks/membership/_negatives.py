"""Images that the target has not made, as the attacker's setting names them."""

from __future__ import annotations

from privbench.errors import PluginError
from privbench.membership import MembershipView
from privbench.types import ImageSet
from privbench_plugins.attacks.membership.black_box import Negatives


def negatives_of(view: MembershipView, kind: Negatives) -> ImageSet:
    """The attacker's own photos, or samples of its own model.

    Raises:
        PluginError: there are too few, or too few samples of the target, to hold any out.
    """
    found = view.auxiliary if kind == "real" else view.own(kind)
    for name, images in (("samples of the target", view.samples), (f"negatives ({kind})", found)):
        if len(images) < 2:
            raise PluginError(
                f"An attack on membership needs two {name} at least; got {len(images)}. "
                "Release more samples, or choose a larger preset."
            )
    return found
