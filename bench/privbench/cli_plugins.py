"""Commands about plugins: which there are, and what they say of themselves."""

from __future__ import annotations

from privbench import show


def list_plugins() -> int:
    """List plugins, protocols aside: id, version, summary, and why one is unavailable."""
    from rich.markup import escape

    from privbench.registry import load_registry
    from privbench.spec import KINDS

    registry = load_registry()
    console, table = show.console(), show.table("kind", "id", "version", "summary")
    for kind in KINDS:
        for plugin in registry.of_kind(kind):
            why = f" [unavailable: {plugin.unavailable}]" if plugin.unavailable else ""
            table.add_row(
                kind, plugin.spec.id, str(plugin.spec.version), escape(plugin.spec.summary + why)
            )
    console.print(table)
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

    from privbench.errors import UnknownPluginError, did_you_mean
    from privbench.registry import load_registry, setting_type

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
            "from": entry.distribution,
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
