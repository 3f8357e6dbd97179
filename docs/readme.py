"""Put real output into the README: `python docs/readme.py`, after `make run`.

Runs the main command (instant if its result is in the store) and copies the leaderboard's rows.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
MAIN = "run --anonymizer controlnet-canny --attack contrastive-reid"


def between(text: str, marker: str, inside: str) -> str:
    """`text` with what stands between `<!-- marker -->` and the next end marker replaced."""
    before, start, rest = text.partition(f"<!-- {marker} -->")
    _, end, after = rest.partition("<!-- end -->")
    if not start or not end:
        raise SystemExit(f"README.md has no block {marker!r}.")
    return f"{before}{start}\n{inside}\n{end}{after}"


def main() -> None:
    """Rewrite both blocks."""
    words = [sys.executable, "-m", "privbench.cli", *shlex.split(MAIN)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S603
    lines = [line.rstrip() for line in done.stdout.strip().splitlines()]
    output = "\n".join(["```text", *lines, "```"])
    board = (ROOT / "leaderboard" / "LEADERBOARD.md").read_text(encoding="utf-8")
    lines = [line for line in board.splitlines() if line.startswith(("|", "### "))]
    rows = "\n".join(f"\n{line}\n" if line.startswith("#") else line for line in lines)
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    text = between(text, "output: make run", output)
    readme.write_text(between(text, "leaderboard", rows), encoding="utf-8")


if __name__ == "__main__":
    main()
