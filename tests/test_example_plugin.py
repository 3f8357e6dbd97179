"""The third-party route, for real: packages are built and installed, then found, or refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from packages import install, look, own_tests

EXAMPLES = Path(__file__).parents[1] / "examples"
EXAMPLE = EXAMPLES / "privbench-noise"
PLUGIN = "privbench-noise/gaussian-noise"
DEFACE = "privbench-deface/deface"


def plain_copy(source: Path, to: Path) -> Path:
    """A package without what tools leave beside it."""
    shutil.copytree(source, to, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    return to


def copy(to: Path, name: str, module: str) -> Path:
    """The example under another distribution and module name."""
    plain_copy(EXAMPLE, to)
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
    return install(work / "noise", copy(work / "example", "privbench-noise", "privbench_noise"))


@pytest.fixture(scope="module")
def deface(work: Path) -> Path:
    """The example that wraps another project's tool, installed."""
    return install(
        work / "deface", plain_copy(EXAMPLES / "privbench-deface", work / "deface-source")
    )


def test_an_installed_plugin_is_found(noise: Path, deface: Path, work: Path) -> None:
    """Installing the package is all that it takes."""
    found = look(noise, deface, cwd=work)["found"]
    assert found[PLUGIN] == "privbench-noise 0.1.0"
    assert found[DEFACE] == "privbench-deface 0.1.0"
    assert not {PLUGIN, DEFACE} & set(look(cwd=work)["found"])


def test_the_wrapped_tool_passes_its_own_tests(deface: Path, work: Path) -> None:
    """Its suite, which runs the contract kit, fails where it says so, once; that of the other
    example is run where the tutorial is followed.
    """
    report = own_tests(EXAMPLES / "privbench-deface", folders=(deface,), cwd=work)
    assert ", 1 xfailed" in report


def test_two_packages_with_one_id_are_a_loud_error(noise: Path, work: Path) -> None:
    """Neither wins silently, although both call their entry point the same."""
    fork = install(work / "fork", copy(work / "copy", "privbench-fork", "privbench_fork"))
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
    broken = install(work / "broken", source)
    answer = look(noise, broken, cwd=work)
    assert answer["failures"]["privbench-broken 0.1.0:plugin"] == "RuntimeError: no such driver"
    assert PLUGIN in answer["found"]
    assert "none" in answer["found"]
