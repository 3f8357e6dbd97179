"""No network: tell of every connection that leaves this computer, and refuse it.

Python imports this module by its name when it starts, if its folder is in PYTHONPATH: so the kit
watches the processes that a plugin starts, too. Standard library only, for it runs in all of them.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

LOG = "PRIVBENCH_REFUSED"
"""Environment variable with the path of a file: one refused address a line."""

LOCAL = ("", "localhost", "::1", "0.0.0.0", "::")  # noqa: S104 - compared, not bound
"""Names of this computer, beside its own."""


def is_local(host: Any) -> bool:
    """Whether a host, as the socket module takes it, is this computer."""
    if host is None:
        return True
    name = host.decode(errors="replace") if isinstance(host, bytes) else str(host)
    return name in LOCAL or name.startswith("127.") or name == socket.gethostname()


def refuse(address: Any) -> None:
    """Write an address down.

    Raises:
        ConnectionError: always.
    """
    text = ":".join(map(str, address[:2])) if isinstance(address, tuple) else str(address)
    with Path(os.environ[LOG]).open("a", encoding="utf-8") as log:
        log.write(text + "\n")
    raise ConnectionError(f"a plugin's smoke settings must need no network; it asked for {text}")


def guarded(method: str) -> Callable[..., Any]:
    """A method of `socket.socket` whose last argument is an address; local ones pass."""
    original = getattr(socket.socket, method)

    def call(self: socket.socket, *arguments: Any) -> Any:
        address = arguments[-1]
        if isinstance(address, tuple) and not is_local(address[0]):  # a path is a local socket
            refuse(address)
        return original(self, *arguments)

    return call


def guarded_look_up(name: str) -> Callable[..., Any]:
    """A function of the socket module whose first argument is a host; this computer passes."""
    original = getattr(socket, name)

    def call(host: Any, *arguments: Any, **options: Any) -> Any:
        if not is_local(host):
            refuse((host, *arguments))
        return original(host, *arguments, **options)

    return call


METHODS = ("connect", "connect_ex", "sendto")
LOOK_UPS = ("getaddrinfo", "gethostbyname")


def install() -> None:
    """Refuse connections in this process from now on."""
    for name in METHODS:
        setattr(socket.socket, name, guarded(name))
    for name in LOOK_UPS:
        setattr(socket, name, guarded_look_up(name))


if LOG in os.environ:
    install()
