"""What the kit's checks are made of: the test against chance, the watch on the network and on
resources, and what counts as a copy.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from privbench.testing.bench import global_seed
from privbench.testing.chance import ALPHA, identified, separated
from privbench.testing.copies import recoverable
from privbench.testing.drawings import SIZE, drawing
from privbench.testing.offline import Refused, offline
from privbench.testing.resources import HELD, Held, traced
from privbench.types import quantize

pytestmark = pytest.mark.usefixtures("one_thread")

ELSEWHERE = "192.0.2.1"  # set aside for documentation
PEOPLE = 6


# --- chance --------------------------------------------------------------------------------------


def null(seed: int) -> float:
    """p of scores that know nobody, in which some people score high with everybody."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(2 * PEOPLE, PEOPLE)) + 3 * rng.normal(size=PEOPLE)
    scores += rng.normal(size=(2 * PEOPLE, 1))
    return identified(scores, np.repeat(np.arange(PEOPLE), 2))


def test_the_rate_of_false_alarms_is_the_one_that_is_claimed() -> None:
    """Under the hypothesis p <= 5 % in 5 % of draws, though scores depend on one another: the
    count of 200 lies in the central 99.9 % of its binomial distribution.
    """
    alarms = sum(null(seed) <= 0.05 for seed in range(200))
    assert 2 <= alarms <= 22


def test_people_who_are_found_are_found_beyond_doubt() -> None:
    """The smallest p is one in ten thousand; ties are no finding."""
    who = np.arange(12)
    assert identified(np.eye(12), who) == 1e-4 < ALPHA
    assert identified(np.zeros((12, 12)), who) == 1
    assert identified(-np.eye(12), who) > 0.99


def test_two_groups_are_told_apart() -> None:
    """The same for scores of members and others."""
    member = np.arange(20) % 2 == 0
    assert separated(member.astype(float), member) == 1e-4
    assert separated(np.zeros(20), member) == 1
    assert separated(np.random.default_rng(0).normal(size=20), member) > ALPHA


# --- copies --------------------------------------------------------------------------------------

SOURCES = quantize(torch.stack([drawing(i) for i in range(3)]))


def mixed(images: torch.Tensor) -> torch.Tensor:
    """Colours mixed by a matrix that can be undone."""
    matrix = torch.tensor([[0.6, 0.3, 0.1], [0.1, 0.6, 0.3], [0.3, 0.1, 0.6]])
    return torch.einsum("cd,ndhw->nchw", matrix, images.float()).round().to(torch.uint8)


def nudged(images: torch.Tensor) -> torch.Tensor:
    """One grey level here and there, and one pixel blackened."""
    noise = torch.randint(0, 2, images.shape, generator=torch.Generator().manual_seed(0))
    out = (images.int() + noise).clamp(0, 255).to(torch.uint8)
    out[..., 5, 5] = 0
    return out


@pytest.mark.parametrize(
    "disguise",
    [
        lambda x: x,
        lambda x: x.flip(3),
        lambda x: x.flip(2),
        lambda x: x.rot90(1, (2, 3)),
        lambda x: 255 - x,
        lambda x: x.flip(1),
        lambda x: (x.float() * 0.8 + 20).round().to(torch.uint8),
        lambda x: x.roll(1, 0),
        mixed,
        nudged,
    ],
    ids=["copy", "mirror", "flip", "turn", "negative", "channels", "contrast", "another", "mixed",
         "nudged"],
)  # fmt: skip
def test_a_source_under_another_name_is_recognised(
    disguise: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    """Whatever anybody would try first to undo it."""
    assert recoverable(disguise(SOURCES), SOURCES) == [0, 1, 2]


@pytest.mark.parametrize("cell", [2, 8, SIZE])
def test_a_mosaic_is_no_copy(cell: int) -> None:
    """Detail that is gone cannot be had by mixing colours; a plain image explains nothing."""
    small = torch.nn.functional.avg_pool2d(SOURCES.float(), cell)
    released = torch.nn.functional.interpolate(small, scale_factor=cell).round().to(torch.uint8)
    assert recoverable(released, SOURCES) == []


# --- network -------------------------------------------------------------------------------------


def test_other_computers_are_out_of_reach_and_named() -> None:
    """By name or address, and whether or not the error is caught; afterwards all is as before."""
    before, refused = (socket.getaddrinfo, socket.socket.connect), Refused()
    with offline(refused):
        with pytest.raises(ConnectionError, match=r"example\.org:443"):
            socket.create_connection(("example.org", 443))
        with pytest.raises(ConnectionError), socket.socket() as plain:
            plain.connect((ELSEWHERE, 80))
        with pytest.raises(ConnectionError), socket.socket(type=socket.SOCK_DGRAM) as plain:
            plain.sendto(b"hello", (ELSEWHERE, 53))
    assert refused.addresses() == ["example.org:443", f"{ELSEWHERE}:80", f"{ELSEWHERE}:53"]
    assert (socket.getaddrinfo, socket.socket.connect) == before


def test_a_process_that_a_plugin_starts_is_watched_too() -> None:
    """Python finds the guard when it starts."""
    code = f"import socket\ntry: socket.create_connection(('{ELSEWHERE}', 25))\nexcept OSError: 0"
    refused = Refused()
    with offline(refused):
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert refused.addresses() == [f"{ELSEWHERE}:25"]


def test_this_computer_may_be_asked() -> None:
    """Processes of one plugin talk to one another by local sockets."""
    refused = Refused()
    with offline(refused), socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()[:2], timeout=5).close()
    assert refused.addresses() == []


# --- resources -----------------------------------------------------------------------------------


def test_what_is_left_behind_is_named(tmp_path: Path) -> None:
    """Threads, files, processes, tensors and arrays; and nothing when they are gone."""
    stop = threading.Event()
    with traced():
        before = Held.now()
        thread = threading.Thread(target=stop.wait)
        thread.start()
        file = (tmp_path / "open").open("w")
        child = psutil.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        tensor, array = torch.zeros(HELD), np.zeros(HELD)
        found = Held.now().more_than(before)
        for part in ("1 thread(s)", "open file(s)", "1 child process(es)", "KiB of memory"):
            assert part in found
        stop.set()
        thread.join()
        file.close()
        child.communicate(b"\n", timeout=60)
        del tensor, array, child
        assert Held.now().more_than(before) == ""


def test_a_cycle_is_no_leak() -> None:
    """What the collector frees is not held."""
    with traced():
        before = Held.now()
        cycle: list[object] = [torch.zeros(HELD)]
        cycle.append(cycle)
        del cycle
        assert Held.now().more_than(before) == ""


def test_global_random_states_are_put_back() -> None:
    """The kit leaves no trace in the random states of whoever runs it."""
    import random

    def states() -> tuple[object, ...]:
        return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()

    before = states()
    with global_seed(5):
        assert states() != before
    assert states() == before
