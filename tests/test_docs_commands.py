"""What the pages tell people to type works."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from docs_kit import DOCS, ROOT, blocks, check, commands, pages, shell
from privbench.cli import app, main

EXECUTED = ("quick-start.md", "publishing.md", "reproduce.md", "records.md")
"""Pages whose commands a test runs, in this order and in one folder."""

PARSED = {
    "gpu.md": "a GPU or the hub",
    "membership.md": "trains for minutes, or audits a model of the reader's",
    "plugin-tutorial.md": "tests/test_docs_tutorial.py or tests/test_example_plugin.py runs it",
    "synthfaces.md": "renders for minutes",
    "tiny-faces.md": "trains for hours",
}
"""Pages whose commands are only parsed, and why."""

ELSEWHERE = ("reference.md",)
"""It is generated."""

METRICS = "--metric identification verification open-set k-anonymity ssim"
FEW = {
    "contrastive-reid": "contrastive-reid.steps=3",
    "controlnet-canny": "controlnet-canny.steps=2",
    "ldm-unconditional": "ldm-unconditional.steps=2",
}


@pytest.mark.parametrize(
    "page", [p for p in pages() if p.name not in ELSEWHERE and any(commands(p))],
    ids=lambda page: str(page.relative_to(ROOT)),
)  # fmt: skip
def test_every_command_is_one(page: Path) -> None:
    """Each command line of a page names a command, options, plugins and settings that there are."""
    for line in commands(page):
        check(line)


@pytest.mark.parametrize("line", [
    "privbench rum --anonymizer none", "privbench run --anonymiser none",
    "privbench run --anonymizer nobody --attack random-guess",
    "privbench run --anonymizer pixelate --attack random-guess --set cell=6",
    "privbench run --anonymizer pixelate --attack random-guess --set cells=none",
    "privbench run --anonymizer controlnet-canny --attack contrastive-reid --set steps=3",
])  # fmt: skip
def test_wrong_commands_are_found(line: str) -> None:
    """The check refuses unknown commands, options, plugins and settings, and ambiguous ones."""
    with pytest.raises(Exception, match=r".") as found:
        check(line)
    assert type(found.value).__module__.startswith(("privbench", "cyclopts"))


def test_commands_in_sentences_are_known() -> None:
    """Where a sentence names `privbench SOMETHING`, there is such a command."""
    known = {name for name in app if not name.startswith("-")}
    for page in pages():
        text = re.sub(r"(?ms)^```.*?^```", "", page.read_text(encoding="utf-8"))
        for command in re.findall(r"`privbench ([a-z]+)", text):
            assert command in known, f"{page.name}: privbench {command}"


def test_every_block_of_shell_is_run_or_has_a_reason() -> None:
    """No page has commands that no test knows of."""
    for page in DOCS.glob("*.md"):
        if blocks(page, "sh"):
            assert (page.name in EXECUTED) != (page.name in PARSED), page.name


def test_what_the_pages_import_is_there() -> None:
    """Every name that a block of Python imports from privbench exists."""
    found = 0
    for page in pages():
        for code in blocks(page, "python"):
            for module, names in re.findall(r"(?m)^from (privbench(?:\.\w+)*) import (.+)$", code):
                for name in names.split(", "):
                    assert hasattr(importlib.import_module(module), name), f"{page.name}: {name}"
                    found += 1
    assert found > 5


def test_targets_of_make_exist() -> None:
    """Each `make TARGET` that a page or a workflow names is one."""
    places = [*pages(), *(ROOT / ".github").rglob("*.*")]
    found = {
        target
        for place in places
        for target in re.findall(r"(?:`|^ *|run: )make (?:-C \w+ )?([a-z]+)\b(?=`|$| {2})",
                                 place.read_text(encoding="utf-8"), re.MULTILINE)
    }  # fmt: skip
    assert {"setup", "run", "test", "lint"} <= found
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    for target in found:
        done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True,
                              env=environment)  # fmt: skip
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for all of a session, with photographs of twelve people."""
    folder = tmp_path_factory.mktemp("session")
    for person in range(12):
        look = np.random.default_rng(person).integers(0, 255, (4, 4, 3))
        place = folder / "photos" / f"person-{person:02d}"
        place.mkdir(parents=True)
        for shot in range(4):
            noise = np.random.default_rng(100 * person + shot).normal(0, 8, (48, 48, 3))
            pixels = np.kron(look, np.ones((12, 12, 1))) + noise
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(place / f"{shot}.png")
    return folder


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("page", EXECUTED)
def test_a_page_works_from_top_to_bottom(
    page: str, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its commands, at small scale where they would take minutes, end well one after another."""
    monkeypatch.chdir(home)
    for block in blocks(DOCS / page, "sh"):
        for line in shell(block):
            words = shlex.split(_small(_filled(line, home)))
            with pytest.raises(SystemExit) as ended:
                main(words[1:])
            shown = capsys.readouterr()
            assert ended.value.code == 0, f"{line}\n{shown.err}"
            assert shown.out, line
    _left_behind(page, home)


def _left_behind(page: str, home: Path) -> None:
    """Files that a page promises."""
    if page == "quick-start.md":
        assert (home / "report.html").is_file()
        assert (home / "board" / "site" / "index.html").is_file()
        assert list((home / ".privbench" / "records").glob("*.scores.safetensors"))
    if page == "publishing.md":
        board = (home / "leaderboard" / "LEADERBOARD.md").read_text(encoding="utf-8")
        assert "The attack was trained with a wrong seed" in board
        assert (home / "leaderboard" / "grades.json").is_file()
        assert list((home / "leaderboard" / "galleries").glob("*.jpg"))


def _filled(line: str, home: Path) -> str:
    """A line with a real file in the place of NAME; what it speaks of is there."""
    if "proposed" in line:
        shutil.copytree(home / "leaderboard", home / "proposed", dirs_exist_ok=True)
    records = sorted((home / "leaderboard" / "records").glob("pixelate*.json.gz"))
    return line.replace("NAME.json.gz", records[0].name) if records else line


def _small(line: str) -> str:
    """A run that takes seconds, by the same options."""
    if not line.startswith("privbench run") or "--protocol smoke" in line:
        return line
    few = [setting for plugin, setting in FEW.items() if plugin in line]
    scale = "" if "folder:" in line else "--protocol smoke"
    return f"{line} {scale} --in-process {METRICS} {'--set' if few else ''} {' '.join(few)}"


def test_python_in_the_pages_runs(home: Path) -> None:
    """The Python blocks of records.md and reproduce.md, and the line that prints a command."""
    found = sorted((home / ".privbench" / "records").glob("*random-guess--smoke*.json"))
    for name in ("first.json", "second.json"):
        shutil.copy(found[0], home / name)
    (line,) = [li for b in blocks(DOCS / "reproduce.md", "sh") for li in b.splitlines()
               if li.startswith("python ")]  # fmt: skip
    _, _, program, record = shlex.split(_filled(line, home))
    programs = [program, *blocks(DOCS / "records.md", "python"),
                *blocks(DOCS / "reproduce.md", "python")]  # fmt: skip
    done = subprocess.run([sys.executable, "-c", "\n".join(programs), record], cwd=home,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    shown = done.stdout
    assert "privbench run --anonymizer pixelate --attack contrastive-reid" in shown
    assert "probes that fared otherwise: 0 of 8" in shown
