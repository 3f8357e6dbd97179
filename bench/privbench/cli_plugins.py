"""Commands about plugins: which there are, and what they say of themselves."""

from __future__ import annotations

from privbench import show
from privbench.errors import ConfigError, UnknownPluginError, did_you_mean


def list_plugins(*, kind: str = "") -> int:
    """List plugins with the package that each comes from, and why one cannot be used here.

    Parameters
    ----------
    kind
        Only those of one kind: anonymizer, attack, metric, dataset or detector.
    """
    from rich.markup import escape

    from privbench.registry import load_registry
    from privbench.spec import KINDS

    if kind and kind not in KINDS:
        raise ConfigError(f"There is no kind of plugin {kind!r}. {did_you_mean(kind, KINDS)}")
    registry = load_registry()
    for each in (kind,) if kind else KINDS:
        table = show.table(each, "version", "package", "summary")
        for plugin in registry.of_kind(each):
            spec = plugin.spec
            why = f" [unavailable: {plugin.unavailable}]" if plugin.unavailable else ""
            words = (spec.id, str(spec.version), plugin.distribution, spec.summary + why)
            table.add_row(*map(escape, words))
        show.console().print(table)
    for name, reason in registry.failures.items():
        show.complain(f"not loaded: {name}: {reason}")
    return 0


def describe(plugin: str) -> int:
    """Show a plugin's settings, defaults and facts.

    Parameters
    ----------
    plugin
        Its id.
    """
    from rich.markup import escape

    from privbench.registry import load_registry, setting_type
    from privbench.spec import API_VERSION

    registry = load_registry()
    found = [p for (_, name), p in sorted(registry.plugins.items()) if name == plugin]
    if not found:
        names = {name for _, name in registry.plugins}
        raise UnknownPluginError(f"There is no plugin {plugin!r}. {did_you_mean(plugin, names)}")
    console = show.console()
    for entry in found:
        spec = entry.spec
        console.print(f"[bold]{spec.id}[/] ({spec.kind}, version {spec.version})")
        console.print(escape(spec.summary))
        facts = {
            "from": f"{entry.distribution}, plugin API {API_VERSION}",
            "threat model": spec.tags.knowledge,
            "control": spec.tags.control,
            "fitted on": spec.tags.fit_on,
            "licence": spec.licence,
            "unavailable": entry.unavailable,
        }
        for name, value in facts.items():
            if value:
                console.print(f"{name}: {escape(str(value))}")
        if spec.config.model_fields:
            table = show.table("setting", "type", "default", "meaning")
            for name, info in spec.config.model_fields.items():
                words = (setting_type(info), str(info.default), info.description or "")
                table.add_row(name, *map(escape, words))
            console.print(table)
    return 0
