"""Hooks of the documentation site: its navigation, the language of a page's controls, and pictures for both themes."""

from __future__ import annotations

import re
from typing import Any

SECTIONS = {
    "Tutorials": ("tutorial", ["first-notebook", "first-switch"]),
    "How-to": ("how-to", ["installing", "notebooks", "training", "checking", "profiles", "guard", "shells"]),
    "Reference": ("reference", ["commands", "profile", "checks", "output", "notebook", "files"]),
    "Explanation": ("explanation", ["how-it-works", "speed", "dependencies"]),
    "中文": ("zh-CN", ["index", "quick-start", "training"]),
}
"""By title: a folder of docs/, and which of its pages come first. Others follow by name, so none is forgotten."""

IN_CHINESE = {
    "Overview": "英文概览",
    "Tutorials": "英文教程",
    "How-to": "英文指南",
    "Reference": "英文参考",
    "Explanation": "英文原理",
}
"""Titles in the navigation of a Chinese page; the pages behind them are in English."""

CHINESE, PUNCTUATION = r"[\u3000-\u9fff\uff00-\uffef]", r"[\u3000-\u303f\uff00-\uffef]"
BREAK = re.compile(rf"(?<={CHINESE})\n *(?={CHINESE})|(?<={PUNCTUATION})\n *(?=`(?!``))")
PICTURE = re.compile(r'<picture>\s*<source[^>]*srcset="([^"]+)"[^>]*>\s*(<img[^>]*src=")([^"]+)("[^>]*>)\s*</picture>')


def on_files(files: Any, config: Any) -> Any:
    """Set the navigation from what there is."""
    pages = sorted(file.src_uri for file in files.documentation_pages())
    config.nav = [{"Overview": "index.md"}]
    for title, (folder, first) in SECTIONS.items():
        names = [f"{folder}/{name}.md" for name in first]
        in_folder = [page for page in pages if page.startswith(f"{folder}/")]
        entries: list[Any] = [name for name in names if name in in_folder] + [p for p in in_folder if p not in names]
        config.nav.append({title: [{"概览": entry} if entry == "zh-CN/index.md" else entry for entry in entries]})
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Join the lines of a Chinese paragraph: a browser would show a blank for each end of a line."""
    return BREAK.sub("", markdown) if page.file.src_uri.startswith("zh-CN/") else markdown


def on_page_context(context: Any, page: Any, config: Any, nav: Any) -> Any:
    """Choose the language of a page's controls and navigation: the theme and the site have one for all pages."""
    is_chinese = page.file.src_uri.startswith("zh-CN/")
    config.theme["language"] = "zh" if is_chinese else "en"
    for item in nav.items:
        english = next((name for name, chinese in IN_CHINESE.items() if chinese == item.title), item.title)
        item.title = IN_CHINESE.get(english, english) if is_chinese else english
    return context


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """Let a picture follow the theme that the reader has chosen, and open whole: GitHub's form follows the system's."""
    return PICTURE.sub(r'<a href="\1">\2\1#only-dark\4</a><a href="\3">\2\3#only-light\4</a>', html)
