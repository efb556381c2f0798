"""Answers in a notebook: HTML where the front end shows it, and the same as text elsewhere.

The HTML says nothing of colours, so that it is read in light and dark themes alike, and has no ``<style>``, which
JupyterLab takes out of notebooks that it does not trust yet.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from taoprofiles.cli.output import table
from taoprofiles.masking import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

_CELL = "text-align:left;padding:2px 12px 2px 0;vertical-align:top"
_FIRST = f"{_CELL};font-family:monospace;white-space:nowrap"
_CODE = f"{_CELL};font-family:monospace;white-space:pre-wrap;overflow-wrap:anywhere"


class Answer:
    """Lines and tables, in their order; IPython asks for them in the form that it can show."""

    def __init__(self, *lines: str) -> None:
        self._text: list[str] = []
        self._html: list[str] = []
        for line in lines:
            self.line(line)

    def line(self, text: str) -> Answer:
        """Add a line."""
        self._text.append(printable(text))
        self._html.append(f"<div>{escape(printable(text))}</div>")
        return self

    def table(self, title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> Answer:
        """Add a table, unless it would be empty."""
        if rows:
            self._text += ["", *([f"{title}:"] if title else []), *table([head, *rows], indent="  " if title else "")]
            heads = "".join(f'<th style="{_CELL}">{escape(cell)}</th>' for cell in head)
            body = "".join(
                "<tr>"
                + "".join(
                    f'<td style="{_CODE if number else _FIRST}">{escape(printable(cell))}</td>'
                    for number, cell in enumerate(row)
                )
                + "</tr>"
                for row in rows
            )
            caption = f'<div style="margin-top:8px"><b>{escape(title)}</b></div>' if title else ""
            self._html.append(f"{caption}<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>")
        return self

    def __repr__(self) -> str:
        """Give the text."""
        return "\n".join(self._text).strip("\n")

    def _repr_html_(self) -> str:
        return f'<div class="taoprof">{"".join(self._html)}</div>'
