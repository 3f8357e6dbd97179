"""What every plugin says about itself."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from multiprocessing.reduction import ForkingPickler

from privbench.errors import PluginError
from privbench.keys import canonical_json
from privbench.spec import Config, PluginSpec
from privbench.testing.check import Workbench, require

SUMMARY = 100
"""Longest summary, in characters."""

HEAVY = (
    "PIL", "cv2", "datasets", "diffusers", "dlib", "jax", "matplotlib", "numpy", "onnxruntime",
    "pandas", "scipy", "skimage", "sklearn", "tensorflow", "torch", "torchvision", "transformers",
)  # fmt: skip
"""Libraries that must not be imported before `build` is called."""


def checks(spec: PluginSpec) -> list[Callable[[Workbench], None]]:
    """The checks of a description."""
    return [
        check_description,
        check_config,
        check_light_import,
        check_spec_pickles,
        *([check_weights] if spec.weights else []),
    ]


def check_description(bench: Workbench) -> None:
    """Id, summary and tags fit the plugin's kind, and `build` can be found by its name."""
    spec = bench.spec
    summary = spec.summary
    require(
        bool(summary) and summary == summary.strip() and len(summary.splitlines()) == 1,
        bench,
        f"summary must be one line; got {summary!r}",
    )
    require(len(summary) <= SUMMARY, bench, f"summary is longer than {SUMMARY} characters")
    home, name = spec.build.__module__, spec.build.__qualname__
    ours = home.partition(".")[0] == "privbench_plugins"
    require(ours or "/" in spec.id, bench, "a third party's id must be `distribution/name`")
    require(
        getattr(import_module(home), name, None) is spec.build,
        bench,
        f"build must be a function at the top of its module; got {home}.{name}",
    )
    for tag, owner in (("knowledge", "attack"), ("evidence", "metric")):
        given = getattr(spec.tags, tag) is not None
        require(
            given == (spec.kind == owner) or (owner == "attack" and spec.tags.fuses),
            bench,
            f"Tags.{tag} belongs to every {owner} and to nothing else",
        )


def check_config(bench: Workbench) -> None:
    """Every field has a default and a description; a configuration survives JSON."""
    config = bench.spec.config
    require(issubclass(config, Config), bench, "config must be a subclass of privbench.Config")
    require(
        config.model_config.get("frozen") is True and config.model_config.get("extra") == "forbid",
        bench,
        "config must stay frozen and refuse unknown settings",
    )
    for name, field in config.model_fields.items():
        require(not field.is_required(), bench, f"the setting {name} must have a default")
        require(bool(field.description), bench, f"the setting {name} must have a description")
    for made in (config(), bench.config):
        text = canonical_json(made.model_dump(mode="json"))
        require(config.model_validate_json(text) == made, bench, f"settings change in JSON: {text}")


def check_light_import(bench: Workbench) -> None:
    """Describing the plugin imports no heavy library: `privbench list` must stay instant."""
    homes = sorted({bench.spec.build.__module__, bench.spec.config.__module__})
    found, problem = _heavy_imports(tuple(homes), tuple(sys.path))
    require(not problem, bench, f"{', '.join(homes)} cannot be imported: {problem}")
    require(
        not found,
        bench,
        f"importing {', '.join(homes)} imports {', '.join(found)}; move that into build",
    )


@lru_cache(maxsize=256)
def _heavy_imports(homes: tuple[str, ...], path: tuple[str, ...]) -> tuple[list[str], str]:
    """Heavy libraries that importing some modules brings along, and why it failed if it did."""
    asked = json.dumps([path, homes, HEAVY])
    done = subprocess.run(  # noqa: S603 - our own program, in a fresh interpreter
        [sys.executable, "-c", _IMPORTS, asked],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode:
        return [], (done.stderr.strip().splitlines() or ["no message"])[-1]
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found, ""


_IMPORTS = """
import importlib, json, sys
sys.path[:], homes, heavy = json.loads(sys.argv[1])
import privbench.hookspecs, privbench.spec
before = set(sys.modules)
for home in homes:
    importlib.import_module(home)
print(json.dumps([name for name in heavy if name in sys.modules and name not in before]))
"""


def check_spec_pickles(bench: Workbench) -> None:
    """The specification reaches another process and is the same there."""
    try:
        back = ForkingPickler.loads(ForkingPickler.dumps(bench.spec))
    except Exception as error:  # whatever an object in it raises
        raise PluginError(
            f"{bench.spec.id}: its specification cannot be sent to another process: {error}. "
            "Functions and classes in it must be at the top of a module."
        ) from None
    require(back == bench.spec, bench, "its specification came back changed from another process")


def check_weights(bench: Workbench) -> None:
    """Every weight file is named with its SHA-256, and a licence goes with them."""
    spec = bench.spec
    weights = spec.weights(bench.config) if spec.weights else {}
    for name, sha in weights.items():
        require(
            len(sha) == 64 and set(sha) <= set("0123456789abcdef"),
            bench,
            f"weights must be SHA-256 in lower-case hex; {name} has {sha!r}",
        )
    require(not weights or bool(spec.licence), bench, "weights need a licence in the spec")
