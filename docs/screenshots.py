"""Makes the viewer's pictures: `python docs/screenshots.py PHOTOGRAPHS_URL SCENES_URL FOLDER`.

The addresses are those that two running viewers printed: `fineclip view PHOTOGRAPHS --compare OTHER` and `fineclip view
SCENES --audit OUT --features NAME`. Each picture shows a page at 1440 and at 390 pixels, side by side, once in light
and once in dark.
"""

import io
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

_WIDTHS = (1440, 390)
_HEIGHT_PX, _GAP_PX = 960, 24
_MATTE = {"light": "#d5d9e0", "dark": "#000000"}
_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]


def shot(browser: Browser, url: str, *, width: int, scheme: str) -> Image.Image:
    """Return the page at `url` as a browser window of `width` pixels shows it."""
    page = browser.new_page(viewport={"width": width, "height": _HEIGHT_PX}, color_scheme=scheme)
    page.goto(url)
    page.wait_for_load_state("networkidle")
    if width == max(_WIDTHS) and page.locator("article .regions > li, article.cutout").count():
        page.locator("article .regions > li, article.cutout").nth(1).hover()
        page.wait_for_timeout(300)
    data = page.screenshot()
    page.close()
    return Image.open(io.BytesIO(data)).convert("RGB")


def picture(browser: Browser, url: str, scheme: str) -> Image.Image:
    """Return both widths side by side, in 256 colours."""
    shots = [shot(browser, url, width=width, scheme=scheme) for width in _WIDTHS]
    canvas = Image.new("RGB", (sum(_WIDTHS) + 3 * _GAP_PX, _HEIGHT_PX + 2 * _GAP_PX), _MATTE[scheme])
    left = _GAP_PX
    for one in shots:
        canvas.paste(one, (left, _GAP_PX))
        left += one.width + _GAP_PX
    return canvas.quantize(256, kmeans=3, dither=Image.Dither.FLOYDSTEINBERG)


def main(arguments: Sequence[str]) -> None:
    """Write a picture of each page in each scheme."""
    photographs, scenes, folder = arguments
    pages = {
        "gallery": photographs,
        "crops": f"{photographs}crops",
        "filtered": f"{photographs}?status=filtered",
        "compare": f"{photographs}compare",
        "dataset": f"{scenes}dataset",
        "audit": f"{scenes}audit",
        "map": f"{scenes}map",
    }
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=_FLAGS)
        for name, url in pages.items():
            for scheme in _MATTE:
                picture(browser, url, scheme).save(Path(folder) / f"viewer-{name}-{scheme}.png", optimize=True)
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1:])
