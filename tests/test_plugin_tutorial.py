"""docs/plugin-tutorial.md, followed to the letter: its files written, its commands executed."""

from __future__ import annotations

import os
import re
import subprocess
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "plugin-tutorial.md").read_text(encoding="utf-8")
EXAMPLE = ROOT / "examples" / "privbench-noise"

FENCE = re.compile(
    r"(?:^`(?P<file>[\w./]+)`[^\n]*\n\n)?```(?P<kind>\w+)\n(?P<text>.*?)```", re.M | re.S
)
"""A block, with the file that it is to be written to where the line before names one."""

ADAPTED = {
    "python3 -m venv .venv": "",  # the test's own, below
    "pip install ../privbench": "python -c 'import privbench'",
    "--protocol quick": "--protocol smoke",
}
"""What the test does otherwise: privbench is there already, and a small protocol will do."""

FAST = {"contrastive-reid": "steps=3", "naive-recogniser": "recognisers=tiny-encoder"}
"""Settings that make an attack quick, and weak."""

PREAMBLE = """
set -euo pipefail
pip() { python -m pip "$@"; }
privbench() { python -m privbench.cli "$@"; }
pytest() { python -m pytest -p no:cacheprovider "$@"; }
ruff() { python -m ruff "$@"; }
"""


def adapted(line: str) -> str:
    """A command of the page, as the test runs it."""
    for old, new in ADAPTED.items():
        line = line.replace(old, new)
    if line.startswith("privbench run"):
        line += "" if "--metric" in line else " --metric identification"
        line += "".join(f" --set {name}.{fast}" for name, fast in FAST.items() if name in line)
    return line + "\n"


def script() -> str:
    """The page as one shell script."""
    parts = [PREAMBLE]
    for block in FENCE.finditer(PAGE):
        if block["kind"] == "sh":
            parts += map(adapted, block["text"].splitlines())
        else:
            parts.append(f"cat > {block['file']} <<'END-OF-FILE'\n{block['text']}END-OF-FILE\n")
    return "".join(parts)


def isolated(folder: Path) -> Path:
    """A virtual environment that sees this one's packages and installs into its own folder."""
    made = folder / ".venv"
    venv.create(made, with_pip=False, symlinks=True)
    own = Path(sysconfig.get_path("purelib", vars={"base": str(made), "platbase": str(made)}))
    shared = sysconfig.get_path("purelib")
    (own / "shared.pth").write_text(f"import site; site.addsitedir({shared!r})\n")
    return made


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder in which the page was followed, and what was printed."""
    folder = tmp_path_factory.mktemp("author")
    isolated(folder)
    offline = {"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0"}
    done = subprocess.run(
        ["bash", "-c", script()],
        cwd=folder,
        env=os.environ | offline | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return folder, done.stdout


def test_the_page_ends_with_a_row_on_a_board(followed: tuple[Path, str]) -> None:
    """Every command ends well, and the author's anonymizer is on the board, beside its control."""
    folder, _ = followed
    board = (folder / "privbench-noise" / "board" / "LEADERBOARD.md").read_text(encoding="utf-8")
    assert "privbench-noise/gaussian-noise" in board
    assert (folder / "privbench-noise" / "board" / "site" / "index.html").is_file()


def test_the_author_has_the_example(followed: tuple[Path, str]) -> None:
    """Whoever follows the page has examples/privbench-noise, file by file."""
    folder, _ = followed
    for name in ("pyproject.toml", "privbench_noise.py", "tests/test_anonymizer.py"):
        assert (folder / "privbench-noise" / name).read_bytes() == (EXAMPLE / name).read_bytes()


def test_what_the_page_shows_is_printed(followed: tuple[Path, str]) -> None:
    """Tests and checks of the plugin pass, and it is listed with its package."""
    _, printed = followed
    folded = " ".join(printed.split())
    assert "failed" not in folded
    assert "All checks passed!" in folded
    assert "privbench-noise/gaussian-noise 1 privbench-noise 0.1.0 Gaussian noise" in folded
    assert "from: privbench-noise 0.1.0, plugin API 1" in folded
