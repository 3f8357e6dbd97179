"""A while without network, here and in Python processes that are started meanwhile."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

from privbench.testing.child import sitecustomize as guard


@contextmanager
def offline(refused: list[str]) -> Iterator[None]:
    """Refuse connections to other computers.

    Args:
        refused: gets the addresses that were asked for.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "refused"
        path = os.pathsep.join(
            filter(None, [str(Path(guard.__file__).parent), os.environ.get("PYTHONPATH")])
        )
        with ExitStack() as stack:
            for name in guard.METHODS:
                stack.enter_context(patch.object(socket.socket, name, guard.guarded(name)))
            for name in guard.LOOK_UPS:
                stack.enter_context(patch.object(socket, name, guard.guarded_look_up(name)))
            stack.enter_context(patch.dict(os.environ, {guard.LOG: str(log), "PYTHONPATH": path}))
            try:
                yield
            finally:
                if log.exists():
                    refused += log.read_text(encoding="utf-8").splitlines()
