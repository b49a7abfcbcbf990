"""Make docs/report-*.webp: the demo's report as a browser shows it.

usage: uv run python docs/screens.py [REPORT.html]     (without one, runs the demo for it)

Needs a Chromium: apt-get install chromium.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

HERE = Path(__file__).parent
WIDTH, HEIGHT, MOST_BYTES = 1200, 800, 300_000
NAMES = ("chromium", "chromium-browser", "google-chrome")


def shots(report: Path) -> dict[str, bytes]:
    """Return pictures of the page's parts, as PNG."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        sys.exit("needs a Chromium: apt-get install chromium")
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=sandbox)
        made = {
            "answer": _shot(browser, report, "light", "header"),
            "mistakes": _shot(browser, report, "dark", "#wrong .cards"),
            "map": _shot(browser, report, "light", "#map"),
        }
        browser.close()
    return made


def _shot(browser: Any, report: Path, scheme: str, selector: str) -> bytes:
    size = {"width": WIDTH, "height": HEIGHT}
    page = browser.new_page(viewport=size, color_scheme=scheme)
    page.goto(report.absolute().as_uri())
    page.locator(selector).first.evaluate("e => e.scrollIntoView({behavior: 'instant'})")
    if selector == "#map":
        page.locator("[data-map=pca]").focus()
        for _ in range(3):
            page.keyboard.press("ArrowRight")
    content: bytes = page.screenshot()
    return content


def main() -> int:
    """Make the pictures and say how large they are."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(folder) / "demo.html"
        if len(sys.argv) == 1:
            command = [sys.executable, "-m", "headstart", "demo", "--report", str(report)]
            subprocess.run(command, cwd=folder, check=True)
        made = shots(report)
    total = 0
    for name, content in made.items():
        path = HERE / f"report-{name}.webp"
        Image.open(io.BytesIO(content)).convert("RGB").save(path, "WEBP", quality=72, method=6)
        total += path.stat().st_size
        print(f"{path}: {path.stat().st_size:,} bytes")
    return 0 if total < MOST_BYTES else 1


if __name__ == "__main__":
    sys.exit(main())
