"""Keys, seeds and code hashes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from privbench import keys


def test_key_does_not_depend_on_order() -> None:
    """Two spellings of one set of inputs have one key; any change of a value has another."""
    assert keys.key({"a": 1, "b": [1, 2]}) == keys.key({"b": [1, 2], "a": 1})
    assert keys.key({"a": 1, "b": [1, 2]}) != keys.key({"a": 1, "b": [2, 1]})
    assert keys.key({"a": 0.5}) != keys.key({"a": 0.25})


def test_key_refuses_nan() -> None:
    """NaN equals nothing, so it may not stand in a key."""
    with pytest.raises(ValueError, match="JSON"):
        keys.key({"a": float("nan")})


def test_sample_seed_is_stable_across_processes() -> None:
    """A seed is a pure function of run, sample and draw: no process-wide hash salt enters."""
    code = "from privbench.keys import sample_seed; print(sample_seed(3, 'wild-1', 2))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(out.stdout) == keys.sample_seed(3, "wild-1", 2)
    assert 0 <= int(out.stdout) < 2**63
    assert len({keys.sample_seed(r, s, d) for r in (0, 1) for s in "ab" for d in (0, 1)}) == 8


def test_code_digest_follows_imports_of_its_own_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change in a module that the plugin imports, even inside a function, changes the hash."""
    package = tmp_path / "digestpkg"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "plugin.py").write_text(
        "import os\ndef build(c):\n    from digestpkg.impl import f\n    from . import deep\n"
    )
    (package / "impl.py").write_text("f = 1\n")
    (package / "deep.py").write_text("x = 1\n")
    (package / "other.py").write_text("y = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    def digest() -> str:
        keys.code_digest.cache_clear()
        return keys.code_digest("digestpkg.plugin")

    before = digest()
    (package / "other.py").write_text("y = 2\n")
    assert digest() == before
    (package / "impl.py").write_text("f = 2\n")
    after = digest()
    assert after != before
    (package / "deep.py").write_text("x = 2\n")
    assert digest() != after
