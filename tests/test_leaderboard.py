"""The leaderboard: records in, one honest and inert Markdown table out."""

from __future__ import annotations

import gzip
import json
import random
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import privbench_leaderboard as lb
from privbench.data import PROTOCOLS
from privbench.ranking import rank_rows
from privbench.record import Record, to_json
from privbench_leaderboard.markdown import escape
from privbench_leaderboard.reading import LARGEST, parse

GOLDEN = Path(__file__).parent / "golden" / "LEADERBOARD.md"
PLOT = "![Worst-case rank-1 against utility and time](leaderboard-1.svg)\n\n"

REAL_ID, CONTROL = "controlnet-canny", {"none": "positive", "ldm-unconditional": "negative"}


def estimate(
    name: str,
    value: float | None,
    half: float | None = 0.05,
    chance: float | None = 0.01,
    protects: str = "lower",
) -> dict[str, Any]:
    """An estimate as a record holds it, with a symmetric interval."""
    known = value is not None and half is not None
    return {
        "name": name,
        "value": value,
        "low": round(max(value - half, 0), 4) if known else None,  # type: ignore[operator]
        "high": round(min(value + half, 1), 4) if known else None,  # type: ignore[operator]
        "n": 200,
        "clusters": 100,
        "chance": chance,
        "protects": protects,
        "worst": 1.0,
        "unit": "share",
    }


def plugin(name: str, **changes: Any) -> dict[str, Any]:
    """A plugin reference as a record holds it."""
    return {
        "id": name,
        "version": 1,
        "summary": f"The plugin {name}.",
        "distribution": "privbench 0.1.0",
        "config": {},
        "code": "c0de" * 16,
        "weights": {},
        "licence": "",
        "control": CONTROL.get(name),
    } | changes


def record(
    name: str = REAL_ID,
    rank1: float | None = 0.4,
    attack: str = "contrastive-reid",
    threat_model: str = "adaptive",
    **changes: Any,
) -> dict[str, Any]:
    """A record in the schema of privbench.record, checked against it."""
    auc = None if rank1 is None else min(0.5 + rank1 / 2, 1.0)
    trial = {
        "identification": [estimate("rank-1", rank1), estimate("mAP", rank1)],
        "verification": [estimate("auc", auc, chance=0.5)],
        "k-anonymity": [estimate("set<10", rank1, chance=0.09)],
    }
    same_photo = None if rank1 is None else min(rank1 + 0.2, 1.0)
    body = {
        "schema_version": 1,
        "created": "2026-11-21T12:00:00+00:00",
        "privbench": "0.1.0",
        "anonymizer": plugin(name),
        "attack": plugin(attack),
        "threat_model": threat_model,
        "oracle_queries": 744,
        "dataset": {"id": "synthfaces", "version": "1", "digest": "da7a" * 16, "licence": "CC0"},
        "protocol": {"name": "quick", "version": 1, "evaluation": 100, "resamples": 2000},
        "primary_trial": "full-ref",
        "parts": {
            "gallery": {"identities": 100, "images": 500},
            "probes": {"identities": 100, "images": 200},
        },
        "seed": 0,
        "dtype": "float32",
        "estimates": {
            "full-ref": trial,
            "full-ref+source": {"identification": [estimate("rank-1", same_photo)]},
        },
        "utility": {"ssim": [estimate("ssim", 0.5, 0.01, chance=None, protects="higher")]},
        "attack_report": {"fusion": "max"},
        "timing": [
            {
                "stage": f"{name}: probes",
                "seconds": [0.9, 0.5, 0.5],
                "images": [8, 8, 8],
                "warmup": 1,
                "batch_size": 8,
                "resolution": [128, 128],
                "peak_bytes": 512 * 2**20,
                "device": {"name": "Example CPU", "threads": "2", "torch": "2.13.0"},
                "summary": {"median_ms_per_image": 62.5, "warmup": 1},
            }
        ],
        "packages": {"torch": "2.13.0"},
        "keys": {"record": "1234567890"},
        "scores": {},
    } | changes
    Record.model_validate(body)
    return body


def table(*records: dict[str, Any]) -> lb.SummaryTable:
    """The only table of some records."""
    (only,) = lb.build([parse(json.dumps(r)) for r in records])
    return only


def cells(tables: Any) -> list[list[str]]:
    """The cells of every table row in the Markdown, header and ruler included."""
    lines = [li for li in lb.render_markdown(tables).splitlines() if li.startswith("|")]
    return [[c.strip() for c in line.strip("|").split("|")] for line in lines]


