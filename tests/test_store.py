"""The write-once store."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from privbench.errors import StoreError
from privbench.store import Store

ARRAYS = {"x": np.arange(12, dtype=np.uint8).reshape(3, 4)}


@pytest.mark.parametrize("url", ["{tmp}/store", "memory://privbench-test"])
def test_round_trip(url: str, tmp_path: Path) -> None:
    """What is committed is read back, from a directory and from another fsspec file system."""
    store = Store(url.format(tmp=tmp_path))
    part = store.write_part("k1", 0, ARRAYS)
    assert store.find("rows", "a/b", "k1") is None
    store.commit("rows", "a/b", "k1", {"n": 1}, (part,), {"seconds": 2.0})
    found = store.find("rows", "a/b", "k1")
    assert found is not None
    assert found.notes == {"seconds": 2.0}
    (arrays,) = store.read(found)
    np.testing.assert_array_equal(arrays["x"], ARRAYS["x"])


def test_the_first_commit_wins(tmp_path: Path) -> None:
    """An artefact never changes once it is there."""
    store = Store(str(tmp_path))
    store.commit("rows", "m", "k", {}, (), {"who": "first"})
    assert store.commit("rows", "m", "k", {}, (), {"who": "second"}).notes == {"who": "first"}


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove"])
def test_damage_is_noticed(damage: str, tmp_path: Path) -> None:
    """A truncated, altered or lost part is an error that names the file and the remedy."""
    store = Store(str(tmp_path))
    name = store.write_part("k", 0, ARRAYS)
    path = tmp_path / "parts" / "k" / name
    data = bytearray(path.read_bytes())
    if damage == "truncate":
        path.write_bytes(data[:-5])
    elif damage == "flip":
        data[-1] ^= 1
        path.write_bytes(data)
    else:
        path.unlink()
    with pytest.raises(StoreError, match=r"--repair") as caught:
        store.read_part("k", name)
    assert name in str(caught.value)


def test_a_damaged_marker_is_noticed(tmp_path: Path) -> None:
    """A half-written marker is an error, not a miss."""
    store = Store(str(tmp_path))
    store.commit("rows", "m", "k", {}, (), {})
    (tmp_path / "steps" / "rows" / "m" / "k.json").write_text('{"key": "k"')
    with pytest.raises(StoreError, match="damaged"):
        store.find("rows", "m", "k")


def test_full_disk_leaves_nothing_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No space: a clear message, no temporary file, earlier parts intact."""
    store = Store(str(tmp_path))
    kept = store.write_part("k", 0, ARRAYS)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"No space left.*is kept"):
        store.write_part("k", 1, ARRAYS)
    monkeypatch.undo()
    assert [p.name for p in (tmp_path / "parts" / "k").iterdir()] == [kept]
    store.read_part("k", kept)


def test_unwritable_store(tmp_path: Path) -> None:
    """A store below a plain file cannot be made; the message says where."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="Cannot write"):
        Store(str(tmp_path / "file" / "store")).write_part("k", 0, ARRAYS)
    with pytest.raises(StoreError, match="Cannot open"):
        Store("nosuchprotocol://x")
