"""Packages of third parties: built, installed into folders of their own, and used from there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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


def python(*arguments: str, folders: Sequence[Path], cwd: Path) -> str:
    """Output of a fresh interpreter that sees those folders' packages; it must end well."""
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


def install(folder: Path, *sources: Path) -> Path:
    """Build the packages and install them into one folder of their own."""
    python(
        *("-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"),
        *("--target", str(folder), "--no-compile", *map(str, sources)),
        folders=(),
        cwd=sources[0],
    )
    return folder


def own_tests(*sources: Path, folders: Sequence[Path], cwd: Path) -> str:
    """pytest's report on the packages' own suites, against what is installed in the folders."""
    tests = [str(source / "tests") for source in sources]
    return python(
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"),
        *("--rootdir", str(cwd), "--import-mode", "importlib", *tests),
        folders=folders,
        cwd=cwd,
    )


def look(*folders: Path, cwd: Path) -> dict[str, Any]:
    """What the registry finds with those packages installed."""
    answer: dict[str, Any] = json.loads(python("-c", LOOK, folders=folders, cwd=cwd))
    return answer
