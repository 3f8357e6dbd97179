"""Defects that plugins of every kind can have."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import Any

import numpy as np
import torch

LEFT: list[Any] = []
"""What plugins leave behind."""

ELSEWHERE = "192.0.2.1"
"""An address that is set aside for documentation: nobody answers."""

ASK = f"import socket\ntry: socket.create_connection(('{ELSEWHERE}', 443))\nexcept OSError: 0"
"""A program that asks the network and says nothing about it."""


def misbehave(defect: str) -> float:
    """What a plugin does when it is built: ask the network, leave something behind, or nothing.

    Returns:
        A number that is random where the defect is `repeatable`, and 0 otherwise.
    """
    match defect:
        case "offline":
            with suppress(OSError):
                socket.create_connection((ELSEWHERE, 443), timeout=0.1).close()
        case "offline:child":
            subprocess.run([sys.executable, "-c", ASK], check=True, timeout=60)
        case "resources":
            LEFT.append(torch.zeros(2**20))
        case "resources:file":
            LEFT.append(os.open(__file__, os.O_RDONLY))
        case "resources:thread":
            threading.Thread(target=time.sleep, args=(5,), daemon=True).start()
        case "repeatable":
            return random.random()
        case "repeatable:numpy":
            return float(np.random.rand())
        case "repeatable:torch":
            return float(torch.rand(()))
    return 0.0
