"""Plugins: entry points in, a read-only mapping and a list of failures out."""

from __future__ import annotations

import ast
import importlib.util
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args, get_origin

import pluggy
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from privbench import hookspecs
from privbench.errors import (
    ConfigError,
    PluginLoadError,
    PrivbenchError,
    UnknownPluginError,
    did_you_mean,
)
from privbench.spec import API_NAME, API_VERSION, Config, Kind, PluginSpec

GROUP = "privbench"


@dataclass(frozen=True, slots=True)
class Registered:
    """A plugin with its origin.

    Attributes:
        spec: what it says about itself.
        distribution: `name version` of the package that brought it.
        unavailable: why it cannot run here ("" when it can).
    """

    spec: PluginSpec
    distribution: str
    unavailable: str = ""


@dataclass(frozen=True, slots=True)
class Registry:
    """All plugins found.

    Attributes:
        plugins: by (kind, id).
        failures: entry point -> reason, for distributions that could not be loaded.
        studies: name -> TOML file.
    """

    plugins: Mapping[tuple[Kind, str], Registered]
    failures: Mapping[str, str]
    studies: Mapping[str, Path] = field(default_factory=lambda: MappingProxyType({}))

    def get(self, kind: Kind, plugin: str) -> Registered:
        """A runnable plugin.

        Raises:
            UnknownPluginError: no such id; suggests the nearest.
            PluginLoadError: it exists, and an extra it needs is missing.
        """
        try:
            found = self.plugins[kind, plugin]
        except KeyError:
            raise self._unknown(kind, plugin, {n for k, n in self.plugins if k == kind}) from None
        if found.unavailable:
            raise PluginLoadError(f"The {kind} {plugin!r} is unavailable: {found.unavailable}")
        return found

    def named(self, plugin: str) -> list[Registered]:
        """The plugins with this id, of whatever kind.

        Raises:
            UnknownPluginError: there is none; suggests the nearest.
        """
        found = [entry for (_, name), entry in sorted(self.plugins.items()) if name == plugin]
        if not found:
            raise self._unknown("plugin", plugin, {name for _, name in self.plugins})
        return found

    def _unknown(self, what: str, plugin: str, known: Iterable[str]) -> UnknownPluginError:
        broken = "".join(f"\nNot loaded: {name} ({why})" for name, why in self.failures.items())
        return UnknownPluginError(
            f"There is no {what} {plugin!r}. {did_you_mean(plugin, known)}{broken}"
        )

    def of_kind(self, kind: Kind) -> list[Registered]:
        """All plugins of one kind, by id."""
        return [p for (k, _), p in sorted(self.plugins.items()) if k == kind]


def load_registry(points: Iterable[EntryPoint] | None = None) -> Registry:
    """Load every entry point on its own: one that fails stops nobody else.

    Args:
        points: entry points to load; those of the group `privbench` by default.

    Raises:
        PluginLoadError: two plugins claim one (kind, id), or two studies one name.
    """
    studies: dict[str, Path] = {}
    plugins: dict[tuple[Kind, str], Registered] = {}
    failures: dict[str, str] = {}
    found = entry_points(group=GROUP) if points is None else points
    for point in sorted(found, key=lambda p: (p.value != "privbench_plugins", p.value)):
        dist = f"{point.dist.name} {point.dist.version}" if point.dist else "local"
        try:
            specs, files = _offers(point)
        except Exception as error:  # a third party's import may raise anything
            ours = isinstance(error, PrivbenchError)
            failures[f"{dist}:{point.name}"] = (
                str(error) if ours else f"{type(error).__name__}: {error}"
            )
            continue
        for spec in specs:
            if other := plugins.get((spec.kind, spec.id)):
                raise PluginLoadError(
                    f"Two plugins claim the {spec.kind} id {spec.id!r}: one from "
                    f"{other.distribution}, one from {dist}. Rename one "
                    f"(third parties write `distribution/name`) or uninstall a package."
                )
            plugins[spec.kind, spec.id] = Registered(spec, dist, _missing(spec))
        for name, path in files.items():
            if name in studies:
                raise PluginLoadError(
                    f"Two studies are called {name!r}: {studies[name]} and {path} of {dist}. "
                    "Rename one or uninstall a package."
                )
            studies[name] = path
    return Registry(
        MappingProxyType(plugins), MappingProxyType(failures), MappingProxyType(studies)
    )


