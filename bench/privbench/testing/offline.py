"""A while without network, here and in Python processes that are started meanwhile."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

from privbench.testing.child import sitecustomize as guard


@dataclass
class Refused:
    """Addresses of other computers that were asked for.

    Attributes:
        earlier: while no network was refused before.
        log: where they are written down now; None while nothing is refused.
    """

    earlier: list[str] = field(default_factory=list)
    log: Path | None = None

    def addresses(self) -> list[str]:
        """All of them until now."""
        now = self.log.read_text(encoding="utf-8") if self.log and self.log.exists() else ""
        return [*self.earlier, *now.splitlines()]


@contextmanager
def offline(refused: Refused) -> Iterator[None]:
    """Refuse connections to other computers.

    Args:
        refused: gets the addresses that are asked for, at once.
    """
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        refused.log = Path(folder) / "refused"
        before = filter(None, [os.environ.get("PYTHONPATH")])
        path = os.pathsep.join([str(Path(guard.__file__).parent), *before])
        known = {guard.LOG: str(refused.log), "PYTHONPATH": path}
        stack.enter_context(patch.dict(os.environ, known))
        for name in guard.METHODS:
            stack.enter_context(patch.object(socket.socket, name, guard.guarded(name)))
        for name in guard.LOOK_UPS:
            stack.enter_context(patch.object(socket, name, guard.guarded_look_up(name)))
        try:
            yield
        finally:
            refused.earlier, refused.log = refused.addresses(), None
