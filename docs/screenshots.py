"""Take the pictures of the site in the docs: `python docs/screenshots.py`.

Needs chromium (`apt-get install chromium`) and the `dev` extra; opens the committed site.
"""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).parents[1]
SITE = ROOT / "leaderboard" / "site"
OUT = Path(__file__).parent / "images"
SIZES = {"desktop": (1280, 1500, 1), "phone": (390, 1000, 2)}
"""Width and height in CSS pixels, and pixels for each of them."""


def take(
    browser: Browser, page: Path, size: tuple[int, int, int], out: Path, *, dark: bool
) -> None:
    """The top of a page, as a PNG with a palette: a third of the size."""
    width, height, scale = size
    context = browser.new_context(
        viewport={"width": width, "height": height},
        device_scale_factor=scale,
        color_scheme="dark" if dark else "light",
        reduced_motion="reduce",
    )
    opened = context.new_page()
    opened.goto(page.as_uri())
    opened.wait_for_load_state("load")
    drawn = Image.open(io.BytesIO(opened.screenshot())).convert("RGB")
    context.close()
    drawn.quantize(256).save(out, "PNG", optimize=True)


def main() -> None:
    """The board and one anonymizer's page, on a desktop and on a phone."""
    path = next(
        (p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), ""
    )
    if not path:
        raise SystemExit("There is no chromium on PATH: apt-get install chromium")
    (anonymizer,) = (SITE / "anonymizers").glob("controlnet-canny-????????.html")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        for name, page in (("board", SITE / "index.html"), ("anonymizer", anonymizer)):
            for device, size in SIZES.items():
                take(browser, page, size, OUT / f"{name}-{device}.png", dark=False)
        take(browser, SITE / "index.html", SIZES["desktop"], OUT / "board-dark.png", dark=True)
        browser.close()


if __name__ == "__main__":
    main()
