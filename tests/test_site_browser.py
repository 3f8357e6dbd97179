"""The site in a real browser, from the disk: Debian's chromium, driven by playwright.

pip cannot install a browser. Where there is none the tests are skipped, and say how to get one.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

from site_kit import HOSTILE, NASTY, rich_board

CHROMIUM = next(
    (p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), ""
)
pytestmark = pytest.mark.skipif(
    not CHROMIUM, reason="no chromium on PATH: install it with `apt-get install chromium`"
)

DESKTOP, PHONE = (1280, 900), (390, 844)
WATCH = """
window.violations = [];
addEventListener("securitypolicyviolation", (e) => violations.push(e.violatedDirective));
"""


@dataclass
class Seen:
    """A page and all that happened on it."""

    page: Page
    requests: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site with everything on it."""
    return rich_board(tmp_path_factory.mktemp("browser"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all tests."""
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield running
        running.close()


Opener = Callable[..., Seen]


@pytest.fixture
def visit(browser: Browser, site: Path) -> Iterator[Opener]:
    """Open pages of the site; nothing may be fetched, refused or complained of meanwhile."""
    seen: list[Seen] = []

    def open_page(
        name: str = "index.html",
        size: tuple[int, int] = DESKTOP,
        dark: bool = False,
        script: bool = True,
    ) -> Seen:
        context = browser.new_context(
            viewport={"width": size[0], "height": size[1]},
            color_scheme="dark" if dark else "light",
            java_script_enabled=script,
        )
        context.set_default_timeout(10_000)
        if script:
            context.add_init_script(WATCH)
        found = Seen(context.new_page())
        found.page.on("request", lambda r: found.requests.append(r.url))
        found.page.on("console", lambda m: found.messages.append(m.text))
        found.page.on("pageerror", lambda e: found.messages.append(str(e)))
        found.page.on("dialog", lambda d: (found.messages.append(d.message), d.dismiss()))
        found.page.goto((site / name).as_uri())
        seen.append(found)
        return found

    yield open_page
    for found in seen:
        assert all(url.startswith(("file://", "data:")) for url in found.requests)
        assert found.messages == []
        if found.page.evaluate("typeof violations !== 'undefined'"):
            assert found.page.evaluate("violations") == []
        found.page.context.close()


def page_of(site: Path, name: str) -> str:
    """The page of an anonymizer, below the site."""
    found = next((site / "anonymizers").glob(f"{name}-????????.html"))
    return found.relative_to(site).as_posix()


def column(page: Page, key: str) -> list[str]:
    """Sort keys of a column of the first table's ranked rows, from the top."""
    cells = page.locator("table.board").first.locator(f"tbody:not(.controls) td.k-{key}")
    keys: list[str] = cells.evaluate_all("cells => cells.map((c) => c.dataset.sort)")
    return keys


def shown(page: Page) -> int:
    """Rows that can be seen."""
    count: int = page.locator("tr[data-grade]").evaluate_all(
        "rows => rows.filter((r) => r.checkVisibility()).length"
    )
    return count


def test_every_column_sorts_both_ways_with_what_is_missing_last(visit: Opener) -> None:
    """By value, not by text; aria-sort says which; a heading of its own kind of key."""
    page = visit().page
    headings = page.locator("table.board").first.locator("thead th")
    count = headings.count()
    assert count > 12
    for i in range(1, count):
        heading = headings.nth(i)
        key = re.findall(r"k-([\w-]+)", heading.get_attribute("class") or "")[0]
        numeric = heading.get_attribute("data-kind") == "number"
        for direction in ("ascending", "descending"):
            heading.get_by_role("button").click()
            assert heading.get_attribute("aria-sort") == direction
            keys = column(page, key)
            known = [k for k in keys if k]
            assert not any(keys[len(known) :]), f"{key}: what is missing is not last"
            if numeric:
                numbers = [float(k) for k in known]
                assert numbers == sorted(numbers, reverse=direction == "descending"), key
    assert page.locator("table.board").first.locator("[aria-sort]").count() == 1


def test_sorting_is_stable_and_keeps_controls_apart(visit: Opener) -> None:
    """Equal rows keep their order; controls stay below, under their heading."""
    page = visit().page
    table = page.locator("table.board").first
    before = table.locator("tbody:not(.controls) th a").all_inner_texts()
    table.get_by_role("button", name="Seeds").click()
    assert table.locator("tbody:not(.controls) th a").all_inner_texts() == before
    rows = table.locator("tbody.controls tr")
    assert "Controls and diagnostics" in rows.first.inner_text()
    assert table.locator("tbody").last.get_attribute("class") == "controls"


def test_filters_narrow_and_reset_widens(visit: Opener) -> None:
    """Data set, attacker, device, grade, controls and words, each alone and together."""
    page = visit().page
    total = shown(page)
    status = page.get_by_role("status").first
    assert status.inner_text().startswith(f"All {total} rows")
    for name in ("Data set", "Attacker", "Device"):
        field_ = page.get_by_label(name, exact=True)
        parts = []
        for value in field_.locator("option").evaluate_all("o => o.map((x) => x.value)")[1:]:
            field_.select_option(value)
            parts.append(shown(page))
        assert all(0 < part < total for part in parts), name
        assert sum(parts) == total or name == "Device"
        field_.select_option("")
    page.get_by_label("Grade", exact=True).select_option("re-run")
    best = shown(page)
    page.get_by_label("Grade", exact=True).select_option("recomputed re-run")
    assert 0 < best < shown(page) < total
    assert page.locator("tr[data-grade=claimed]:visible").count() == 0
    page.get_by_role("button", name="Reset").click()
    expect(status).to_contain_text(f"All {total} rows")
    page.get_by_label("Controls and diagnostics").uncheck()
    assert shown(page) < total
    assert page.locator("tbody.controls:visible").count() == 0
    page.get_by_role("button", name="Reset").click()
    page.get_by_label("Search").fill("DP-pix")
    assert set(page.locator("tr[data-grade]:visible th a").all_inner_texts()) == {"dp-pix"}
    page.get_by_label("Search").fill("dp-pix nothing")
    assert shown(page) == 0
    assert page.locator("#nothing").is_visible()
    assert status.inner_text() == f"0 of {total} rows are shown."


def test_the_whole_board_works_by_keyboard(visit: Opener) -> None:
    """Skip link first; every control is reached by Tab, shows its focus, and acts on a key."""
    page = visit().page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    wanted = page.locator("main").locator("a[href], button, input, select, [tabindex='0']").count()
    reached = page.evaluate_handle("new Set()")
    for _ in range(wanted + 5):
        page.keyboard.press("Tab")
        inside = reached.evaluate(
            "(set) => { const e = document.activeElement; if (!e.closest('main')) return false;"
            " if (getComputedStyle(e).outlineStyle === 'none') throw e.outerHTML; set.add(e);"
            " return true; }"
        )
        if not inside:
            break
    assert reached.evaluate("(set) => set.size") == wanted
    button = page.locator("table.board").first.get_by_role("button", name="Rank-1")
    button.focus()
    page.keyboard.press("Enter")
    assert button.locator("..").get_attribute("aria-sort") == "ascending"
    page.keyboard.press("Space")
    assert button.locator("..").get_attribute("aria-sort") == "descending"


def test_without_javascript_every_row_shows(visit: Opener) -> None:
    """All rows in the order of ranks, a note, and no control that would do nothing."""
    page = visit(script=False).page
    with_script = visit().page
    assert page.locator("tr[data-grade]:visible").count() == shown(with_script)
    assert page.locator("#filters").is_hidden()
    assert page.locator("button:visible").count() == 0
    assert page.locator("noscript").is_visible()


@pytest.mark.parametrize("name", ["index.html", "pixelate"])
def test_a_phone_scrolls_one_way(visit: Opener, site: Path, name: str) -> None:
    """At 390 px only tables scroll sideways, and the name of a row stays in sight."""
    page = visit(name if name.endswith("html") else page_of(site, name), PHONE).page
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
    box = page.locator(".box").first
    box.evaluate("(box) => box.scrollTo(400, 0)")
    assert box.evaluate("(box) => box.scrollLeft") > 100
    place = box.locator("tbody th.name").first.bounding_box()
    assert place is not None
    assert 0 <= place["x"] < 20
    assert page.evaluate(
        "[...document.querySelectorAll('.filters :is(input, select, button)')]"
        ".every((e) => e.getBoundingClientRect().height >= 17)"
    )


def test_a_page_shows_curves_and_picture_and_copies_its_command(visit: Opener, site: Path) -> None:
    """Both plots are drawn, the picture has loaded, and the button copies or selects the text."""
    page = visit(page_of(site, "pixelate")).page
    assert page.locator("svg.chart[role=img]").count() >= 2
    assert page.evaluate("document.querySelector('.gallery img').naturalWidth") == 64
    command = page.locator(".command").first
    button = command.get_by_role("button", name="Copy the command")
    button.click()
    expect(button).to_have_text(re.compile("Copied|Selected"))
    assert "privbench run --anonymizer pixelate" in command.locator("pre").inner_text()
    page.get_by_role("link", name="← Leaderboard").click()
    assert page.url.endswith("index.html")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("name", ["index.html", "pixelate"])
def test_axe_finds_nothing(
    visit: Opener, site: Path, name: str, size: tuple[int, int], dark: bool
) -> None:
    """No violation of any rule of axe-core, contrast among them, with all details open."""
    page = visit(name if name.endswith("html") else page_of(site, name), size, dark).page
    page.evaluate("document.querySelectorAll('details').forEach((d) => (d.open = true))")
    result = Axe().run(page, options={"preload": False})
    found = [
        f"{v['id']}: {node['target']} {node['failureSummary']}"
        for v in result.response["violations"]
        for node in v["nodes"][:3]
    ]
    assert found == []


def test_hostile_names_run_nothing_and_show_as_text(visit: Opener, site: Path) -> None:
    """The id that would run code is read on the board; each nasty page opens in peace (the
    fixture sees dialogs, messages and violations)."""
    page = visit().page
    assert page.get_by_text(HOSTILE, exact=True).first.is_visible()
    assert page.title() == "Leaderboard – privbench"
    assert page.locator("main img").count() == 0
    links = page.locator("tr[data-grade] th a").evaluate_all("a => a.map((x) => x.href)")
    names = {f"anonymizers/{Path(link.partition('#')[0]).name}" for link in links}
    known = ("none", "pixelate", "dp-pix", "gaussian-blur", "ldm-unc", "eye-mask")
    nasty = [n for n in sorted(names) if not Path(n).name.startswith(known)]
    assert len(nasty) == len(NASTY)
    for name in nasty:
        found = visit(name, PHONE).page
        assert found.evaluate("document.documentElement.scrollWidth") <= PHONE[0], name
        assert found.locator("main img").count() == 1
        assert found.evaluate("document.title") != "owned"


def test_paper_holds_all_rows(visit: Opener) -> None:
    """In print the filters are gone, every row is there, tables fit a landscape A4 page between its
    margins, and text is dark on light, whatever the screen's scheme."""
    seen = visit(size=(1047, 720), dark=True)
    page = seen.page
    page.emulate_media(media="print")
    assert page.locator("#filters").is_hidden()
    assert page.locator("tr[data-grade]:visible").count() == shown(page) > 20
    widths = page.locator(".data table.board").evaluate_all("t => t.map((x) => x.offsetWidth)")
    assert max(widths[:3]) <= 1047
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
