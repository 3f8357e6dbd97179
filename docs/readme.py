"""Put real output into the README: `python docs/readme.py`, after `make run`.

Runs the main command (instant if its result is in the store), copies the main columns of the
leaderboard against the strongest attacker and what the studies say.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
MAIN = "run --anonymizer controlnet-canny --attack contrastive-reid"
COLUMNS = ("Rank", "Ties", "Anonymizer", "Rank-1 ↓", "Worst attack (of)", "Faces found ↑",
           "Attributes kept ↑", "ms/image ↓")  # fmt: skip
SAID = ("**The boundary.**", "**Conditions.**", "**Baselines.**", "**canny, conditioning scale.**",
        "**depth, conditioning scale.**", "**Controls and diagnostics.**")  # fmt: skip
GIVEN = ("**Given back.**", "**How much it takes.**", "**Controls of the inversions.**")
SEEN = ("**What is membership.**", "**What is only distribution.**", "**Whole sets.**",
        "- 20 epochs: ", "- 80 epochs: ", "**False alarms of the set test.**")  # fmt: skip
CLIMBED = ("**The strongest attack**", "**What a naive attacker", "**Against canny**")


def between(text: str, marker: str, inside: str) -> str:
    """`text` with what stands between `<!-- marker -->` and the next end marker replaced."""
    before, start, rest = text.partition(f"<!-- {marker} -->")
    _, end, after = rest.partition("<!-- end -->")
    if not start or not end:
        raise SystemExit(f"README.md has no block {marker!r}.")
    return f"{before}{start}\n{inside}\n{end}{after}"


def narrow(board: str) -> str:
    """The leaderboard's first section with `COLUMNS` only; chance is the same for all rows."""
    found: list[str] = []
    head: list[str] = []
    _, _, section = board.partition("\n### ")
    for line in section.partition("\n### ")[0].splitlines():
        if line.startswith("Controls and diagnostics"):
            found.append(f"\n{line}\n")
        if not line.startswith("|"):
            head = []
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        head = head or cells
        kept = [cells[head.index(name)] for name in COLUMNS if name in head]
        found.append(f"| {' | '.join(kept)} |")
    return "\n".join(found)


def said(page: str, first: tuple[str, ...] = SAID) -> str:
    """The paragraphs of a study's page that begin with one of `first`."""
    return "\n\n".join(line for line in page.splitlines() if line.startswith(first))


def ladder(page: str) -> str:
    """The table of attacks of a study's page, and what it says of them."""
    table = page.partition("## The ladder of attacks\n\n")[2].partition("\n\n")[0]
    return f"{table}\n\n{said(page, CLIMBED)}"


def page_of(study: str) -> str:
    """The committed page of a study."""
    return (ROOT / "docs" / "studies" / study / "README.md").read_text(encoding="utf-8")


def main() -> None:
    """Rewrite all blocks."""
    words = [sys.executable, "-m", "privbench.cli", *shlex.split(MAIN)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S603
    lines = [line.rstrip() for line in done.stdout.strip().splitlines()]
    board = (ROOT / "leaderboard" / "LEADERBOARD.md").read_text(encoding="utf-8")
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    text = between(text, "output: make run", "\n".join(["```text", *lines, "```"]))
    text = between(text, "study", said(page_of("conditioning")))
    text = between(text, "ladder", ladder(page_of("ladder")))
    text = between(text, "inversion", said(page_of("inversion"), GIVEN))
    text = between(text, "membership", said(page_of("face-mia"), SEEN))
    readme.write_text(between(text, "leaderboard", narrow(board)), encoding="utf-8")


if __name__ == "__main__":
    main()
