"""The page in a real browser: Chromium without a window, driven by Playwright."""

from __future__ import annotations

import csv
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest

import fakes
from headstart.extract import Settings, fill_store
from headstart.heads import compare
from headstart.report import write_report
from payloads import PAYLOADS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_HOW = "needs a Chromium: apt-get install chromium (Debian's package), and uv sync for Playwright"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Start the system's Chromium, or skip, saying how to install it."""
    found = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(_HOW)
    playwright = pytest.importorskip("playwright.sync_api", reason=_HOW)
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=found, args=sandbox)
        yield started
        started.close()


class Visit:
    """A page as it is opened, with all it says to the console and asks of the network."""

    def __init__(
        self, browser: Any, file: Path, *, width: int = 1400, scheme: str = "light"
    ) -> None:
        self.page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", self._dialog)
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.address = file.absolute().as_uri()
        self.page.goto(self.address)

    def _dialog(self, dialog: Any) -> None:
        self.said.append("dialog")
        dialog.dismiss()

    def check(self) -> None:
        """Nothing was said, and nothing asked for but the page itself and pictures in it."""
        assert self.said == []
        outside = [url for url in self.asked if not url.startswith("data:")]
        assert outside == [self.address]

    def count(self, selector: str) -> int:
        return int(self.page.locator(selector).count())


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1400])
def test_every_figure_is_there(browser: Any, scene: Any, scheme: str, width: int) -> None:
    """On a phone and on a desk, light and dark: all figures, nothing sticks out, no complaint."""
    visit = Visit(browser, scene.file, width=width, scheme=scheme)
    names = ["accuracy", "tradeoff", "classes", "roc", "reliability", "pca", "tsne"]
    for name in [*names, "curve", "sweep", "modes", "modes-time"]:
        plot = visit.page.locator(f"#figure-{name} svg")
        box = plot.bounding_box()
        assert box["width"] > 250
        assert box["height"] > 60, name
        assert plot.locator("path, use").count() > 5, name
        assert plot.locator("title").first.text_content()
        assert len(plot.locator("desc").first.text_content()) > 20, name
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
    background = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") == (scheme == "light")
    broken = "[...document.images].filter(i => i.complete && !i.naturalWidth).length"
    assert visit.page.evaluate(broken) == 0
    assert visit.page.evaluate("[...document.images].every(i => i.alt)")
    visit.check()


