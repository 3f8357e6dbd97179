"""The HTML report: whole, self-contained, inert, and with the records' own numbers."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from privbench.ladder import in_words, ladders
from privbench.record import Record, read_record
from privbench.report import render
from privbench.types import Estimate

RECORDS = Path(__file__).parents[1] / "leaderboard" / "records"
VOID = {"meta", "img", "br", "hr", "link", "input"}
HOSTILE = "</style></td><script>alert(1)</script>\"' onload=x &amp; https://e.org \u202e\x00\n"


def png(colour: str = "red") -> bytes:
    """A small picture."""
    out = io.BytesIO()
    Image.new("RGB", (4, 4), colour).save(out, "PNG")
    return out.getvalue()


def committed(anonymizer: str, attack: str) -> Record:
    """A record of the leaderboard."""
    (path,) = RECORDS.glob(f"{anonymizer}--{attack}--quick--*.json.gz")
    return read_record(path)


def number(name: str, value: float | None, half: float | None = 0.05) -> Estimate:
    """An estimate from 200 probes of 100 people."""
    bounds = (None, None) if value is None or half is None else (value - half, value + half)
    return Estimate(name, value, *bounds, 200, 100)


def inverted(record: Record, gain: float, *, control: str | None = None) -> Record:
    """The record as if of an inversion attack, with two judges; validation chose the second."""
    outputs = [
        number(f"{judge}/{name}", value)
        for judge, change in (("dlib", 0.4), ("own", gain))
        for name, value in {
            "rank-1": 0.3 + change, "rank-1-released": 0.3, "gain": change, "similarity": 0.512,
            "matched@fmr=0.01": 0.25, "similarity-others": 0.0314, "similarity-released": 0.4,
        }.items()
    ]  # fmt: skip
    fidelity = [number("psnr", 21.58), number("psnr-released", 18.02),
                number("ssim", 0.7), number("ssim-released", 0.5)]  # fmt: skip
    attack = record.attack.model_copy(update={"id": "inverter", "control": control})
    return record.model_copy(
        update={
            "attack": attack,
            "keys": record.keys | {"record": "f" * 64},
            "attack_report": record.attack_report | {"judge": "own"},
            "inversion": {"inversion": outputs, "reconstruction": fidelity},
        }
    )


class Page(HTMLParser):
    """The page's elements; opening and closing tags must match.

    Attributes:
        tags: (name, attributes) of each element in order.
        tables: rows of cells of each table, the head's first.
        text: all that is read, outside the style.
    """

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[str]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert not self._open, f"left open: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the element and begin its cell."""
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        """The innermost open element must end first."""
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Collect what is read."""
        if "style" in self._open:
            return
        self.text += data
        if {"th", "td"} & set(self._open):
            self.tables[-1][-1][-1] += data

    def values(self, name: str) -> list[str]:
        """All values of an attribute."""
        return [str(attrs[name]) for _, attrs in self.tags if name in attrs]


@pytest.fixture(scope="module")
def records() -> list[Record]:
    """Two releases under several attacks, one of them an inversion."""
    plain = [committed(a, b) for a in ("pixelate", "none") for b in ATTACKS]
    return [*plain, inverted(plain[0], 0.2)]


ATTACKS = ("contrastive-reid", "naive-recogniser")


@pytest.fixture(scope="module")
def page(records: Sequence[Record]) -> str:
    """The report of those, with one gallery."""
    return render(records, {records[-1].name: png()})


def shown(number: Estimate) -> str:
    """As a reader sees it."""
    if number.low is None or number.high is None:
        return f"{number.value:.3f}"
    return f"{number.value:.3f} [{number.low:.3f}, {number.high:.3f}]"


def test_the_page_is_whole_and_needs_nothing_else(page: str) -> None:
    """Elements balance; language, headings, table heads and pictures are as they should be; the
    only thing that is loaded is in the file."""
    read = Page(page)
    names = [tag for tag, _ in read.tags]
    assert page.startswith("<!doctype html>")
    assert dict(read.tags)["html"] == {"lang": "en"}
    assert not {"script", "link", "iframe", "object", "form"} & set(names)
    assert "http:" not in page
    assert "https:" not in page
    assert "url(" not in page
    assert "@import" not in page
    assert all(v.startswith("data:image/png;base64,") for v in read.values("src"))
    assert {v[1:] for v in read.values("href")} == set(read.values("id"))
    assert len(set(read.values("id"))) == len(read.values("id"))
    levels = [int(tag[1]) for tag in names if tag in ("h1", "h2", "h3", "h4")]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))
    assert all(attrs.get("scope") in ("col", "row") for tag, attrs in read.tags if tag == "th")
    assert all(len(str(attrs.get("alt"))) > 20 for tag, attrs in read.tags if tag == "img")
    assert names.count("caption") == names.count("table") == len(read.tables)


def test_each_release_has_its_ladder_and_its_worst_case(
    page: str, records: Sequence[Record]
) -> None:
    """Rank-1, AUC, queries and threat model of every record, and the maximum, as they are."""
    read = Page(page)
    overview, *rest = read.tables
    sections = [t for t in rest if "ROC AUC" in t[0]]
    found = ladders(records)
    assert len(sections) == len(found) == 2
    for ladder, (head, *rows) in zip(found, sections, strict=True):
        assert head == ["Attack", "Rank-1", "ROC AUC", "Queries", "Knows of the anonymizer"]
        assert rows[:-1] == [
            [
                r.attack.id,
                shown(r.estimate("identification", "rank-1")),
                shown(r.estimate("verification", "auc")),
                f"{r.oracle_queries:,}",
                r.threat_model,
            ]
            for r in ladder.records
        ]
        assert ladder.worst is not None
        assert rows[-1] == ["Worst case", shown(ladder.worst), "", "", ""]
        assert f"{in_words(ladder.worst, 100)}." in read.text
    assert [row[1] for row in overview[1:]] == [shown(x.worst) for x in found if x.worst]
    for fact in ("synthfaces", "quick v1", "200 of 100 enrolled people", "0.010", "torch 2"):
        assert fact in read.text


def test_the_judge_that_validation_chose_decides(page: str) -> None:
    """It comes first whatever the others say, and its verdict is in the overview."""
    read = Page(page)
    (table,) = [t for t in read.tables if "Judge" in t[0]]
    assert table[1:] == [
        ["inverter", "own", "+0.200 [+0.150, +0.250]", "0.300 [0.250, 0.350]",
         "0.500 [0.450, 0.550]", "0.250 [0.200, 0.300]", "0.512 (0.031)"],
        ["inverter", "dlib", "+0.400 [+0.350, +0.450]", "0.300 [0.250, 0.350]",
         "0.700 [0.650, 0.750]", "0.250 [0.200, 0.300]", "0.512 (0.031)"],
    ]  # fmt: skip
    assert [row[-1] for row in read.tables[0][1:]] == ["reversible", ""]
    assert "own identifies reconstructions" in read.text
    assert "PSNR 18.0 → 21.6 dB; SSIM 0.500 → 0.700." in read.text


@pytest.mark.parametrize(("gain", "expected"), [(0.04, "not shown"), (-0.2, "worse")])
def test_no_gain_is_no_reversal(gain: float, expected: str, records: Sequence[Record]) -> None:
    """A gain whose interval reaches 0 shows nothing; one below it is worse than nothing."""
    read = Page(render([records[0], inverted(records[0], gain)], {}))
    assert read.tables[0][1][-1] == expected
    assert "not shown to be reversible" in read.text


def test_controls_decide_nothing(records: Sequence[Record]) -> None:
    """Neither a control attack's inversion nor one of a control release is a verdict."""
    attack = inverted(records[0], 0.2, control="diagnostic")
    release = inverted(records[2], 0.2)
    assert release.anonymizer.control == "positive"
    read = Page(render([records[0], attack, records[2], release], {}))
    assert [row[-1] for row in read.tables[0][1:]] == ["", ""]
    assert "inverter (control)" in read.text
    assert "none (positive control)" in read.text


