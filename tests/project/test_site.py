"""The documentation site: no broken link or anchor, nothing from elsewhere, and readable on a phone in both themes."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from tests.support.engine import until
from tests.support.home import ALL, find_command, require
from tests.support.jupyterlab import FLAGS
from tests.support.servers import serve

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SIZES = {"phone": (390, 844), "desktop": (1280, 900)}
SCREENSHOTS = os.environ.get("TAOPROF_SITE_SCREENSHOTS")
"""A folder for pictures of what the browser shows."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require(importlib.util.find_spec("material"), "mkdocs-material is not installed")
    folder = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr
    return folder


class Page(HTMLParser):
    """What a page refers to, and the anchors that it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.resources: list[str] = []
        self.anchors: set[str] = set()
        self.language = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        self.language = self.language or (values.get("lang") or "" if tag == "html" else "")
        self.anchors |= {values[name] or "" for name in ("id", "name") if name in values}
        for name in ("href", "src", "srcset"):
            target = values.get(name)
            if target:
                (self.targets if tag == "a" else self.resources).append(target)


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path.read_text()) for path in site.rglob("*.html") if path.name != "404.html"}


def test_every_page_of_the_documentation_is_there(site: Path, pages: dict[Path, Page]) -> None:
    sources = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in ROOT.glob("docs/**/*.md")}
    assert {path.relative_to(site) for path in pages} == sources
    start = pages[site / "index.html"]
    linked = {site / target.partition("#")[0] for target in start.targets}
    assert pages.keys() - linked == set(), "all are in the navigation"


def test_the_navigation_of_a_page_has_its_language(site: Path, pages: dict[Path, Page]) -> None:
    for path in pages:
        (tabs,) = re.findall(r'<nav class="md-tabs".*?</nav>', path.read_text(), re.S)
        titles = re.sub(r"<[^>]*>", " ", tabs).split()
        is_chinese = path.relative_to(site).parts[0] == "zh-CN"
        assert len(titles) == 6
        assert [title for title in titles if not title.isascii()] == (titles if is_chinese else ["中文"]), path


def test_no_link_or_anchor_is_broken(pages: dict[Path, Page]) -> None:
    broken = []
    for path, page in pages.items():
        for target in (*page.targets, *page.resources):
            url = urlsplit(target)
            if url.scheme in ("http", "https", "mailto", "data"):
                continue
            file = (path.parent / unquote(url.path)).resolve() if url.path else path
            anchor = unquote(url.fragment)
            is_there = file.exists() and (
                not anchor
                or anchor in ("only-dark", "only-light", "__skip")
                or file not in pages
                or anchor in pages[file].anchors
            )
            if not is_there:
                broken.append(f"{path.name}: {target}")
    assert broken == []


def test_nothing_is_loaded_from_elsewhere(pages: dict[Path, Page]) -> None:
    outside = {resource for page in pages.values() for resource in page.resources if "://" in resource}
    assert outside == set()


def test_chinese_pages_have_chinese_controls(site: Path, pages: dict[Path, Page]) -> None:
    for path, page in pages.items():
        is_chinese = path.is_relative_to(site / "zh-CN")
        assert page.language == ("zh" if is_chinese else "en")
        assert ("搜索" in path.read_text()) == is_chinese
        text = re.sub(r"<pre.*?</pre>", "", path.read_text().partition("<p>")[2], flags=re.S)
        blank = re.search(r"[\u3000-\u9fff\uff00-\uffef]\n *[\u4e00-\u9fff]", text)
        assert not (is_chinese and blank), "the end of a line is no blank in Chinese"


# In a browser


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    with serve(site) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    require(importlib.util.find_spec("playwright"), "playwright is not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=find_command("chromium"), args=[*FLAGS], chromium_sandbox=False
        )
        yield started
        started.close()


OVERFLOW = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
SHOWN = """() => [...document.querySelectorAll('article img')].filter(image => image.offsetParent !== null).map(
    image => ({source: image.src, width: image.naturalWidth, right: image.getBoundingClientRect().right}))"""
CONTRAST = """() => {
    const light = colour => {
        const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map(value => value / 255)
            .map(value => value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const text = light(getComputedStyle(document.querySelector('article p')).color);
    const background = light(getComputedStyle(document.body).backgroundColor);
    return (Math.max(text, background) + 0.05) / (Math.min(text, background) + 0.05);
}"""


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_pages_are_readable(
    site: Path, address: str, pages: dict[Path, Page], browser: Any, size: str, theme: str
) -> None:
    width, height = SIZES[size]
    # In CI all pages on a phone in the dark and on a desktop in the light; elsewhere, and of the other two, a few.
    every = SCREENSHOTS or (ALL and (size, theme) in (("phone", "dark"), ("desktop", "light")))
    shown = sorted(pages) if every else [site / "index.html", site / "zh-CN/index.html", site / "how-to/training.html"]
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=theme)
    errors: list[str] = []
    try:
        tab = context.new_page()
        tab.on("pageerror", lambda error: errors.append(str(error)))
        for path in shown:
            tab.goto(f"{address}/{path.relative_to(site)}")
            scheme = tab.get_attribute("body", "data-md-color-scheme")
            assert scheme == {"light": "default", "dark": "slate"}[theme]
            assert tab.evaluate(OVERFLOW) <= 0, f"{path.name} is wider than the screen"
            assert tab.evaluate(CONTRAST) > 4.5
            for image in tab.evaluate(SHOWN):
                assert image["width"] > 0, f"{path.name}: {image['source']} is not shown"
                assert image["right"] <= width, f"{path.name}: {image['source']} is cut off"
                named = re.search(r"-(light|dark)\.\w+#", image["source"])
                assert named is None or named[1] == theme
            if SCREENSHOTS:
                name = path.relative_to(site).with_suffix("").as_posix().replace("/", "-")
                tab.screenshot(path=f"{SCREENSHOTS}/{name}-{size}-{theme}.png")
    finally:
        context.close()
    assert errors == []


def test_a_reader_can_change_theme_and_language(address: str, browser: Any) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")
    try:
        tab = context.new_page()
        tab.goto(f"{address}/index.html")
        tab.click("label[title=Dark]")
        assert tab.get_attribute("body", "data-md-color-scheme") == "slate"
        assert all("dark" in image["source"] for image in tab.evaluate(SHOWN)), (
            "the picture follows the reader's choice"
        )
        tab.hover(".md-select")
        tab.click("a[hreflang=zh]")
        tab.wait_for_url("**/zh-CN/index.html")
        assert "第一次切换" in tab.inner_text("article")
    finally:
        context.close()


@pytest.mark.parametrize(("word", "page"), [("挂载", "quick-start"), ("uninstall", "removing")])
def test_search_finds_words_of_both_languages(address: str, browser: Any, word: str, page: str) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    try:
        tab = context.new_page()
        tab.goto(f"{address}/zh-CN/index.html")
        tab.fill(".md-search__input", word)
        link = f".md-search-result__link[href*='{page}']"

        def has_link() -> bool:
            tab.press(".md-search__input", "End")  # the script, once loaded, reads the word when a key is released
            return tab.query_selector(link) is not None

        until(has_link, "the search has found the page", seconds=90)
    finally:
        context.close()
