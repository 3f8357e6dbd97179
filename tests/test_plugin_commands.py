"""`privbench list`, `describe` and `plugin`: what an author sees of a plugin."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from privbench.cli import main

MODULE = """
from privbench import Config, PluginSpec, hookimpl
from pydantic import Field

PRIVBENCH_API = {api}

class Settings(Config):
    share: float = Field(1.0, description={described!r})

class Flat:
    def anonymize(self, batch, seeds):
        return 0 * batch.pixels + batch.pixels.mean((2, 3), keepdim=True)

def build(config):
    return Flat()

@hookimpl
def privbench_plugins():
    return [PluginSpec("anonymizer", "{name}/flat", 3, "The mean [RGB].", build, Settings)]
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which packages can be installed."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def put(site: Path, name: str, api: int = 1, described: str = "What is left.") -> None:
    """Install a package with one anonymizer, as pip would leave it."""
    module = name.replace("-", "_")
    (site / f"{module}.py").write_text(MODULE.format(api=api, name=name, described=described))
    facts = site / f"{module}-2.5.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.5\n")
    (facts / "entry_points.txt").write_text(f"[privbench]\nplugin = {module}\n")


def call(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Run in this process: (exit code, stdout, stderr), white space folded."""
    with pytest.raises(SystemExit) as stop:
        main(list(words))
    out, err = (" ".join(text.split()) for text in capsys.readouterr())
    assert isinstance(stop.value.code, int)
    assert "Traceback" not in out + err
    return stop.value.code, out, err


def test_list_shows_where_each_plugin_is_from(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Package and version of third parties and of built-ins; brackets are text; 120 columns."""
    put(site, "flat-one")
    with pytest.raises(SystemExit):
        main(["list"])
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 120
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert "flat-one/flat 3 flat-one 2.5 The mean [RGB]." in lines
    assert any(line.startswith("yunet 1 privbench 0.1.0 YuNet") for line in lines)


def test_list_of_one_kind(capsys: pytest.CaptureFixture[str]) -> None:
    """`--kind` leaves the others out; a kind that there is not gets a hint."""
    code, out, _ = call(capsys, "list", "--kind", "detector")
    assert code == 0
    assert "yunet" in out
    assert "contrastive-reid" not in out
    code, _, err = call(capsys, "list", "--kind", "detectors")
    assert code == 2
    assert "There is no kind of plugin 'detectors'. Did you mean detector" in err


def test_a_package_for_another_api_is_named(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`list` shows what works and then the sentence; asking for the plugin repeats it."""
    put(site, "flat-two", api=7)
    code, out, err = call(capsys, "list")
    assert code == 0
    assert "contrastive-reid" in out
    sentence = "flat_two was written for plugin API 7; this privbench has 1."
    assert f"not loaded: flat-two 2.5:plugin: {sentence} Install a version" in err
    for words in (("describe",), ("plugin", "check")):
        code, _, err = call(capsys, *words, "flat-two/flat")
        assert code == 2
        assert sentence in err


def test_describe_names_package_and_api(capsys: pytest.CaptureFixture[str]) -> None:
    """Both beside the plugin's own version."""
    _, out, _ = call(capsys, "describe", "pixelate")
    assert "pixelate (anonymizer, version 1)" in out
    assert "from: privbench 0.1.0, plugin API 1" in out


def test_check_says_which_promise_is_broken(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A setting without a description fails `config`; all other checks have their line."""
    put(site, "flat-three", described="")
    plugin = "flat-three/flat"
    code, out, _ = call(capsys, "plugin", "check", plugin)
    assert code == 2
    assert "config failed" in out
    assert "the setting share must have a description" in out
    assert "input_unchanged passed" in out
    assert " 1 failed, in " in out
    code, out, _ = call(capsys, "plugin", "check", plugin, "--expect-failure", "config=in a hurry")
    assert code == 0
    assert "Expected: in a hurry" in out
    assert " 1 failed as expected, in " in out


def test_an_expected_failure_is_strict(capsys: pytest.CaptureFixture[str]) -> None:
    """One that passes ends with code 2; a name that is no check, and no reason, are refused."""
    check = ("plugin", "check", "pixelate", "--kind", "anonymizer", "--expect-failure")
    code, out, _ = call(capsys, *check, "output=why not")
    assert code == 2
    assert "it passed, and was expected to fail: why not" in out
    code, _, err = call(capsys, *check, "outptu=why not")
    assert code == 2
    assert "Did you mean output" in err
    code, _, err = call(capsys, *check, "output")
    assert code == 2
    assert "--expect-failure takes NAME=REASON; got 'output'" in err


def test_check_of_what_there_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown id gets the nearest; another kind says which kinds have it."""
    code, _, err = call(capsys, "plugin", "check", "pixelat")
    assert code == 2
    assert "There is no plugin 'pixelat'. Did you mean pixelate" in err
    code, _, err = call(capsys, "plugin", "check", "pixelate", "--kind", "metric")
    assert code == 2
    assert "pixelate is the id of: anonymizer" in err


def test_new_writes_and_says_what_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The package lies where it was asked for; writing it again is refused."""
    new = ("plugin", "new", "my-blur", "--kind", "anonymizer", "--out", str(tmp_path / "here"))
    code, out, _ = call(capsys, *new)
    assert code == 0
    assert f"pip install -e '{tmp_path / 'here'}[test]'" in out
    assert "privbench plugin check my-blur/blur" in out
    assert (tmp_path / "here" / "my_blur.py").is_file()
    code, _, err = call(capsys, *new)
    assert code == 2
    assert "nothing was written" in err


def test_new_imports_nothing_heavy(tmp_path: Path) -> None:
    """Writing a package is instant, and so is the help of both commands."""
    for words in (["plugin", "--help"], ["plugin", "new", "my-metric", "--kind", "metric"]):
        code = (
            "import sys\nfrom privbench.cli import main\n"
            f"try: main({words!r})\nexcept SystemExit as stop: assert not stop.code\n"
            "assert not {'torch', 'numpy'} & set(sys.modules)"
        )
        subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, capture_output=True)