def _offers(point: EntryPoint) -> tuple[list[PluginSpec], dict[str, Path]]:
    """Specs and studies behind one entry point, by way of pluggy's hook validation."""
    _check_api(point)
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(hookspecs)
    module = point.load()
    manager.register(module, name=point.name)
    manager.check_pending()
    specs = [spec for result in manager.hook.privbench_plugins() for spec in result]
    if not specs:
        raise PluginLoadError(
            f"{point.value} returned no plugins; it must define "
            "`@privbench.hookimpl def privbench_plugins()` returning PluginSpec objects"
        )
    for spec in specs:
        if not isinstance(spec, PluginSpec):
            raise PluginLoadError(f"{point.value} returned {spec!r}; expected a PluginSpec")
    files = [found.items() for found in manager.hook.privbench_studies()]
    return specs, {name: path for items in files for name, path in items}


def _check_api(point: EntryPoint) -> None:
    """Refuse a package for another plugin API, before its code is run.

    Raises:
        PluginLoadError: another version, or none.
    """
    declared = declared_api(point.module)
    if declared is None:
        raise PluginLoadError(
            f"{point.module} does not say for which plugin API it was written: a line "
            f"`{API_NAME} = {API_VERSION}`, with the number itself, is expected at the top level "
            "of its source."
        )
    if declared != API_VERSION:
        raise PluginLoadError(
            f"{point.module} was written for plugin API {declared}; this privbench has "
            f"{API_VERSION}. Install a version of the package for plugin API {API_VERSION}, or a "
            f"privbench with plugin API {declared}."
        )


def declared_api(module: str) -> int | None:
    """The plugin API that a module names in its source; None where there is no such line.

    Read, not imported: a package for another version may fail on import with something less
    clear, and a number written out cannot follow the installed privbench.

    Raises:
        ModuleNotFoundError: there is no such module.
    """
    found = importlib.util.find_spec(module)
    if found is None:
        raise ModuleNotFoundError(f"there is no module {module!r}")
    if found.origin is None or not found.origin.endswith(".py"):
        return None
    for node in ast.parse(Path(found.origin).read_bytes()).body:
        if not isinstance(node, ast.Assign | ast.AnnAssign):
            continue
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        named = any(isinstance(t, ast.Name) and t.id == API_NAME for t in targets)
        value = node.value
        if named and isinstance(value, ast.Constant) and type(value.value) is int:
            return value.value
    return None


def _missing(spec: PluginSpec) -> str:
    missing = [name for name in spec.requires if importlib.util.find_spec(name) is None]
    if not missing:
        return ""
    hint = f"; pip install '{spec.extra}'" if spec.extra else ""
    return f"needs {', '.join(missing)}{hint}"


def make_config(spec: PluginSpec, settings: Mapping[str, Any]) -> Config:
    """A plugin's configuration from settings (strings are parsed to the field's type).

    Raises:
        ConfigError: unknown key (with a suggestion), wrong type, out of range.
    """
    fields = spec.config.model_fields
    for name in settings:
        if name not in fields:
            hint = did_you_mean(name, fields) if fields else "It takes no settings."
            raise ConfigError(f"{spec.kind} {spec.id} has no setting {name!r}. {hint}")
    try:
        return spec.config.model_validate({k: _parsed(v) for k, v in settings.items()})
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg']}, got {e['input']!r}"
            for e in error.errors()
        )
        raise ConfigError(f"Bad settings for {spec.kind} {spec.id}: {problems}") from None


def setting_type(info: FieldInfo) -> str:
    """A setting's type in words: its choices, or a type with its bounds.

    >>> from pydantic import Field
    >>> class Example(Config):
    ...     steps: int = Field(10, ge=1, le=1000)
    ...     mode: Literal["fast", "slow"] = "fast"
    >>> [setting_type(info) for info in Example.model_fields.values()]
    ['int, ≥ 1, ≤ 1000', 'fast | slow']
    """
    if get_origin(info.annotation) is Literal:
        return " | ".join(map(str, get_args(info.annotation)))
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    bounds = [
        f"{sign} {getattr(bound, name)}"
        for bound in info.metadata
        for name, sign in signs.items()
        if hasattr(bound, name)
    ]
    plain = get_origin(info.annotation) is None
    name = getattr(info.annotation, "__name__", "") if plain else str(info.annotation)
    return ", ".join([name, *bounds])


def _parsed(value: Any) -> Any:
    """A list or table given as text on the command line; everything else as it is."""
    if isinstance(value, str) and value[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value
