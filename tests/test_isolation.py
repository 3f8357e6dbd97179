"""What a plugin does to its process costs its own cell only. Real processes throughout."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from conftest import write_faces
from privbench import isolate, worker
from privbench.api import make_study, run_study
from privbench.cli import main
from privbench.errors import ConfigError, PluginError, PrivbenchError
from privbench.isolate import Isolation, Worker, how_it_ended
from privbench.progress import Silent, Task
from privbench.registry import load_registry
from privbench.worker import LONGEST, in_words

TESTS = Path(__file__).parent


class Heard:
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    @contextmanager
    def task(self, label: str, total: int, unit: str = "images") -> Iterator[Task]:
        """Note beginning, steps and end."""
        heard = self.lines
        heard.append(f"{label}: {total} {unit}")

        class _Task:
            def advance(self, n: int = 1) -> None:
                heard.append(f"{label}: +{n}")

        try:
            yield _Task()
        except PrivbenchError:
            heard.append(f"{label}: broken off")
            raise
        heard.append(f"{label}: whole")

    def note(self, text: str) -> None:
        """Keep the line."""
        self.lines.append(text)


def light(timeout: float | None = None, memory: float | None = None, **given: bool) -> Worker:
    """A worker that imports no torch and does mischief by name."""
    return Worker("mischief:open_light", given, Isolation(timeout, memory), Silent())


def gone(numbers: Sequence[int], patience: float = 10.0) -> bool:
    """Whether these processes end in time; what has ended and waits to be buried is gone."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if not any(alive(number) for number in numbers):
            return True
        time.sleep(0.02)
    return False


def alive(number: int) -> bool:
    """Whether a process runs."""
    try:
        return psutil.Process(number).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("raise", "failed: RuntimeError: out of ideas [bold]"),
        ("sys-exit", "called sys.exit(3)"),
        ("exit", "ended its process with exit code 3 during exit task"),
        ("kill", "was killed by signal 9 (SIGKILL) during kill task: the system may have run out"),
        ("segfault", "was killed by signal 11 (SIGSEGV) during segfault task: it crashed in nativ"),
        ("abort", "was killed by signal 6 (SIGABRT) during abort task: it crashed in native code"),
        ("warden", "was killed by signal 9 (SIGKILL) during warden task"),
        ("input", "failed: EOFError"),
        ("scream", "failed: RuntimeError: ?aaaa"),
    ],
)
def test_an_end_costs_its_own_cell(how: str, words: str) -> None:
    """However a cell ends its process, it fails with words for it, and the next one runs."""
    with light() as cells:
        assert cells.run("none")[0] == "none"
        with pytest.raises(PluginError) as failed:
            cells.run(how)
        assert str(failed.value).startswith(words)
        assert len(str(failed.value)) <= LONGEST
        assert cells.run("none")[0] == "none"


