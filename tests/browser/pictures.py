"""Pictures of a report for the documentation: python -m tests.browser.pictures REPORT FOLDER."""

import sys
from pathlib import Path
from typing import Any

from tests.browser.conftest import CHROMIUM

COLOURS, HEIGHT = 128, 1190  # of the palette, for a page has few; in pixels


def main(report: str, folder: str) -> None:
    """Write ``report-*.png``.

    Args:
        report: A report, of one run with a diagnosis.
        folder: Where to.
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1120, "height": 1000}, reduced_motion="reduce")
        page.goto(Path(report).resolve().as_uri())
        for name, tab, theme in (
            ("summary", None, "light"),
            ("training", None, "light"),
            ("exchange", None, "dark"),
            ("pictures", "Traversals", "light"),
            ("latents", "Maps", "light"),
            ("trust", "Bounds over K", "dark"),
        ):
            page.emulate_media(color_scheme=theme)
            _save(page, name, tab, Path(folder) / f"report-{name}.png")
        browser.close()


def _save(page: Any, name: str, tab: str | None, path: Path) -> None:
    from PIL import Image

    section = page.locator(f"#{name}")
    if tab is not None:
        section.get_by_role("tab", name=tab).click()
    for plot in section.locator(".plot:visible").all():
        plot.scroll_into_view_if_needed()
        plot.locator(".main-svg").first.wait_for()
    section.screenshot(path=path, style=".bar { display: none; } main > section { padding: 1.5rem; }")
    with Image.open(path) as image:
        whole = image.convert("RGB").crop((0, 0, image.width, min(image.height, HEIGHT)))
        whole.quantize(COLOURS).save(path, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
