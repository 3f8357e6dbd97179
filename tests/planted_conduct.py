"""Defects that plugins of every kind can have."""

from __future__ import annotations

import random
import socket
from contextlib import suppress

import torch

LEFT: list[torch.Tensor] = []
"""What plugins leave behind."""

ELSEWHERE = "192.0.2.1"
"""An address that is set aside for documentation: nobody answers."""


def misbehave(defect: str) -> float:
    """What a plugin does when it is built: ask the network, leave memory behind, or nothing.

    Returns:
        A number that is random where the defect is `repeatable`, and 0 otherwise.
    """
    if defect == "offline":
        with suppress(OSError):
            socket.create_connection((ELSEWHERE, 443), timeout=0.1).close()
    if defect == "resources":
        LEFT.append(torch.zeros(2**20))
    return random.random() if defect == "repeatable" else 0.0