@pytest.mark.parametrize("how", ["hang", "hang-in-c", "grandchild", "stuck"])
def test_a_cell_that_hangs_is_ended(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In Python, in C with the interpreter locked, or waiting for a child in a session of its own:
    after the timeout there is neither the worker nor any child of it."""
    place = tmp_path / "numbers"
    monkeypatch.setenv("MISCHIEF", str(place))
    with light(timeout=0.5) as cells:
        start = time.monotonic()
        with pytest.raises(PluginError, match=f"exceeded --timeout 0.5 s during {how} task"):
            cells.run(how)
        assert time.monotonic() - start < 10
        if place.exists():
            assert gone([int(number) for number in place.read_text().split()])
        assert cells.run("none")[0] == "none"


def test_what_is_left_running_ends_with_the_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child that outlives its cell, in a session of its own, does not outlive the run."""
    place = tmp_path / "numbers"
    monkeypatch.setenv("MISCHIEF", str(place))
    with light() as cells:
        cells.run("leave")
        own, child = (int(number) for number in place.read_text().split())
        assert alive(child)
    assert gone([own, child])


@pytest.mark.skipif(sys.platform != "linux", reason="memory can be limited on Linux only")
def test_memory_beyond_the_cap() -> None:
    """A cell that asks for more than it may is told so; the next one has a fresh process."""
    with light(memory=0.5) as cells:
        before = cells.run("none")[1]
        with pytest.raises(PluginError, match=r"asked for more memory than --memory 0.5 GiB allow"):
            cells.run("memory")
        assert cells.run("none")[1] != before


def test_what_is_printed_is_no_result() -> None:
    """A plugin may print what looks like the worker's own messages."""
    with light() as cells:
        assert cells.run("print")[0] == "print"
        assert cells.run("none")[0] == "none"


@pytest.mark.parametrize("how", ["fork", "fork-and-raise"])
def test_a_copy_of_the_worker_does_not_go_on(how: str) -> None:
    """A plugin that forks and lets the copy return, or raise, leaves one worker and one result."""
    with light() as cells:
        name, first = cells.run(how)
        assert name == how
        for _ in range(3):
            assert cells.run("none") == ["none", first]
        copies = [p for p in psutil.Process(first).children() if alive(p.pid)]
        assert gone([p.pid for p in copies])


def test_a_death_between_cells_is_not_the_next_ones() -> None:
    """A worker that dies of what a finished cell left behind is replaced without a word."""
    with light() as cells:
        first = cells.run("thread")[1]
        assert gone([first])
        assert cells.run("none")[0] == "none"


def test_progress_is_replayed_and_broken_off() -> None:
    """Tasks and notes arrive as they were made; a task of a worker that dies is ended, not
    finished."""
    heard = Heard()
    with Worker("mischief:open_light", {}, Isolation(), heard) as cells:
        cells.run("none")
        with pytest.raises(PluginError):
            cells.run("exit")
    assert heard.lines[0] == "none task: 3 images"
    assert sum(int(line.partition("+")[2] or 0) for line in heard.lines) == 3
    assert "none task: whole" in heard.lines
    assert "none note" in heard.lines
    assert heard.lines[-1] == "exit task: broken off"


def test_a_worker_that_cannot_start_says_so() -> None:
    """Whatever happens before the first cell is an error with words, each time."""
    with light(late=True) as cells:
        for _ in range(2):
            with pytest.raises(PluginError, match="cannot start: it ended its process with exit c"):
                cells.run("none")
    with (
        Worker("mischief:no_such", {}, Isolation(), Silent()) as cells,
        pytest.raises(PluginError, match="cannot start: failed: AttributeError"),
    ):
        cells.run("none")


WAITING = """
import sys
from privbench.isolate import Isolation, Worker, how_it_ended
from privbench.progress import Silent

try:
    with Worker("mischief:open_light", {}, Isolation(), Silent()) as cells:
        cells.run("stuck")
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_the_run(number: signal.Signals, tmp_path: Path) -> None:
    """Ctrl-C, or the end of the run by any other signal, ends a worker that is stuck in C with a
    child in a session of its own."""
    place = tmp_path / "numbers"
    path = os.pathsep.join([str(TESTS), *sys.path])
    run = subprocess.Popen(
        [sys.executable, "-c", WAITING],
        env=os.environ | {"MISCHIEF": str(place), "PYTHONPATH": path},
    )
    while not place.exists() or len(place.read_text().split()) < 2:
        time.sleep(0.02)
        assert run.poll() is None
    below = [p.pid for p in psutil.Process(run.pid).children(recursive=True)]
    numbers = [*below, *map(int, place.read_text().split())]
    assert len(set(numbers)) >= 3, "a warden, a worker and its child"
    run.send_signal(number)
    assert run.wait(10) == (130 if number == signal.SIGINT else -number)
    assert gone(numbers)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"timeout": 0}, "timeout must be more than 0; got 0"),
        ({"timeout": float("nan")}, "timeout must be more than 0"),
        ({"memory": -1}, "memory must be more than 0; got -1"),
    ],
)
def test_limits_are_checked(limits: dict[str, float], message: str) -> None:
    """A limit that nothing could meet is refused."""
    with pytest.raises(ConfigError, match=message):
        Isolation(**limits)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`mischief` as an installed distribution of a third party."""
    facts = tmp_path / "site" / "mischief-1.0.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: mischief\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[privbench]\nmischief = mischief\n")
    monkeypatch.syspath_prepend(str(facts.parent))