def board() -> list[dict[str, Any]]:
    """Records of a complete board: controls, two attacks, two settings, one value missing."""
    pixelate = [
        record("pixelate", value, anonymizer=plugin("pixelate", config={"cells": n, "mean": True}))
        for n, value in ((8, 0.31), (16, 0.62))
    ]
    guess = record("none", 0.011)
    guess["attack"] = plugin("random-guess", control="negative")
    return [
        guess,
        record("none", 0.96),
        record("ldm-unconditional", 0.012),
        record(rank1=0.40),
        record(rank1=0.55, attack="edge-surrogate", threat_model="black-box"),
        record(rank1=0.43, seed=1),
        *pixelate,
        record("gaussian-blur", None, utility={}, timing=[]),
    ]


def test_the_rendered_board_is_the_golden_file() -> None:
    """Any change of the board's look shows in a diff of the golden file."""
    text = lb.render_markdown(lb.build([parse(json.dumps(r)) for r in board()]))
    assert text == GOLDEN.read_text(encoding="utf-8")


def test_real_presets_and_records_written_by_the_core_are_read(tmp_path: Path) -> None:
    """What privbench.record writes is what the leaderboard reads, at any depth."""
    body = record(protocol=preset("quick"))
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    (folder / "r.json").write_text(to_json(Record.model_validate(body)), encoding="utf-8")
    (entry,) = lb.load(tmp_path)
    assert (entry.anonymizer.id, entry.protocol.resamples) == (REAL_ID, 2000)


def preset(name: str) -> dict[str, Any]:
    """A preset as the harness writes it into a record."""
    return asdict(PROTOCOLS[name]) | {"populations": list(PROTOCOLS[name].populations)}


def test_order_of_records_does_not_matter() -> None:
    """Any order of the same records gives the same bytes."""
    entries = [parse(json.dumps(r)) for r in board()]
    expected = lb.render_markdown(lb.build(entries))
    for seed in range(10):
        random.Random(seed).shuffle(entries)
        assert lb.render_markdown(lb.build(entries)) == expected


def test_a_row_shows_the_worst_attack_and_that_attack_s_other_numbers() -> None:
    """The highest rank-1 over attacks and seeds wins, and brings its own AUC and same-photo."""
    (row,) = table(
        record(rank1=0.2, attack="naive"),
        record(rank1=0.5, attack="strong", seed=1),
        record(rank1=0.3, attack="strong", seed=2),
    ).rows
    assert (row.attack, row.attacks, row.seeds) == ("strong", 2, 2)
    assert row.rank1 is not None
    assert row.auc is not None
    assert row.same_photo is not None
    assert (row.rank1.value, row.auc.value, row.same_photo.value) == (0.5, 0.75, 0.7)


def test_an_attacker_who_may_do_more_may_also_do_less() -> None:
    """A black-box attack counts against the adaptive row, but not the other way round."""
    rows = table(
        record(rank1=0.2),
        record(rank1=0.5, attack="surrogate", threat_model="black-box"),
        record(rank1=0.1, attack="naive", threat_model="none"),
    ).rows
    found = [(r.threat_model, r.attack, r.attacks) for r in rows]
    assert found == [("adaptive", "surrogate", 3), ("black-box", "surrogate", 2),
                     ("none", "naive", 1)]  # fmt: skip


def test_ranks_are_ranges_where_intervals_overlap() -> None:
    """A rank is certain only where the interval lies apart; controls take no rank."""
    rows = table(
        record("none", 0.97),
        record("a", 0.10),
        record("b", 0.30),
        record("c", 0.35),
        record("d", 0.60),
    ).rows
    assert [(r.anonymizer, r.rank) for r in rows] == [
        ("a", (1, 1)), ("b", (2, 3)), ("c", (2, 3)), ("d", (4, 4)), ("none", None)
    ]  # fmt: skip


@dataclass(frozen=True)
class Place:
    """What a ranker says of a row."""

    low: int
    high: int
    groups: tuple[str, ...]


def with_hits(name: str, rank1: list[float], subject: list[int], **changes: Any) -> dict[str, Any]:
    """A record that says which probes were recognised."""
    hits = {"subject": subject, "rank1": rank1}
    return record(name, float(np.mean(rank1)), hits=hits, **changes)


