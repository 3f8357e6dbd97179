"""The third-party route, for real: packages are built and installed, then found, or refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLE = Path(__file__).parents[1] / "examples" / "privbench-noise"
PLUGIN = "privbench-noise/gaussian-noise"

LOOK = """
import json
from privbench.errors import PrivbenchError
from privbench.registry import load_registry
try:
    registry = load_registry()
    found = {r.spec.id: r.distribution for r in registry.plugins.values()}
    print(json.dumps({"found": found, "failures": dict(registry.failures)}))
except PrivbenchError as error:
    print(json.dumps({"error": str(error)}))
"""


def environment(*folders: Path) -> dict[str, str]:
    """This process's environment with folders of installed packages put first."""
    path = os.pathsep.join([*map(str, folders), os.environ.get("PYTHONPATH", "")])
    return os.environ | {"PYTHONPATH": path.rstrip(os.pathsep)}


def python(*arguments: str, folders: tuple[Path, ...], cwd: Path) -> str:
    """Output of a fresh interpreter that sees those folders' packages."""
    done = subprocess.run(
        [sys.executable, *arguments],
        env=environment(*folders),
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def install(source: Path, folder: Path) -> Path:
    """Build the package at `source` and install it into a folder of its own."""
    python(
        *("-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"),
        *("--target", str(folder), str(source)),
        folders=(),
        cwd=source,
    )
    return folder


def look(*folders: Path, cwd: Path) -> dict[str, Any]:
    """What the registry finds with those packages installed."""
    answer: dict[str, Any] = json.loads(python("-c", LOOK, folders=folders, cwd=cwd))
    return answer


def copy(to: Path, name: str, module: str) -> Path:
    """The example under another distribution and module name."""
    shutil.copytree(EXAMPLE, to, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    project = to / "pyproject.toml"
    text = project.read_text(encoding="utf-8").replace("privbench-noise", name)
    project.write_text(text.replace("privbench_noise", module), encoding="utf-8")
    (to / "privbench_noise.py").rename(to / f"{module}.py")
    return to


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder away from the repository, so that only what is installed is importable."""
    return tmp_path_factory.mktemp("third-party")


@pytest.fixture(scope="module")
def noise(work: Path) -> Path:
    """The example, installed."""
    return install(copy(work / "example", "privbench-noise", "privbench_noise"), work / "noise")


def test_an_installed_plugin_is_found(noise: Path, work: Path) -> None:
    """Installing the package is all that it takes."""
    assert look(noise, cwd=work)["found"][PLUGIN] == "privbench-noise 0.1.0"
    assert PLUGIN not in look(cwd=work)["found"]


def test_the_example_passes_its_own_tests(noise: Path, work: Path) -> None:
    """Its suite, which runs the contract kit, passes against the installed package."""
    report = python(
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(EXAMPLE)),
        str(EXAMPLE / "tests"),
        folders=(noise,),
        cwd=work,
    )
    assert " passed" in report
    assert "failed" not in report


def test_two_packages_with_one_id_are_a_loud_error(noise: Path, work: Path) -> None:
    """Neither wins silently, although both call their entry point the same."""
    fork = install(copy(work / "copy", "privbench-fork", "privbench_fork"), work / "fork")
    error = look(noise, fork, cwd=work)["error"]
    assert f"Two plugins claim the anonymizer id {PLUGIN!r}" in error
    assert "privbench-noise 0.1.0" in error
    assert "privbench-fork 0.1.0" in error


def test_a_package_that_cannot_be_imported_stops_nobody(noise: Path, work: Path) -> None:
    """It shows as a failure with its reason; everyone else's plugins are there."""
    source = copy(work / "bad", "privbench-broken", "privbench_broken")
    (source / "privbench_broken.py").write_text(
        'PRIVBENCH_API = 1\nraise RuntimeError("no such driver")\n'
    )
    broken = install(source, work / "broken")
    answer = look(noise, broken, cwd=work)
    assert answer["failures"]["privbench-broken 0.1.0:noise"] == "RuntimeError: no such driver"
    assert PLUGIN in answer["found"]
    assert "none" in answer["found"]