def test_galleries_are_in_the_file(page: str, records: Sequence[Record]) -> None:
    """The picture's very bytes; those of records that are not shown are left out."""
    (source,) = Page(page).values("src")
    assert base64.b64decode(source.partition(",")[2]) == png()
    assert "<img" not in render(records, {"other": png()})


def test_what_is_missing_is_blank(records: Sequence[Record]) -> None:
    """Without hits, AUC or a matched share nothing is made up; without records it says so."""
    first = inverted(records[0], 0.2)
    estimates = {first.primary_trial: {}}
    numbers = [e for e in first.inversion["inversion"] if "matched" not in e.name]
    bare = first.model_copy(
        update={"hits": None, "estimates": estimates, "inversion": {"inversion": numbers}}
    )
    read = Page(render([bare], {}))
    ladder, judges = read.tables[1:]
    assert ladder[1][1:3] == ["", ""]
    assert ladder[-1] == ["Worst case", "", "", "", ""]
    assert {row[5] for row in judges[1:]} == {""}
    assert "nan" not in read.text.lower().split()
    assert "PSNR" not in read.text
    assert "Nothing was finished." in Page(render([], {})).text


def test_unusual_releases_are_named(records: Sequence[Record]) -> None:
    """Several draws and one seed are told in the heading, missing faces among the facts."""
    parts = records[0].parts
    probes = parts["probes"].model_copy(update={"undetected": 3})
    changes: dict[str, Any] = {
        "release": {"draws": 4, "fixed_seed": True},
        "parts": dict(parts) | {"probes": probes},
    }
    read = Page(render([records[0].model_copy(update=changes)], {}))
    assert "pixelate (4 draws, one seed for all images)" in read.text
    assert "probes 3 of 200" in read.text


def spoilt(record: Record, text: str) -> Record:
    """A record with a foreign text wherever one fits."""
    body = record.model_dump(mode="json")
    for plugin in (body["anonymizer"], body["attack"]):
        plugin |= {"id": text, "summary": text, "config": {text: text}}
    body |= {"dtype": text, "primary_trial": text, "packages": {text: text}}
    body["dataset"] = dict.fromkeys(body["dataset"], text)
    body["protocol"] |= {"name": text, "version": text}
    body["estimates"] = {text: body["estimates"][record.primary_trial]}
    body["attack_report"] |= {"judge": text}
    for e in body["inversion"]["inversion"]:
        e["name"] = e["name"].replace("own/", f"{text}/")
    return Record.model_validate(body)


def test_hostile_names_are_inert(records: Sequence[Record]) -> None:
    """A record from anyone adds no element and no attribute, and no odd character."""
    pages = []
    for text in ("plain", HOSTILE):
        record = spoilt(inverted(records[0], 0.2), text)
        pages.append(render([record], {record.name: png()}))
    quiet, bad = (Page(p) for p in pages)
    assert [(tag, list(attrs)) for tag, attrs in bad.tags] == [
        (tag, list(attrs)) for tag, attrs in quiet.tags
    ]
    assert [len(t) for t in bad.tables] == [len(t) for t in quiet.tables]
    assert "alert(1)" in bad.text, "it is shown as what it is"
    assert "<script" not in pages[1]
    assert not {"\u202e", "\x00"} & set(pages[1])
    assert bad.values("href") == quiet.values("href")
    pages[1].encode()
