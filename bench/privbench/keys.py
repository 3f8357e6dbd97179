"""Canonical JSON, SHA-256 keys, per-sample seeds and the code hash of a plugin."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

SCHEMA = 1
"""Version of everything that enters a key. Raise it when the meaning of an artefact changes."""


def canonical_json(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no spaces, no NaN.

    >>> canonical_json({"b": 1, "a": [1.0, "ü"]})
    '{"a":[1.0,"ü"],"b":1}'
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def key(inputs: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of a step's inputs, with the schema version."""
    text = canonical_json({"schema": SCHEMA, **inputs})
    return hashlib.sha256(text.encode()).hexdigest()


def digest_bytes(parts: Iterable[bytes]) -> str:
    """SHA-256 (hex) of length-prefixed parts, so that ("ab", "c") differs from ("a", "bc")."""
    sha = hashlib.sha256()
    for part in parts:
        sha.update(len(part).to_bytes(8, "big"))
        sha.update(part)
    return sha.hexdigest()


def sample_seed(run_seed: int, sample: str, draw: int = 0) -> int:
    """63-bit seed of one sample: a result then depends on neither its batch nor its place.

    >>> sample_seed(0, "a") == sample_seed(0, "a"), sample_seed(0, "a") == sample_seed(0, "b")
    (True, False)
    """
    text = canonical_json(["sample", run_seed, sample, draw])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def stage_seed(run_seed: int, *names: str) -> int:
    """32-bit seed of one stage, for libraries that take no more."""
    text = canonical_json(["stage", run_seed, *names])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


@lru_cache(maxsize=256)
def code_digest(module: str) -> str:
    """SHA-256 of a module's source and of all it imports from its own top-level package.

    Found by reading the source, not by importing it: imports inside functions count, heavy
    libraries are not loaded. Package `__init__` files count only where they are imported
    from; comments count too (a rerun too many is cheaper than a stale result).
    """
    package = module.partition(".")[0]
    sources: dict[str, bytes] = {}
    queue = [module]
    while queue:
        name = queue.pop()
        if name in sources:
            continue
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
            continue
        sources[name] = Path(spec.origin).read_bytes()
        is_package = spec.submodule_search_locations is not None
        queue += _imports(sources[name], name if is_package else name.rpartition(".")[0], package)
    return digest_bytes(part for name in sorted(sources) for part in (name.encode(), sources[name]))


def _imports(source: bytes, parent: str, package: str) -> list[str]:
    """Modules of `package` that this source imports, at any depth of nesting."""
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = parent.split(".")[: len(parent.split(".")) - node.level + 1]
                base = ".".join([*up, base] if base else up)
            for alias in node.names:
                child = f"{base}.{alias.name}"
                found.append(child if _is_module(child, package) else base)
    return [name for name in found if name.partition(".")[0] == package and name != package]


def _is_module(name: str, package: str) -> bool:
    if name.partition(".")[0] != package:
        return False
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
