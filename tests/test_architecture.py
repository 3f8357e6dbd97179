"""Imports point one way, and what must not be used is not used."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE = ROOT / "bench" / "privbench"
PLUGINS = ROOT / "plugins" / "privbench_plugins"
LEADERBOARD = ROOT / "leaderboard" / "privbench_leaderboard"
ORDER = (
    "errors", "spec", "progress", "worker", "isolate", "types", "membership", "hookspecs", "keys",
    "registry", "data",
    "populations", "evidence", "store", "timing", "stats", "settest", "large", "paired",
    "ranking", "record", "ladder", "timing_record", "plan", "session", "release", "oracle",
    "comparison", "training", "inversion", "scoring", "results", "measure", "execute", "pictures",
    "curves", "bundle", "recompute", "grades",
    "report", "api", "audit_plan", "target", "infer", "audit_numbers", "audit_record",
    "audit_publication", "submission", "rerun", "claims", "verify", "record_schema",
    "audit_words", "audit", "audit_studyfile", "audit_summary", "audit_study", "studyfile",
    "summary", "study", "__init__", "testing", "templates", "show", "match", "scaffold",
    "cli_plugins", "cli_publish", "cli_options", "cli_study", "cli",
)  # fmt: skip
FOR_PLUGINS = {
    "errors", "spec", "progress", "types", "membership", "hookspecs", "keys", "data", "timing",
}  # fmt: skip
PUBLIC = {f"privbench.{n}" for n in ("Config", "NoConfig", "PluginSpec", "Tags", "hookimpl")}
FORBIDDEN_IMPORTS = {"torchvision", "pickle", "cPickle", "dill", "cloudpickle", "yaml", "shelve"}
FORBIDDEN_CALLS = {"eval", "exec", "torch.load", "joblib.load"}


def modules(folder: Path) -> list[Path]:
    """Every module below a folder."""
    return sorted(folder.rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Absolute names of everything that a module imports, at any depth of nesting."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:  # "." stays in its package
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def calls(path: Path) -> Iterator[str]:
    """Dotted names of everything that a module calls."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func)


def core_of(name: str) -> str:
    """The core module behind an imported name: `privbench.x.y` is x, `privbench` is the API."""
    parts = name.split(".")
    home = CORE / parts[1] if len(parts) > 1 else CORE / "__init__"
    return home.name if home.is_dir() or home.with_suffix(".py").exists() else "__init__"


def names(root: str, path: Path) -> list[str]:
    """Names that a module imports from one top-level package."""
    return [name for name in imports(path) if name.partition(".")[0] == root]


def test_the_leaderboard_stands_alone() -> None:
    """It reads JSON: neither the core, nor plugins, nor torch."""
    for path in modules(LEADERBOARD):
        for root in ("privbench", "privbench_plugins", "torch"):
            assert not names(root, path), path


def test_core_modules_import_only_those_above_them() -> None:
    """One order, no cycles; and no built-in plugin is known by name."""
    for path in modules(CORE):
        home = path.relative_to(CORE).with_suffix("").parts[0]  # a package has one place
        place = ORDER.index(home)
        assert not names("privbench_plugins", path), path
        if home == "__init__":
            continue  # the lazy interface names modules on both sides of it
        others = [n for n in map(core_of, names("privbench", path)) if n != home]
        below = [n for n in others if ORDER.index(n) >= place]
        assert not below, f"{path.relative_to(CORE)} imports {below}"


def test_plugins_import_only_the_public_core() -> None:
    """Built-in plugins get no more from the core than anyone's."""
    for path in modules(PLUGINS):
        assert not names("privbench_leaderboard", path), path
        taken = [n for n in names("privbench", path) if n not in PUBLIC]
        private = [n for n in taken if core_of(n) not in FOR_PLUGINS]
        assert not private, f"{path.relative_to(ROOT)} imports {private}"


def test_nothing_reads_code_from_data_or_needs_torchvision() -> None:
    """No pickle in any guise, no eval, no YAML; torchvision has no build for our torch."""
    for path in (p for root in (CORE, PLUGINS, LEADERBOARD) for p in modules(root)):
        roots = {name.partition(".")[0] for name in imports(path)}
        assert not roots & FORBIDDEN_IMPORTS, path
        assert not set(calls(path)) & FORBIDDEN_CALLS, path
        assert "allow_pickle=True" not in path.read_text(encoding="utf-8"), path


@pytest.mark.parametrize("heavy", ["torch", "numpy"])
def test_naming_the_plugins_imports_nothing_heavy(heavy: str) -> None:
    """`privbench list` and `--help` stay instant."""
    code = (
        "import sys, privbench_plugins\n"
        "assert list(privbench_plugins.privbench_plugins())\n"
        f"assert {heavy!r} not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
