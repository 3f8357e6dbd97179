"""A new package with a plugin: a template under the author's name.

The templates are packages that work as they are; ruff, mypy and their own tests see them.
"""

from __future__ import annotations

import importlib.util
import keyword
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from privbench.errors import ConfigError

TemplateKind = Literal["anonymizer", "attack", "metric"]

FOLDER = Path(__file__).parent / "templates"

PLUGINS: Mapping[TemplateKind, str] = MappingProxyType(
    {
        "anonymizer": "privbench-blur/blur",
        "attack": "privbench-thumbnails/thumbnails",
        "metric": "privbench-median/median-rank",
    }
)
"""The plugin of each template; before the stroke stands the name that is replaced."""

LONGEST = 40
"""Characters of a name: longer ones would break the lines of the source."""

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def write_package(name: str, kind: TemplateKind, folder: Path) -> str:
    """Write an installable package with one plugin, its tests and a README; return its id.

    Args:
        name: of the distribution, e.g. `privbench-blur`; the module is called `privbench_blur`.
        kind: of the plugin.
        folder: new or empty.

    Raises:
        ConfigError: the name cannot be used, or the folder holds something.
    """
    _check_name(name)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(
            f"{folder} exists already and is not an empty folder; nothing was written. "
            "Choose another --out."
        )
    old, plugin = PLUGINS[kind].split("/")
    for path in _files(FOLDER / kind):
        target = folder / _renamed(str(path.relative_to(FOLDER / kind)), old, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        text = _renamed(path.read_text(encoding="utf-8"), old, name)
        target.write_text(text, encoding="utf-8")
    return f"{name}/{plugin}"


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or len(name) > LONGEST:
        near = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-0123456789")[:LONGEST].rstrip("-")
        hint = f" Did you mean {near}?" if near and near != name else ""
        raise ConfigError(
            f"NAME must be the name of a distribution in lower-case letters, digits and single "
            f"hyphens, at most {LONGEST} characters, such as privbench-blur; got {name!r}.{hint}"
        )
    module = _module(name)
    if keyword.iskeyword(module) or importlib.util.find_spec(module) is not None:
        raise ConfigError(
            f"{name} cannot be used: Python has a module or a keyword {module} already. "
            "Choose another name."
        )


def _files(template: Path) -> list[Path]:
    """Every file of a template; what tools leave behind is none."""
    return [p for p in sorted(template.rglob("*")) if p.suffix in (".md", ".py", ".toml")]


def _module(name: str) -> str:
    return name.replace("-", "_")


def _renamed(text: str, old: str, new: str) -> str:
    return text.replace(old, new).replace(_module(old), _module(new))