def test_rows_with_hits_on_the_same_probes_are_ranked_in_pairs() -> None:
    """The ranker gets each row's hits in the order of the table, controls left out."""
    asked = []

    def ranker(hits: Any, subject: Any) -> list[Place]:
        asked.append(([list(row) for row in hits], list(subject)))
        return [Place(1, 2, ("a",)), Place(1, 2, ("a", "b"))]

    bodies = [with_hits("none", [1, 1], [4, 5]), with_hits("b", [1, 0.5], [4, 5]),
              with_hits("a", [0, 0], [4, 5])]  # fmt: skip
    (found,) = lb.build([parse(json.dumps(b)) for b in bodies], ranker)
    assert asked == [([[0, 0], [1, 0.5]], [4, 5])]
    assert [(r.anonymizer, r.rank, r.ties) for r in found.rows] == [
        ("a", (1, 2), ("a",)), ("b", (1, 2), ("a", "b")), ("none", None, ())
    ]  # fmt: skip
    header, _, first, second, *_ = cells([found])
    place = header.index("Ties")
    assert (first[place], second[place]) == ("a", "a b")


@pytest.mark.parametrize("other", [record("b", 0.3), with_hits("b", [1, 0], [4, 6])])
def test_rows_that_cannot_be_paired_are_ranked_by_overlap(other: dict[str, Any]) -> None:
    """A record without hits, or with hits of other people, has no tie groups."""

    def never(hits: Any, subject: Any) -> list[Place]:
        raise AssertionError("not comparable")

    bodies = [with_hits("a", [0, 0], [4, 5]), other]
    (found,) = lb.build([parse(json.dumps(b)) for b in bodies], never)
    assert [r.ties for r in found.rows] == [(), ()]


def test_the_core_ranks_rows() -> None:
    """The ranker of the command line: three rows far apart."""
    subject = list(range(40))
    bodies = [with_hits(n, [v] * 40, subject) for n, v in (("a", 0.0), ("b", 0.5), ("c", 1.0))]
    (found,) = lb.build([parse(json.dumps(b)) for b in bodies], rank_rows)
    assert [(r.rank, r.ties) for r in found.rows] == [
        ((1, 1), ("a",)), ((2, 2), ("b",)), ((3, 3), ("c",))
    ]  # fmt: skip


def test_unusual_releases_are_rows_of_their_own() -> None:
    """Several draws and a shared seed are other releases than the plain one."""
    rows = table(
        record("a", 0.1),
        record("a", 0.2, release={"draws": 4, "fixed_seed": False}),
        record("a", 0.3, release={"draws": 1, "fixed_seed": True}),
    ).rows
    names = [r.anonymizer for r in rows]
    assert names == ["a", "a (4 draws)", "a (one seed for all images)"]


def test_undetected_sources_have_their_own_column() -> None:
    """The share of probes whose source shows no face to the detector."""
    body = record("a", 0.1)
    body["parts"]["probes"] = {"identities": 100, "images": 200, "undetected": 5}
    header, _, row = cells([table(body)])
    assert row[header.index("No face in source")] == "0.025"
    assert "No face in source" not in cells([table(record("a", 0.1))])[0]


def test_a_missing_interval_claims_no_rank() -> None:
    """Without an interval nothing can be told apart."""
    bare = record("b", 0.3)
    bare["estimates"]["full-ref"]["identification"] = [estimate("rank-1", 0.3, None)]
    rows = table(record("a", 0.1), bare, record("c", 0.9)).rows
    assert [(r.anonymizer, r.rank) for r in rows] == [("a", (1, 2)), ("b", (1, 3)), ("c", (2, 3))]


def test_protocol_versions_and_data_sets_never_share_a_table() -> None:
    """Another version of the preset or other data means another table."""
    other_version = record(protocol={"name": "quick", "version": 2, "resamples": 2000})
    other_data = record(dataset={"id": "synthfaces", "version": "2", "digest": "beef" * 16})
    bodies = [record(), other_version, other_data]
    tables = lb.build([parse(json.dumps(b)) for b in bodies])
    assert [(t.protocol, t.version, t.digest[:4], len(t.rows)) for t in tables] == [
        ("quick", 1, "beef", 1), ("quick", 1, "da7a", 1), ("quick", 2, "da7a", 1)
    ]  # fmt: skip


def test_a_preset_that_changed_without_a_new_version_is_refused() -> None:
    """Numbers of one version must come from one and the same preset."""
    changed = record(protocol={"name": "quick", "version": 1, "evaluation": 10, "resamples": 2000})
    with pytest.raises(lb.LeaderboardError, match="quick v1 disagree"):
        table(record(), changed)


