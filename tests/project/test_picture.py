"""The picture of the README shows what the program says."""

from __future__ import annotations

import pytest

from tests.project import readme_picture

pytestmark = [pytest.mark.timeout(120), pytest.mark.slow]


def test_the_picture_is_up_to_date() -> None:
    pictures = {path.name: path.read_text() for path in readme_picture.FOLDER.glob("readme-*.svg")}
    assert readme_picture.pictures() == pictures, "python -m tests.project.readme_picture draws it anew"


def test_nothing_is_cut_off() -> None:
    for name in ("readme-light.svg", "readme-dark.svg"):
        text = (readme_picture.FOLDER / name).read_text()
        for line in text.splitlines():
            if line.startswith("<text"):
                x, length = (float(line.partition(f'{key}="')[2].partition('"')[0]) for key in ("x", "textLength"))
                assert x + length < readme_picture.WIDTH - readme_picture.MARGIN, line