_CONTRAST = """
() => {
  const light = (c) => {
    const [r, g, b] = c.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
      .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const paper = light(getComputedStyle(document.body).backgroundColor);
  const of = (c) => { const l = light(c);
    return (Math.max(l, paper) + 0.05) / (Math.min(l, paper) + 0.05); };
  const probe = document.body.appendChild(document.createElement("i"));
  const found = {};
  for (const name of ["ink", "muted", "accent", ...Array.from({length: 8}, (_, i) => "s" + i)]) {
    probe.style.color = `var(--${name})`;
    found[name] = of(getComputedStyle(probe).color);
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_can_be_read(browser: Any, scene: Any, scheme: str) -> None:
    """Text has a contrast of 4.5 to its paper, lines and points one of 3."""
    visit = Visit(browser, scene.file, scheme=scheme)
    for name, contrast in visit.page.evaluate(_CONTRAST).items():
        assert contrast >= (3 if name.startswith("s") else 4.5), name


def test_a_cell_shows_its_pictures(browser: Any, scene: Any) -> None:
    """Choosing a field shows as many pictures as it counts; once more hides them."""
    visit = Visit(browser, scene.file)
    cell = next(c for line in scene.report.insight.confusions[0].cells for c in line if c.count)
    button = visit.page.locator("button[data-cell^='0,']").first
    assert button.text_content() == str(cell.count)
    button.click()
    shown = visit.page.locator("#cell-0 img")
    assert shown.count() == cell.count == len(cell.rows)
    visit.page.wait_for_function(
        "[...document.querySelectorAll('#cell-0 img')].every(i => i.naturalWidth)"
    )
    paths = visit.page.locator("#cell-0 small").all_text_contents()
    assert paths == [scene.store.paths()[row] for row in cell.rows]
    assert button.get_attribute("aria-expanded") == "true"
    button.click()
    assert not visit.page.locator("#cell-0").is_visible()
    visit.page.locator("button[data-pair]").first.click()
    assert visit.page.locator("#cell-0 img").count() > 0
    visit.check()


def test_the_keyboard_is_enough(browser: Any, scene: Any) -> None:
    """Fields and maps are reached by Tab and worked by keys."""
    visit = Visit(browser, scene.file)
    page = visit.page
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('button[data-cell]')"):
            break
    page.keyboard.press("Enter")
    assert page.locator("#cell-0 img").count() > 0
    page.locator("[data-map=pca]").focus()
    seen = set()
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "ArrowDown", "ArrowUp"):
        page.keyboard.press(key)
        seen.add(page.locator("[data-map=pca] .spot small").text_content())
    assert len(seen) > 1
    page.keyboard.press("Escape")
    assert not page.locator("[data-map=pca] .spot").is_visible()
    visit.check()


def test_a_point_shows_its_picture(browser: Any, scene: Any) -> None:
    """A point of the map under the pointer shows the picture of its row."""
    visit = Visit(browser, scene.file)
    place = scene.report.insight.maps[0]
    number = next(i for i, code in enumerate(place.codes) if code == 0)
    visit.page.locator("#pca-points-0 use").first.dispatch_event("pointerenter")
    shown = visit.page.locator("[data-map=pca] .spot small").text_content()
    assert shown == scene.store.paths()[place.rows[number]]
    assert visit.count("[data-map=pca] svg use.here") == 1


def test_the_page_prints(browser: Any, scene: Any) -> None:
    """On paper there are all matrices, on several pages, without what only a screen needs."""
    visit = Visit(browser, scene.file)
    visit.page.emulate_media(media="print")
    assert not visit.page.locator("nav").is_visible()
    assert visit.page.pdf(format="A4").startswith(b"%PDF")
    visit.check()


_STRANGERS = """
() => [...document.querySelectorAll("*")].filter(e =>
  ["IFRAME", "OBJECT", "EMBED", "BASE", "FORM", "VIDEO", "TEMPLATE", "NOSCRIPT", "INPUT", "animate"]
    .includes(e.tagName)
  || [...e.attributes].some(a => a.name.startsWith("on") || a.name === "style")
  || (e.src || e.href || "").toString().startsWith("http")
).map(e => e.outerHTML)"""
#: Choose every field and go over every point of a map; collect what is there that must not be.
_SHOW_ALL = f"""
() => {{
  const strangers = {_STRANGERS.strip()};
  const found = [];
  const buttons = [...document.querySelectorAll("button[data-cell], button[data-pair]")];
  for (const button of buttons) {{
    button.click();
    found.push(...strangers());
  }}
  const points = [...document.querySelectorAll(".map use")];
  for (const point of points) point.dispatchEvent(new PointerEvent("pointerenter"));
  return [found.concat(strangers()), buttons.length, points.length];
}}"""


def test_hostile_names_are_text(
    browser: Any, tmp_path: Path, fake_base: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names made to run something stand there as text: as class, file, path and store."""
    assert len(PAYLOADS) == 60
    data = tmp_path / "pets"
    manifest = data / f"{PAYLOADS[0].replace('/', '')}.csv"
    data.mkdir()
    with manifest.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"])
        for number, payload in enumerate(PAYLOADS):
            for copy in range(3):
                path = f"{payload}-{copy}.png"
                fakes.draw(data / path, seed=100 * number + copy)
                writer.writerow([path, payload])
    settings = Settings(size=16, weights="random")
    store, _ = fill_store(manifest, tmp_path / "<img src=x onerror=alert(1)>", settings)
    comparison = compare(store, ["logreg", "knn"], cv=3)
    report = write_report(comparison, tmp_path / "r.html", figures=tmp_path / "figures")
    assert len(report.gallery.small) == 177  # a label of blanks alone is none
    visit = Visit(browser, tmp_path / "r.html")
    strangers, buttons, points = visit.page.evaluate(_SHOW_ALL)
    assert strangers == []
    assert buttons > 40
    assert points >= len(report.insight.maps[0].rows)
    visit.check()
    assert visit.page.evaluate("window.pwned") is None
    assert visit.count("script") == 2
    assert visit.count("style") == 1
    assert visit.count("svg script") == 0
    text = visit.page.locator("body").text_content()
    for payload in PAYLOADS:
        if payload.isprintable():
            assert payload in text, payload