def test_missing_values_are_blank() -> None:
    """What was not measured is an empty cell, neither 0 nor an average of the rest."""
    header, _, row = cells([table(record("a", None, utility={}, timing=[], estimates={}))])
    found = dict(zip(header, row, strict=True))
    blank = {name for name, cell in found.items() if not cell}
    assert blank == {
        "Rank", "Rank-1 ↓", "Chance", "Same-photo rank-1 ↓", "ROC AUC ↓", "Set < 10 ↓",
        "ms/image ↓", "Peak MiB ↓", "Device",
    }  # fmt: skip


def test_utility_has_a_column_wherever_a_record_holds_it() -> None:
    """Detection, attributes and SSIM stand in columns of their own; a metric's first output
    counts, and a row without it is blank there."""
    rich = record("a", 0.2, utility={
        "ssim": [estimate("ssim", 0.5, 0.01, None, "higher")],
        "detection": [estimate("rate", 0.9, 0.01, None, "higher"), estimate("other", 0.1)],
        "unheard-of": [estimate("x", 0.3)],
    })  # fmt: skip
    header, _, one, two = cells([table(rich, record("b", 0.3))])
    assert [h for h in header if h in ("Faces found ↑", "SSIM ↑")] == ["Faces found ↑", "SSIM ↑"]
    assert not any("unheard" in h for h in header)
    place = header.index("Faces found ↑")
    assert (one[place], two[place]) == ("0.900 [0.890, 0.910]", "")


def test_controls_and_diagnostics_stand_apart() -> None:
    """The ranked table holds candidates only; a diagnostic is neither ranked nor on the front."""
    found = table(
        record("a", 0.3),
        record("none", 0.9),
        record("map", 0.2, anonymizer=plugin("map", control="diagnostic")),
    )
    text = lb.render_markdown([found])
    ranked, apart = text.split("Controls and diagnostics:")
    assert "| a " in ranked
    assert "| map " not in ranked
    assert "| diagnostic       | map" in apart
    assert "| positive control | none" in apart
    assert {r.anonymizer: r.rank for r in found.rows} == {"a": (1, 1), "none": None, "map": None}


def test_settings_are_shown_only_where_they_differ() -> None:
    """Two rows of one id are told apart by the settings, weights and version that differ."""
    rows = table(
        record("p", 0.1, anonymizer=plugin("p", config={"cells": 8, "mode": "mean"})),
        record("p", 0.9, anonymizer=plugin("p", config={"cells": 9, "mode": "mean"}, version=2)),
    ).rows
    assert [r.anonymizer for r in rows] == ["p (cells=8, version=1)", "p (cells=9, version=2)"]


def test_a_changed_code_hash_does_not_split_the_worst_case() -> None:
    """Attacks run before and after an edited comment count against the same row."""
    edited = record(rank1=0.6, attack="b", anonymizer=plugin(REAL_ID, code="0" * 64))
    (row,) = table(record(rank1=0.2, attack="a"), edited).rows
    assert (row.attack, row.attacks) == ("b", 2)


def test_missing_or_failing_controls_are_said() -> None:
    """A table without working controls warns its reader."""
    assert [w.split(" in ")[0] for w in table(record()).warnings] == [
        "There is no positive control", "There is no negative control"
    ]  # fmt: skip
    assert table(*board()).warnings == ()
    weak, leaky = table(record("none", 0.01), record("ldm-unconditional", 0.3)).warnings
    assert "not above chance" in weak
    assert "does not contain chance" in leaky


def test_control_attacks_do_not_make_the_worst_case() -> None:
    """An attack tagged as a control is left out of the rows, and shown apart."""
    cheat = record(rank1=1.0)
    cheat["attack"] = plugin("truth", control="positive")
    text = lb.render_markdown([table(record(rank1=0.2), cheat)])
    assert "no row counts: truth on controlnet-canny 1.000 [0.950, 1.000]." in text
    assert table(record(rank1=0.2), cheat).rows == table(record(rank1=0.2)).rows
    assert lb.render_markdown([table(cheat)])


HOSTILE = (
    'a|b`c`\n# <img src=x onerror="1"> [l](https://e.org) www.e.org *b* _i_ @you \u202e\\| 1e3'
)


