"""Write `docs/reference.md` from the code: `python docs/reference.py`.

Commands and options come from the command line's own help, hooks and errors from their docstrings,
presets from their numbers, plugins from their specifications and the headings of their pages.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cyclopts import App

from privbench import errors, hookspecs
from privbench.cli import app
from privbench.data import PROTOCOLS, Preset
from privbench.populations import MEMBERSHIP_PROTOCOLS
from privbench.registry import load_registry
from privbench.spec import KINDS, Kind

DOCS = Path(__file__).parent
PAGES: dict[Kind, tuple[str, ...]] = {
    "anonymizer": ("conditional-diffusion.md", "anonymizers.md"),
    "attack": ("attacks.md",),
    "metric": ("metrics.md",),
    "dataset": ("datasets.md",),
    "detector": ("datasets.md",),
}
"""Where the plugins of a kind are described."""

INTRO = """\
# Reference

<!-- Written by `python docs/reference.py` from the code. Do not edit. -->

Every [command](#commands) with its options, [hook](#hooks), [error](#errors),
[preset](#presets) and [plugin](#plugins). Exit codes: 0 if all went well; 2 if something is wrong,
with a message that says what, and what to do; 130 after Ctrl-C, with everything kept that was
finished.
"""
ADVICE = {
    "PrivbenchError": "Anything that is wrong and is none of those below. From Python, catch this "
    "one. A defect of privbench itself is none: it shows a traceback, or `failed: ...` where cells "
    "run isolated ([isolation.md](isolation.md)).",
    "UnknownPluginError": "The message suggests the nearest id. `privbench list` shows all, and "
    "which packages failed to load.",
    "PluginLoadError": "Install the extra that the message names, such as "
    "`pip install 'privbench[recognise]'`; or the package that it names was written for another "
    "plugin API, or claims an id that another one has: update, remove or rename.",
    "PluginError": "The message names the plugin, and what was expected of it. "
    "`privbench plugin check ID` finds most causes. In a run of several cells only this one is "
    "lost; a cell that ran out of `--timeout` or `--memory`, or died, is reported the same way.",
    "ConfigError": "`privbench describe ID` lists a plugin's settings, types and defaults; this "
    "page the options.",
    "DataError": "The message names the data set, and the file where there is one. "
    "[datasets.md](datasets.md) says what is read and what is left out.",
    "ModelError": "The message names the missing or unfit file. [gpu.md](gpu.md) says what a model "
    "folder must hold, and how to work without a network.",
    "StoreError": "`--repair` checks every stored file that a run uses and makes what is damaged "
    "again. A full disk or a folder that cannot be written is named.",
    "RecordError": "A record, its evidence or its grades are not what they should be, or were made "
    "by another release. [publishing.md](publishing.md) says what is checked.",
}
"""What to do about each error."""

FACTS = {
    "background": "people for fitting and pretraining",
    "attacker_train": "people whose photos the attacker trains on",
    "attacker_validation": "people on whom it chooses",
    "evaluation": "people in the gallery (S)",
    "non_mated": "people who are probed and in no gallery",
    "train_images": "photos of each of the attacker's people",
    "references": "photos of each person in the gallery",
    "few": "references in the trial `few-ref`",
    "probes": "probes of each person",
    "cross_references": "anonymized references in the trial `cross`",
    "resamples": "of the bootstrap",
}
"""What the numbers of a preset mean."""


def anchors(text: str) -> list[str]:
    """The anchors of a page's headings, as GitHub makes them.

    >>> anchors("# A `b`: c_d\\n## A b\\n## A b\\n")
    ['a-b-c_d', 'a-b', 'a-b-1']
    """
    bare = re.sub(r"^(`{3,}).*?^\1", "", text, flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#{1,6} (.+)$", bare, re.MULTILINE)
    slugs = [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]
    before = [slugs[:i].count(slug) for i, slug in enumerate(slugs)]
    return [f"{slug}-{n}" if n else slug for slug, n in zip(slugs, before, strict=True)]


def section(pages: Mapping[str, str], plugin: str) -> str:
    """`page#anchor` of where a plugin is described.

    That is the section whose heading names it; else the one in which a row or a paragraph begins
    with its name, or which names it at all, what stands above all sections last.

    Raises:
        ValueError: no page names it under any heading.
    """
    name = rf"`{re.escape(plugin)}[`:]"
    first = re.compile(rf"(?m)^(\| |\*\*|- )?{name}")
    found = []
    for page, text in pages.items():
        parts = re.split(r"(?m)^(?=#{1,6} )", text)[1:]
        for i, (part, anchor) in enumerate(zip(parts, anchors(text), strict=True)):
            head, _, body = part.partition("\n")
            marks = (re.search(name, head), i and first.search(body), first.search(body))
            rank = next((r for r, mark in enumerate(marks) if mark), len(marks))
            if re.search(name, part):
                found.append((rank, f"{page}#{anchor}"))
    if not found:
        raise ValueError(f"No section of {', '.join(pages)} names {plugin}.")
    return min(found, key=lambda place: place[0])[1]


def reference() -> str:
    """The whole page."""
    parts = [INTRO, "## Commands\n", *_commands(app, "privbench"), "## Hooks\n", *_hooks()]
    parts += ["## Errors\n", *_errors(), "## Presets\n", *_presets(), "## Plugins\n", *_plugins()]
    return "\n".join(parts)


def _commands(group: App, path: str) -> Iterator[str]:
    for name in sorted(n for n in group if not n.startswith("-")):
        command = group[name]
        if command.default_command is None:
            yield from _commands(command, f"{path} {name}")
            continue
        arguments = [
            a
            for a in command.assemble_argument_collection(parse_docstring=True)
            if a.show and a.name != "*"
        ]
        places = " ".join(
            _label(a) if a.required else f"[{_label(a)}]" for a in arguments if _positional(a)
        )
        yield f"### `{path} {name}`\n"
        yield f"```text\n{f'{path} {name} {places}'.strip()} [OPTIONS]\n```\n"
        yield f"{_said(command.help).partition('Parameters ---')[0].strip()}\n"
        for argument in arguments:
            yield f"#### `{_label(argument)}`\n"
            yield f"{_said(argument.parameter.help or '')}{_default(argument)}\n"


def _positional(argument: Any) -> bool:
    """Whether its name is not written: the first of its command, or one that has no default."""
    return argument.index == 0 or (argument.index is not None and argument.required)


def _label(argument: Any) -> str:
    name: str = argument.name
    if _positional(argument):
        many = "..." if argument.field_info.kind.name == "VAR_POSITIONAL" else ""
        return name.lstrip("-").upper() + many
    return name


def _default(argument: Any) -> str:
    choices = argument.get_choices()
    found = f" One of: {', '.join(choices)}." if choices else ""
    if argument.required:
        return found if _positional(argument) else f"{found} Required."
    value = argument.field_info.default
    if isinstance(value, bool) or value in (None, "", ()) or value is inspect.Parameter.empty:
        return found
    shown = " ".join(map(str, value)) if isinstance(value, tuple) else value
    return f"{found} Default: `{shown}`."


def _hooks() -> Iterator[str]:
    for name, hook in vars(hookspecs).items():
        if hasattr(hook, "privbench_spec"):
            yield f"### `{name}`\n\n```python\n{_signature(name, hook)}\n```\n"
            yield f"{inspect.getdoc(hook)}\n"


def _signature(name: str, hook: Callable[..., Any]) -> str:
    shown = str(inspect.signature(hook)).replace("'", "")
    return f"def {name}{shown}: ..."


def _errors() -> Iterator[str]:
    for name, error in vars(errors).items():
        if inspect.isclass(error) and issubclass(error, Exception):
            yield f"### `{name}`\n\n{_said(inspect.getdoc(error) or '')} {ADVICE[name]}\n"


def _presets() -> Iterator[str]:
    yield (
        "Identification; [protocol.md](protocol.md) has them in one table. `auto` takes `quick`, "
        "or `fit` where a data set is too small for it.\n"
    )
    for preset in PROTOCOLS.values():
        yield f"### `{preset.name}`\n\n{_preset(preset)}\n"
    yield "### `fit`\n"
    yield "All that a data set has, by a rule that [protocol.md](protocol.md#presets) states.\n"
    yield "Membership has presets of its own; [membership.md](membership.md) says who is who.\n"
    for other in MEMBERSHIP_PROTOCOLS.values():
        people = ", ".join(f"{part} {count:,}" for part, count in other.people.items())
        yield f"### `{other.name}` of membership\n"
        yield (
            f"Version {other.version}. People: {people}; {other.images} photos of each; "
            f"{other.resamples:,} resamples.\n"
        )


def _preset(preset: Preset) -> str:
    numbers = asdict(preset)
    lines = [f"- {numbers[name]:,} {meaning}" for name, meaning in FACTS.items()]
    probes = preset.evaluation * preset.probes
    head = (
        f"Version {preset.version}. Needs {preset.identities:,} people with {preset.images} "
        f"photos; {probes:,} probes, chance at rank 1 is {1 / preset.evaluation:.4g}."
    )
    return "\n".join([head, "", *lines])


def _plugins() -> Iterator[str]:
    yield "`privbench describe ID` prints the settings of each.\n"
    registry = load_registry()
    for kind in KINDS:
        pages = {page: (DOCS / page).read_text(encoding="utf-8") for page in PAGES[kind]}
        yield f"### Kind `{kind}`\n\n| id | version | what it is |\n|---|---|---|"
        for found in registry.of_kind(kind):
            spec = found.spec
            if found.distribution.startswith("privbench "):
                link = section(pages, spec.id)
                yield f"| [`{spec.id}`]({link}) | {spec.version} | {spec.summary} |"
        yield ""


def _said(text: str) -> str:
    """Prose on one line, a paragraph a line."""
    paragraphs = re.split(r"\n\s*\n", inspect.cleandoc(text))
    return "\n\n".join(" ".join(p.split()) for p in paragraphs if p.strip())


if __name__ == "__main__":
    (DOCS / "reference.md").write_text(reference(), encoding="utf-8", newline="\n")