def call(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """The command line in this process, cells in theirs: (exit code, stdout, stderr)."""
    with pytest.raises(SystemExit) as stop:
        main(list(words))
    out, err = capfd.readouterr()
    assert "Traceback" not in out + err
    assert isinstance(stop.value.code, int)
    return stop.value.code, out, err


def without_times(folder: Path) -> dict[str, Any]:
    """Records by anonymizer, less what a clock or a memory gauge wrote."""
    found = {}
    for path in folder.glob("*.json"):
        body = json.loads(path.read_text())
        del body["created"], body["timing"]
        found[body["anonymizer"]["id"]] = body
    return found


def tree(folder: Path) -> dict[str, int]:
    """Every file with the time of its last change."""
    return {str(p): p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


@pytest.mark.usefixtures("installed")
def test_a_run_with_bad_anonymizers(
    faces: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Each of them costs its own row, and the table says what happened; the neighbours before,
    between and after have the numbers of a run in one process, bit for bit; the store is whole."""

    def words(place: str, *anonymizers: str) -> list[str]:
        return [
            "run", "--anonymizer", *anonymizers, "--attack", "random-guess", "--protocol", "smoke",
            "--metric", "identification", "mischief/metric", "--set", f"synthfaces.path={faces}",
            "--store", str(tmp_path / place / "store"),
            "--records", str(tmp_path / place / "records"),
        ]  # fmt: skip

    bad = {
        "weights": "failed while being planned: RuntimeError: no weights today",
        "raise": "failed while anonymizing: RuntimeError: out of ideas [bold]",
        "kill": "was killed by signal 9 (SIGKILL)",
        "grandchild": "exceeded --timeout 5 s during mischief/maker: ",
        "memory-in-torch": "asked for more memory than --memory 2 GiB allows (The anonymizer",
    }
    good = ["pixelate", "none", "gaussian-blur"]
    asked = [good[0], *(f"mischief/maker:{how}" for how in [*bad, "print"]), *good[1:]]
    asked.insert(3, asked.pop())
    code, out, err = call(
        capfd, *words("apart", *asked), "--timeout", "5", "--memory", "2",
        "--report", str(tmp_path / "report.html"),
    )  # fmt: skip
    assert code == 2
    assert "not finished" in out
    assert "what happened" in out
    page = (tmp_path / "report.html").read_text()
    for how, what in bad.items():
        assert f"mischief/maker:{how}" in out
        assert f"mischief/maker:{how}</th><td>" in page
        assert what in page
    assert "mischief/metric of random-guess on pixelate" in page
    assert "Not finished: 9, listed above" in err
    assert "garbage" in err, "what plugins print goes there"
    assert call(capfd, *words("one", *good), "--in-process")[0] == 2
    apart, one = (without_times(tmp_path / p / "records") for p in ("apart", "one"))
    assert set(apart) == {*good, "mischief/maker"}
    for name in good:
        assert apart[name] == one[name]
        assert "mischief/metric" not in apart[name]["metrics"]
        assert apart[name]["estimates"]["full-ref"]["identification"]
    store = tmp_path / "apart" / "store"
    before = tree(store)
    assert not [name for name in before if name.endswith(".tmp")]
    call(capfd, *words("apart", *good), "--in-process", "--repair")
    assert tree(store) == before


def test_what_is_finished_needs_no_worker(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the Python interface too; a repeated run starts no process. A registry of one's own
    cannot be had in another process."""
    study = make_study(
        ["pixelate"], ["random-guess"], ["identification"], protocol="smoke",
        settings=[f"synthfaces.path={faces}"],
    )  # fmt: skip
    where = {"store": str(tmp_path / "store"), "records": None}
    first, failures = run_study(study, **where)
    assert failures == []
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    assert run_study(study, **where, isolate=Isolation()) == (first, [])
    other = make_study(
        ["none"], ["random-guess"], ["identification"], protocol="smoke",
        settings=[f"synthfaces.path={faces}"],
    )  # fmt: skip
    done, (failure,) = run_study(other, **where, isolate=Isolation())
    assert done == []
    assert str(failure.error).startswith("Cannot start a worker process")
    with pytest.raises(ConfigError, match="installed plugins only"):
        run_study(study, **where, isolate=Isolation(), registry=load_registry())


@pytest.mark.usefixtures("installed")
def test_a_study_with_a_bad_variant(
    faces: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The variant's error is in the result, with words for it; the others are whole."""
    path = tmp_path / "mine.toml"
    path.write_text(
        'title = "Mine"\nquestion = "?"\nprotocol = "smoke"\nattacks = ["random-guess"]\n'
        'metrics = ["identification"]\n'
        f'dataset = {{ id = "synthfaces", path = "{faces}" }}\n'
        '[[variants]]\nlabel = "bad"\ngroup = "baseline"\nanonymizer = "mischief/maker"\n'
        'settings = { how = "segfault" }\n'
        '[[variants]]\nlabel = "good"\ngroup = "baseline"\nanonymizer = "pixelate"\n'
    )
    out = tmp_path / "out"
    code, _, err = call(
        capfd, "study", str(path), "--out", str(out), "--store", str(tmp_path / "store")
    )
    assert code == 2
    assert "bad: random-guess on mischief/maker: was killed by signal 11 (SIGSEGV)" in err
    bad, good = json.loads((out / "study.json").read_text())["variants"]
    assert "SIGSEGV" in bad["error"]
    assert good["error"] == ""
    assert good["records"]
    assert "SIGSEGV" in (out / "README.md").read_text()


@pytest.mark.usefixtures("installed")
def test_a_run_about_membership(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """An attack on membership that ends its process leaves the others their rows."""
    code, out, _ = call(
        capfd, "run", "--anonymizer", "ldm-finetune", "--attack", "mischief/membership",
        "mia-blind", "--protocol", "smoke", "--store", str(tmp_path / "store"),
        "--set", f"synthfaces.path={write_faces(tmp_path / 'faces', identities=60)}",
        "--records", str(tmp_path / "records"),
    )  # fmt: skip
    assert code == 2
    assert "mischief/membership on ldm-finetune" in out
    assert "ended its process with exit code 3" in out
    assert [p.name.split("--")[1] for p in (tmp_path / "records").glob("*.json")] == ["mia-blind"]


@pytest.mark.usefixtures("installed")
def test_timing_alone(faces: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """`privbench time` isolates each anonymizer, too."""
    code, out, _ = call(
        capfd, "time", "mischief/maker", "pixelate", "--images", "4", "--batch", "4",
        "--timeout", "60", "--records", str(tmp_path),
        "--set", "how=exit", f"synthfaces.path={faces}",
    )  # fmt: skip
    assert code == 2
    assert "mischief/maker, batch 4" in out
    assert "ended its process with exit code 3 during mischief/maker: timing, batch 4" in out
    assert [p.name.partition("--")[0] for p in tmp_path.glob("*.json")] == ["pixelate"]


def test_limits_need_a_process(capfd: pytest.CaptureFixture[str]) -> None:
    """A limit on a run in this process is refused, before anything is planned."""
    words = ["run", "--anonymizer", "none", "--attack", "random-guess", "--in-process"]
    code, _, err = call(capfd, *words, "--timeout", "5")
    assert code == 2
    assert "leave out --in-process" in err
    assert call(capfd, *words[:-1], "--timeout", "0")[0] == 2


def test_the_page_has_the_words() -> None:
    """docs/isolation.md lists what a failure may say, as it is said."""
    page = (TESTS.parent / "docs" / "isolation.md").read_text(encoding="utf-8")
    said = [
        how_it_ended(3),
        *(how_it_ended(-number).partition(":")[0] for number in (9, 11)),
        in_words(SystemExit(3)),
        in_words(ValueError("...")).replace("ValueError: ", ""),
    ]
    assert all(f"`{words}`" in page for words in said), said
    source = Path(isolate.__file__).read_text() + Path(worker.__file__).read_text()
    for words in ("exceeded --timeout ", "asked for more memory than --memory ", "cannot start: "):
        assert words in page
        assert words in source
