"""`privbench plugin new`: what it writes works at once, under any name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from packages import install, look, own_tests
from privbench.errors import ConfigError
from privbench.scaffold import FOLDER, LONGEST, PLUGINS, TemplateKind, write_package

KINDS = tuple(PLUGINS)
LONG = "a-name-as-long-as-can-be-without-a-break"
"""Longer than any of the templates'."""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder."""
    return tmp_path_factory.mktemp("authors")


@pytest.fixture(scope="module")
def packages(work: Path) -> dict[str, Path]:
    """Id of a new plugin to the package's folder; one of each kind."""
    folders = {kind: work / f"my-{kind}" for kind in KINDS}
    return {write_package(f"my-{kind}", kind, at): at for kind, at in folders.items()}


@pytest.fixture(scope="module")
def installed(packages: dict[str, Path], work: Path) -> Path:
    """The three packages, built and installed."""
    return install(work / "installed", *packages.values())


def test_new_plugins_are_found(packages: dict[str, Path], installed: Path, work: Path) -> None:
    """All three register under their own names, and nothing fails to load."""
    answer = look(installed, cwd=work)
    assert not answer["failures"]
    for plugin in packages:
        name, _ = plugin.split("/")
        assert answer["found"][plugin] == f"{name} 0.1.0"


def test_new_packages_pass_their_own_tests(
    packages: dict[str, Path], installed: Path, work: Path
) -> None:
    """The contract kit and each template's own facts, warnings as errors."""
    report = own_tests(*packages.values(), folders=(installed,), cwd=work)
    assert " passed" in report
    assert "failed" not in report


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["b", LONG])
def test_new_packages_lint_clean(kind: TemplateKind, name: str, tmp_path: Path) -> None:
    """Whatever the length of the name, and nothing of the template's name is left."""
    assert len(LONG) == LONGEST
    write_package(name, kind, tmp_path)
    for words in (["check"], ["format", "--check"]):
        ruff = [sys.executable, "-m", "ruff", *words, "--no-cache", "."]
        done = subprocess.run(ruff, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    written = {p.relative_to(tmp_path): p for p in tmp_path.rglob("*") if p.is_file()}
    assert len(written) == 4
    old = PLUGINS[kind].split("/")[0]
    for text in (f"{path} {file.read_text()}" for path, file in written.items()):
        assert old not in text
        assert old.replace("-", "_") not in text


def test_templates_ship_with_what_is_written(tmp_path: Path) -> None:
    """Under its own name a template is copied file by file."""
    for kind in KINDS:
        name = PLUGINS[kind].split("/")[0]
        write_package(name, kind, tmp_path / kind)
        for file in (p for p in (tmp_path / kind).rglob("*") if p.is_file()):
            source = FOLDER / kind / file.relative_to(tmp_path / kind)
            assert file.read_bytes() == source.read_bytes()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Privbench_Blur", "Did you mean privbench-blur"),
        ("3d-blur", "Did you mean d-blur"),
        ("blur--2", "Did you mean blur"),
        ("a" * (LONGEST + 1), f"at most {LONGEST} characters"),
        ("../evil", "Did you mean evil"),
        ("", "lower-case letters"),
        ("json", "a module or a keyword json already"),
        ("privbench", "a module or a keyword privbench already"),
        ("lambda", "a module or a keyword lambda already"),
    ],
)
def test_bad_names_are_refused(name: str, message: str, tmp_path: Path) -> None:
    """Not a distribution's name, or one that would hide a module: a sentence, and no file."""
    with pytest.raises(ConfigError, match=message):
        write_package(name, "metric", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """A folder that holds anything, or a file, is left as it is."""
    (tmp_path / "mine.txt").write_text("mine")
    for folder in (tmp_path, tmp_path / "mine.txt"):
        with pytest.raises(ConfigError, match="nothing was written"):
            write_package("my-metric", "metric", folder)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
