"""Boards for tests of the site: copies of committed records, with all that a record can hold."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image

import privbench_leaderboard as lb
from privbench.ranking import rank_rows

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "leaderboard" / "records"
MIA = ROOT / "docs" / "studies" / "face-mia" / "records"

HOSTILE = "<img src=x onerror=alert(1)>"
"""An id that runs if it is not escaped."""

NASTY = (
    HOSTILE,
    "</script><script>document.title='owned'</script>",
    "\u202egnorw\u202c \u05d0\u05d1\u05d2 \u0645\u0631\u062d\u0628\u0627",
    "x" * 5000,
    '" onmouseover="alert(1)" style="position:fixed" x="',
    "{{ 7 * 7 }}{% raw %}",
)
"""HTML, a script, right-to-left text with overrides, no end, attributes, a template."""

Change = Callable[[dict[str, Any]], None]


def committed() -> Iterator[tuple[str, dict[str, Any]]]:
    """Stem and body of every identification record of the project."""
    for path in sorted(RECORDS.glob("*.json.gz")):
        body = json.loads(gzip.decompress(path.read_bytes()))
        if body.get("task", "identification") == "identification":
            yield path.name.removesuffix(".json.gz"), body


def curve(x: list[float], value: list[float]) -> dict[str, list[float]]:
    """A curve with a band of 0.05 to either side."""
    return {
        "x": x,
        "value": value,
        "low": [max(v - 0.05, 0.0) for v in value],
        "high": [min(v + 0.05, 1.0) for v in value],
    }


def filled(body: dict[str, Any], picture: Path | None = None) -> dict[str, Any]:
    """A record with curves, command and consent, and with a gallery if there is a picture."""
    start = body["estimates"]["full-ref"]["identification"][0]["value"] or 0.0
    ranks = [float(rank) for rank in range(1, 101)]
    rates = [0.0, *(10 ** (i / 10 - 4) for i in range(41))]
    body["curves"] = {
        trial: {
            "cmc": curve(ranks, [start + (1 - start) * (rank - 1) / 99 for rank in ranks]),
            "roc": curve(rates, [max(rate, start * rate**0.1) for rate in rates]),
        }
        for trial in body["estimates"]
    }
    ids = f"--anonymizer {body['anonymizer']['id']} --attack {body['attack']['id']}"
    body["command"] = f"privbench run {ids} --protocol quick --seed {body['seed']}"
    body["dataset"] = body["dataset"] | {"consent": "rendered: nobody had to be asked"}
    body["gallery"] = {}
    if picture:
        body["gallery"] = {
            "file": picture.name,
            "sha256": hashlib.sha256(picture.read_bytes()).hexdigest(),
            "alt": "Two people, and what was released of them.",
        }
    return body


def put(folder: Path, stem: str, body: dict[str, Any]) -> str:
    """Write a packed record; returns its SHA-256 unpacked."""
    folder.mkdir(parents=True, exist_ok=True)
    data = json.dumps(body).encode()
    (folder / f"{stem}.json.gz").write_bytes(gzip.compress(data, 1, mtime=0))
    return hashlib.sha256(data).hexdigest()


def paint(folder: Path, name: str = "0a1b2c3d.png") -> Path:
    """A small picture in the folder of galleries."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    Image.new("RGB", (64, 32), (40, 90, 160)).save(path)
    return path


def say(folder: Path, *, grades: dict[str, Any] | None = None, withdrawn: Any = None) -> None:
    """Write `grades.json` and `withdrawn.json` beside a folder of records."""
    for name, said in (("grades", grades), ("withdrawn", withdrawn)):
        if said is not None:
            body = {"schema_version": 1, name: said}
            (folder / f"{name}.json").write_text(json.dumps(body), encoding="utf-8")


def rich_board(folder: Path) -> Path:
    """A board with everything on it: two data sets, all grades, a withdrawal, nasty names,
    membership."""
    picture = paint(folder / "galleries")
    records = folder / "records"
    wanted = ("none", "pixelate", "dp-pix", "gaussian-blur", "ldm-unconditional", "eye-mask")
    attacks = ("contrastive-reid", "naive-recogniser", "edge-match")
    hashes: dict[str, str] = {}
    for stem, body in committed():
        if body["anonymizer"]["id"] in wanted and body["attack"]["id"] in attacks:
            hashes[stem] = put(records, stem, filled(body, picture))
            if body["attack"]["id"] == "contrastive-reid":
                body["dataset"] |= {"id": "other-faces", "digest": "beef" * 16, "consent": ""}
                put(records, f"{stem}-other", body)
    template = next(b for _, b in committed() if b["anonymizer"]["id"] == "pixelate")
    for i, name in enumerate(NASTY):
        body = json.loads(json.dumps(filled(template, picture)))
        body["anonymizer"] |= {"id": name, "summary": name, "licence": name}
        body["attack"] |= {"id": name if i else "naive-recogniser"}
        body["gallery"]["alt"] = name[:2000]
        body["command"] = body["dtype"] = name
        body["timing"][0]["device"]["name"] = name
        put(records, f"nasty-{i}", body)
    for path in sorted(MIA.glob("*mia-loss*"))[:2]:
        put(records, path.name[:-8], json.loads(gzip.decompress(path.read_bytes())))
    grades = {
        stem: {"sha256": sha, "grade": ("recomputed", "re-run")[stem.startswith("eye-mask")]}
        for stem, sha in hashes.items()
        if not stem.startswith("none")
    }
    gone = next(stem for stem in hashes if stem.startswith("gaussian-blur--edge-match"))
    reason = f"The wrong images were anonymized. {HOSTILE}"
    say(folder, grades=grades,
        withdrawn=[{"record": gone, "date": "2026-11-22", "reason": reason}])  # fmt: skip
    lb.write(records, folder / "LEADERBOARD.md", rank_rows)
    return folder / "site"


def many(folder: Path, count: int) -> Path:
    """So many records: copies of the committed ones, each round with anonymizers of other names
    on other data; returns their folder."""
    found = list(committed())
    picture = paint(folder / "galleries")
    records = folder / "records"
    for i in range(count):
        stem, body = found[i % len(found)]
        turn = i // len(found)
        body = json.loads(json.dumps(filled(body, picture)))
        old, digest = body["anonymizer"]["id"], hashlib.sha256(str(turn).encode()).hexdigest()
        body["anonymizer"]["id"] = f"{old}-{turn}"
        body["dataset"] |= {"id": f"faces-{turn}", "digest": digest}
        for stage in body["timing"]:
            stage["stage"] = stage["stage"].replace(f"{old}:", f"{old}-{turn}:")
        put(records, f"{stem}-{turn}", body)
    return records
