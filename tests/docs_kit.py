"""What the tests of the pages share: finding commands in Markdown, parsing and running them."""

from __future__ import annotations

import itertools
import re
import runpy
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from privbench import cli
from privbench.api import make_study
from privbench.cli import What, app
from privbench.plan import Choice
from privbench.registry import load_registry, make_config

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
GENERATED = runpy.run_path(str(DOCS / "reference.py"), run_name="reference")
"""The functions of docs/reference.py."""

anchors = cast(Callable[[str], list[str]], GENERATED["anchors"])


def pages() -> list[Path]:
    """Every Markdown page that people read; not those that templates and forms consist of."""
    top = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"]
    return [*(ROOT / name for name in top), *sorted(DOCS.rglob("*.md"))]


def blocks(path: Path, language: str) -> list[str]:
    """Contents of a page's fenced blocks of one language."""
    text = path.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(path: Path) -> Iterator[str]:
    """Lines of a page that call privbench: in blocks of shell or text, or indented by four."""
    fenced = [*blocks(path, "sh"), *blocks(path, "text"), *blocks(path, "yaml")]
    indented = re.findall(r"(?:^ {4}.*\n)+", path.read_text(encoding="utf-8"), re.MULTILINE)
    for block in (*fenced, *indented):
        yield from shell(block)


def shell(block: str) -> Iterator[str]:
    """The privbench lines of a block, continued lines joined, comments and redirection left out."""
    for line in re.sub(r"\\\n\s*", " ", block).splitlines():
        words = line.strip().removeprefix("$ ")
        if re.match(r"(OMP_NUM_THREADS=\d+ )?privbench( |$)", words):
            kept = shlex.split(words.removeprefix("OMP_NUM_THREADS=1 "), comments=True)
            yield shlex.join(itertools.takewhile(lambda word: word not in (">", "|"), kept))


def check(line: str) -> None:
    """Parse a command line without running it: command, options, plugins and settings.

    Ids of other packages, `package/name`, are not looked up.

    Raises:
        CycloptsError: no such command or option, or a value of another type.
        PrivbenchError: no such plugin or setting, or a value out of range.
    """
    words = [w for w in shlex.split(line)[1:] if w != "..."]
    command, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    if command in (cli.run, cli.explain):
        what = bound.arguments.get("what") or What()
        named = (*what.anonymizer, *what.attack, *what.metric)
        if what.study is None and not any("/" in i.partition(":")[0] for i in named):
            study = make_study(
                what.anonymizer, what.attack, what.metric, dataset=what.dataset,
                settings=what.set, draws=what.draws, judges=what.judge,
            )  # fmt: skip
            _settings("anonymizer", study.anonymizers)
            _settings("attack", study.attacks)
            _settings("metric", study.metrics)
            _settings("dataset", [study.dataset])


def _settings(kind: Any, choices: Sequence[Choice]) -> None:
    registry = load_registry()
    for choice in choices:
        name, _, value = choice.id.partition(":")
        spec = registry.get(kind, name).spec
        more = {spec.argument: value} if value else {}
        make_config(spec, {**choice.settings, **more})
