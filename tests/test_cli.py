"""The command line: instant help, clear errors, exit code 2, no tracebacks, resumption."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from privbench.cli import main

PROGRAM = [sys.executable, "-m", "privbench.cli"]
SMOKE = ["--protocol", "smoke", "--metric", "identification", "ssim"]


def call(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Run in this process: (exit code, stdout, stderr)."""
    here = ["--in-process"] if words[0] in ("run", "study", "time") else []
    with pytest.raises(SystemExit) as stop:
        main([*words, *here])
    out, err = capsys.readouterr()
    code = stop.value.code
    assert isinstance(code, int)
    assert "Traceback" not in out + err
    return code, out, err


def where(faces: Path, tmp_path: Path) -> list[str]:
    """Data, store and records of a test."""
    return [
        *SMOKE, "--store", str(tmp_path / "store"), "--records", str(tmp_path / "records"),
        "--set", f"synthfaces.path={faces}",
    ]  # fmt: skip


@pytest.mark.parametrize("words", [["--help"], ["list"], ["run", "--help"]])
def test_help_and_list_import_nothing_heavy(words: list[str]) -> None:
    """What keeps them instant (`make bench` times them): no array library, no schema built."""
    code = (
        "import sys\nfrom privbench.cli import main\n"
        f"try: main({words!r})\nexcept SystemExit: pass\n"
        "print(*sys.modules, file=sys.stderr)\n"
        "from privbench.spec import Config\n"
        "print(*[c.__name__ for c in Config.__subclasses__() if c.__pydantic_complete__],"
        " file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    modules, built = done.stderr.split("\n")[:2]
    heavy = {"torch", "numpy", "cv2", "diffusers", "transformers", "datasets", "sklearn", "pyarrow"}
    assert not heavy & set(modules.split())
    assert built == ""


def test_run_prints_results_and_writes_the_record(
    faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run prints every trial with interval and chance, and where the record is."""
    code, out, err = call(
        capsys, "run", "--anonymizer", "pixelate", "none", "--attack", "random-guess",
        *where(faces, tmp_path),
    )  # fmt: skip
    assert code == 0
    assert "full-ref" in out
    assert "chance" in out
    assert "pixelate: probes" in err
    paths = [line for line in out.splitlines() if line.endswith(".json")]
    assert len(paths) == 2
    assert all(json.loads(Path(p).read_text())["schema_version"] for p in paths)


def test_an_interrupted_run_says_what_is_kept(
    faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in the middle of a cell ends with exit code 130 and a sentence."""
    monkeypatch.setattr("privbench.execute.attack", lambda *_: signal.raise_signal(signal.SIGINT))
    words = ["run", "--anonymizer", "pixelate", "--attack", "random-guess"]
    code, _, err = call(capsys, *words, *where(faces, tmp_path))
    assert code == 130
    assert err.endswith("Interrupted. What is finished is kept; run the same command to go on.\n")


def test_a_study_file_is_the_same_run(
    faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A TOML study and the flags that say the same have the same keys."""
    flags = ["run", "--anonymizer", "pixelate", "--attack", "random-guess", "--set", "cells=6"]
    assert call(capsys, *flags, *where(faces, tmp_path))[0] == 0
    study = tmp_path / "study.toml"
    study.write_text(
        'protocol = "smoke"\nattacks = ["random-guess"]\n'
        'metrics = ["identification", "ssim"]\n'
        f'[dataset]\nid = "synthfaces"\npath = "{faces}"\n'
        '[[anonymizers]]\nid = "pixelate"\ncells = 6\n'
    )
    code, out, _ = call(capsys, "run", str(study), "--dry-run", "--store", str(tmp_path / "store"))
    assert code == 0
    assert "miss" not in out
    assert "hit" in out


def test_dry_run_says_why(faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--dry-run writes nothing and names the reason of each miss."""
    words = ["run", "--anonymizer", "pixelate", "--attack", "random-guess", "--dry-run"]
    code, out, _ = call(capsys, *words, *where(faces, tmp_path))
    assert code == 0
    assert out.count("miss") >= 5
    assert "first anonymize of pixelate in this store" in out
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--anonymizer", "pixelat", "--attack", "random-guess"], "Did you mean pixelate"),
        (["--anonymizer", "pixelate", "--attack", "guess"], "no attack 'guess'"),
        (["--anonymizer", "pixelate", "--attack", "random-guess", "--set", "cell=3"],
         "Did you mean cells"),
        (["--anonymizer", "pixelate", "--attack", "random-guess", "--set", "cells=many"],
         "got 'many'"),
        (["--anonymizer", "pixelate"], "Say what to run"),
        (["--anonymizer", "pixelate", "--attack", "random-guess", "--protocol", "smoky"],
         "Did you mean smoke"),
        (["--anonymizer", "controlnet-canny", "--attack", "random-guess", "--set",
          "model=/no/such/folder"], "/no/such/folder"),
        (["--no-such-flag"], "no-such-flag"),
        (["no-such-study.toml"], "no-such-study.toml"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_message(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, the message says what is wrong, and nothing is written."""
    code, _, err = call(capsys, "run", *words, "--store", str(tmp_path / "store"))
    assert code == 2
    assert message in " ".join(err.split())
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("protocol = ", "not valid TOML"),
        ("anonymizer = []", "Did you mean anonymizers"),
        ("anonymizers = [3]\nattacks = []", "must be an id or a table"),
        ("anonymizers = []\nattacks = []", "at least one anonymizer"),
        ("anonymizers = ['none']\nattacks = ['random-guess']\nseed = 'x'", "seed"),
    ],
)
def test_bad_study_files(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A study file that is not one says where it is wrong."""
    path = tmp_path / "study.toml"
    path.write_text(text)
    code, _, err = call(capsys, "run", str(path))
    assert code == 2
    assert message in err


def test_describe(capsys: pytest.CaptureFixture[str]) -> None:
    """Every setting of a plugin is shown with type, default and meaning; a typo gets a hint."""
    code, out, _ = call(capsys, "describe", "controlnet-canny")
    assert code == 0
    for word in ("conditioning_scale", "guidance_scale", "steps", "int, ≥ 1", "keep | ddim"):
        assert word in out
    code, _, err = call(capsys, "describe", "controlnet-cany")
    assert code == 2
    assert "Did you mean controlnet-canny" in err


def test_full_disk_keeps_what_is_finished(faces: Path, tmp_path: Path) -> None:
    """A write that fails for lack of room ends with a message and code 2; run again, the work
    that was finished is not done twice."""
    words = [*PROGRAM, "run", "--anonymizer", "pixelate", "--attack", "random-guess",
             *where(faces, tmp_path)]  # fmt: skip

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))

    done = subprocess.run(words, capture_output=True, text=True, preexec_fn=small_files)
    assert done.returncode == 2, done.stderr
    assert "Cannot write" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "store").rglob("*.tmp"))
    again = subprocess.run(words, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr


def without_times(path: Path) -> dict[str, Any]:
    """A record less what a clock or a memory gauge wrote."""
    body: dict[str, Any] = json.loads(path.read_text())
    del body["created"], body["timing"]
    return body


@pytest.mark.timeout(900)
def test_a_killed_run_resumes_to_the_same_record(faces: Path, tmp_path: Path) -> None:
    """SIGKILL at random moments, again and again; the run that is left alone at last ends with
    the record of an undisturbed run, and takes up what the killed ones had finished."""

    def words(place: Path) -> list[str]:
        return [
            *PROGRAM, "run", "--anonymizer", "gaussian-blur", "--attack", "contrastive-reid",
            *where(faces, place), "backbone=tiny", "side=32", "steps=6", "batch=8",
            "checkpoints=2",
        ]  # fmt: skip

    start = time.monotonic()
    calm = subprocess.run(words(tmp_path / "calm"), capture_output=True, text=True)
    assert calm.returncode == 0, calm.stderr
    length = time.monotonic() - start
    rng = random.Random(int(os.environ.get("PRIVBENCH_KILL_SEED", "0")))
    for _ in range(3):
        with subprocess.Popen(
            words(tmp_path / "rough"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as run:
            time.sleep(rng.uniform(0.3, 1.0) * length)
            run.send_signal(signal.SIGKILL)
    last = subprocess.run(words(tmp_path / "rough"), capture_output=True, text=True)
    assert last.returncode == 0, last.stderr
    (undisturbed,) = (tmp_path / "calm" / "records").glob("*.json")
    (resumed,) = (tmp_path / "rough" / "records").glob("*.json")
    assert without_times(resumed) == without_times(undisturbed)


def test_match_compares_two_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Embeddings in, tables out; a file that is none is one sentence."""
    rng = np.random.default_rng(0)
    people = rng.normal(size=(30, 16)).astype(np.float32)
    for name, count in (("gallery", 30), ("probes", 12)):
        noisy = people[:count] + 0.1 * rng.normal(size=(count, 16)).astype(np.float32)
        body = {"features": noisy, "subject": np.arange(count, dtype=np.int64)}
        save_file(body, tmp_path / f"{name}.safetensors")
    files = [str(tmp_path / f"{name}.safetensors") for name in ("probes", "gallery")]
    code, out, _ = call(capsys, "match", *files, "--k", "1")
    assert code == 0
    assert "12 probes" in out
    assert "rank-1" in out
    (tmp_path / "probes.safetensors").write_text("no embeddings")
    code, out, err = call(capsys, "match", *files)
    assert (code, out) == (2, "")
    assert "probes.safetensors" in err
