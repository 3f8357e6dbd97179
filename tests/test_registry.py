"""Plugin loading, ids and settings."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from pydantic import Field

from privbench.errors import ConfigError, PluginLoadError, UnknownPluginError
from privbench.plan import parse_settings
from privbench.registry import load_registry, make_config
from privbench.spec import Config, PluginSpec

MODULE = """
from privbench import PluginSpec, hookimpl

PRIVBENCH_API = 1

def build(config):
    return object()

@hookimpl
def privbench_plugins():
    return [PluginSpec("anonymizer", {plugin!r}, 1, "test", build{more})]
"""

BAD = "import there_is_no_such_module\nPRIVBENCH_API = 1"


def entry(tmp_path: Path, name: str, source: str) -> EntryPoint:
    """An entry point to a module written for the test."""
    (tmp_path / f"{name}.py").write_text(source)
    return EntryPoint(name, name, "privbench")


@pytest.fixture
def plugdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An importable folder."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_a_broken_plugin_stops_nobody_else(plugdir: Path) -> None:
    """An import error is reported with its reason, and the other plugins are there."""
    good = entry(plugdir, "plug_good", MODULE.format(plugin="good/blur", more=""))
    bad = entry(plugdir, "plug_bad", BAD)
    registry = load_registry([bad, good])
    assert registry.get("anonymizer", "good/blur").spec.summary == "test"
    assert "there_is_no_such_module" in next(iter(registry.failures.values()))


def test_wrong_hook_is_a_failure_with_the_rule(plugdir: Path) -> None:
    """A module without the hook says what it should define."""
    registry = load_registry([entry(plugdir, "plug_empty", "PRIVBENCH_API = 1")])
    assert "hookimpl" in next(iter(registry.failures.values()))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("PRIVBENCH_API = 2", r"written for plugin API 2; this privbench has 1\. Install"),
        ("PRIVBENCH_API: int = 0", r"written for plugin API 0; this privbench has 1\. Install"),
        ("", r"`PRIVBENCH_API = 1`, with the number itself, is expected"),
        ("from privbench.spec import API_VERSION as PRIVBENCH_API", "with the number itself"),
        ("from privbench import spec\nPRIVBENCH_API = spec.API_VERSION", "with the number itself"),
        ("PRIVBENCH_API = True", "with the number itself"),
    ],
)
def test_a_plugin_for_another_api_is_refused(plugdir: Path, line: str, expected: str) -> None:
    """Another version, none, or one that follows the core: a sentence, and nobody else stops."""
    number = sum(line.encode())  # a module of its own each time
    old = MODULE.format(plugin="old/blur", more="").replace("PRIVBENCH_API = 1", line)
    good = MODULE.format(plugin="good/blur", more="")
    points = [entry(plugdir, f"old{number}", old), entry(plugdir, f"good{number}", good)]
    registry = load_registry(points)
    assert [p.spec.id for p in registry.of_kind("anonymizer")] == ["good/blur"]
    with pytest.raises(UnknownPluginError, match=expected):
        registry.get("anonymizer", "old/blur")


def test_a_plugin_for_another_api_is_not_imported(plugdir: Path) -> None:
    """It is refused by what its source says, so what it imports cannot fail with less clarity."""
    source = "from privbench import NotYetInvented\nPRIVBENCH_API = 9"
    reason = load_registry([entry(plugdir, "plug_future", source)]).failures["local:plug_future"]
    assert reason.startswith("plug_future was written for plugin API 9")
    assert "plug_future" not in sys.modules


def test_an_entry_point_to_nothing_says_so(plugdir: Path) -> None:
    """A module that is not there is told as such."""
    registry = load_registry([EntryPoint("x", "no_such_module", "privbench")])
    assert "there is no module 'no_such_module'" in registry.failures["local:x"]


def test_duplicate_ids_are_loud(plugdir: Path) -> None:
    """Two plugins of one kind and id are an error that names both origins."""
    points = [
        entry(plugdir, f"plug_dup{i}", MODULE.format(plugin="dup/blur", more="")) for i in (1, 2)
    ]
    with pytest.raises(PluginLoadError, match="dup/blur"):
        load_registry(points)


def test_missing_extra_is_unavailable_with_a_hint(plugdir: Path) -> None:
    """A plugin whose extra is not installed is listed, and says what to install."""
    more = ', requires=("no_such_library",), extra="privbench[extra]"'
    point = entry(plugdir, "plug_extra", MODULE.format(plugin="x/extra", more=more))
    registry = load_registry([point])
    with pytest.raises(PluginLoadError, match=r"no_such_library.*pip install 'privbench\[extra\]'"):
        registry.get("anonymizer", "x/extra")


def test_unknown_id_suggests() -> None:
    """A typo in an id gets the nearest id."""
    with pytest.raises(UnknownPluginError, match="Did you mean controlnet-canny"):
        load_registry().get("anonymizer", "controlnet-cany")


class _Config(Config):
    steps: int = Field(10, ge=1, description="steps")


def _spec() -> PluginSpec:
    return PluginSpec("anonymizer", "a", 1, "test", lambda config: config, config=_Config)


def test_settings_are_typed_and_checked() -> None:
    """Strings become the field's type; unknown, ill-typed and out-of-range values are refused."""
    assert make_config(_spec(), {"steps": "20"}).model_dump() == {"steps": 20}
    with pytest.raises(ConfigError, match="Did you mean steps"):
        make_config(_spec(), {"step": "20"})
    with pytest.raises(ConfigError, match=r"steps.*got 'many'"):
        make_config(_spec(), {"steps": "many"})
    with pytest.raises(ConfigError, match="greater than or equal to 1"):
        make_config(_spec(), {"steps": "0"})


def test_settings_find_their_plugin() -> None:
    """An unqualified key goes to the one plugin that has it; ambiguity is an error."""
    registry = load_registry()
    selected = [("anonymizer", "gaussian-blur"), ("anonymizer", "pixelate")]
    given = parse_settings(["sigma=3", "pixelate.cells=6"], selected, registry)  # type: ignore[arg-type]
    assert given["anonymizer", "gaussian-blur"] == {"sigma": "3"}
    assert given["anonymizer", "pixelate"] == {"cells": "6"}
    for bad, words in (
        ("sigma", "key=value"),
        ("sigm=3", "Did you mean sigma"),
        ("blurr.sigma=3", "not part of this run"),
    ):
        with pytest.raises(ConfigError, match=words):
            parse_settings([bad], selected, registry)  # type: ignore[arg-type]