def test_text_from_a_record_is_inert() -> None:
    """Nothing in a record can open a cell, a line, a link, HTML or code."""
    body = record(anonymizer=plugin(HOSTILE), dtype="|" * 3 + "<b>")
    body["attack"] = plugin(HOSTILE)
    body["dataset"]["id"] = body["protocol"]["name"] = HOSTILE
    body["timing"][0] |= {"stage": f"{HOSTILE}: probes", "device": {"name": HOSTILE}}
    tables = [table(body)]
    text = lb.render_markdown(tables)
    plain = lb.render_markdown([table(record())])
    assert len(text.splitlines()) == len(plain.splitlines())
    assert {len(row) for row in cells(tables)} == {15}
    written = text.split("## ", 1)[1]
    for mark in ("`", "<", "[l]", "](", "https:", "www.", "*b*", "_i_", "@", "\\", "\u202e"):
        assert mark not in written.replace("Set < 10", "").replace("**Warning.**", "").replace(
            "[0.", ""
        ), mark


def test_numbers_in_names_stay_names() -> None:
    """An id that looks like a number is not reformatted by the table library."""
    assert cells([table(record("1e3"))])[2][1] == "1e3"


def test_escape_cuts_long_text_before_it_escapes() -> None:
    """A cut never leaves half an entity behind."""
    assert re.fullmatch(r"(&#124;){119}…", escape("|" * 500))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[1]", "no schema_version"),
        ("[" * 100_000, "not JSON"),
        ('{"schema_version": 2}', "record schema 2; this leaderboard reads 1"),
        ('{"schema_version": 1}', "anonymizer: Field required"),
        ('{"schema_version": NaN}', "NaN is no JSON number"),
    ],
)
def test_unreadable_records_stop_the_board(tmp_path: Path, text: str, message: str) -> None:
    """No file is skipped: the error names it and says what is wrong."""
    (tmp_path / "good.json").write_text(json.dumps(record()), encoding="utf-8")
    (tmp_path / "odd.json").write_text(text, encoding="utf-8")
    with pytest.raises(lb.LeaderboardError, match=message) as caught:
        lb.write(tmp_path, tmp_path / "out.md")
    assert "odd.json" in str(caught.value)
    assert not (tmp_path / "out.md").exists()


def test_packed_records_are_read(tmp_path: Path) -> None:
    """A gzipped record is the record; a damaged or overgrown one stops the board."""
    text = json.dumps(record()).encode()
    (tmp_path / "a.json").write_bytes(text)
    (tmp_path / "b.json.gz").write_bytes(gzip.compress(text))
    one, two = lb.load(tmp_path)
    assert (one.stem, two.stem) == ("a", "b")
    assert one == two.model_copy(update={"stem": "a"})
    for data, message in ((gzip.compress(text)[:-9], "Cannot read"), (text, "Cannot read"),
                          (gzip.compress(b" " * (LARGEST + 1)), "unpacks to more")):  # fmt: skip
        (tmp_path / "b.json.gz").write_bytes(data)
        with pytest.raises(lb.LeaderboardError, match=message):
            lb.load(tmp_path)


def test_infinite_estimates_are_refused() -> None:
    """1e999 is valid JSON and no number."""
    text = json.dumps(record(rank1=0.125)).replace("0.125", "1e999")
    with pytest.raises(lb.LeaderboardError, match="finite"):
        parse(text)


def test_no_records_is_an_error(tmp_path: Path) -> None:
    """An empty or missing folder is more likely a slip than a wish for an empty board."""
    with pytest.raises(lb.LeaderboardError, match="holds no records"):
        lb.load(tmp_path)
    with pytest.raises(lb.LeaderboardError, match="no folder"):
        lb.load(tmp_path / "none")


def test_write_makes_the_file_and_repeats_its_bytes(tmp_path: Path) -> None:
    """Two writes of the same records are byte-identical."""
    records = tmp_path / "records"
    records.mkdir()
    for i, body in enumerate(board()):
        (records / f"{i}.json").write_text(json.dumps(body), encoding="utf-8")
    one, two = tmp_path / "new", tmp_path / "again"
    for folder in (one, two, two):
        lb.write(records, folder / "leaderboard.md")
    files = {p.relative_to(one): p.read_bytes() for p in one.rglob("*") if p.is_file()}
    assert files == {p.relative_to(two): p.read_bytes() for p in two.rglob("*") if p.is_file()}
    assert files[Path("leaderboard.md")].decode().replace(PLOT, "") == GOLDEN.read_text(
        encoding="utf-8"
    )
    assert files[Path("leaderboard-1.svg")].startswith(b"<svg")
    assert Path("site/index.html") in files


def test_an_unwritable_target_is_a_clear_error(tmp_path: Path) -> None:
    """A folder in the place of the file is reported as ours, not as a traceback."""
    (tmp_path / "r.json").write_text(json.dumps(record()), encoding="utf-8")
    with pytest.raises(lb.LeaderboardError, match="Cannot write"):
        lb.write(tmp_path, tmp_path)
