"""The path map: what it says is what ``check`` finds, and no text in it can be more than text."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from taoprofiles.check.path_map import PathMap, get_path_map, to_svg
from taoprofiles.profiles.store import Store
from tests.support.commands import drawing_texts
from tests.support.home import Home

PICTURE = Path(__file__).parents[2] / "docs/images/path-map.svg"


def path_map(home: Home, name: str) -> PathMap:
    return get_path_map(home.context, name, Store(home.context).renderer(name).summary())


def test_each_variable_is_at_its_place(home: Home) -> None:
    """The picture in the documentation is the drawing of its example."""
    for folder in ("specs", "data"):
        (home.root / "tao/kitti/detectnet_v2" / folder).mkdir(parents=True)
    (home.root / "tao/kitti/data").mkdir()
    project = ["--project-dir", "tao/kitti", "--notebook-dir", "tao/kitti/detectnet_v2"]
    home.run("new", "detectnet_v2", *project, check=True)
    home.run("show", "detectnet_v2", "--svg", "map.svg", check=True)
    drawing = (home.root / "map.svg").read_text()
    assert next(iter(path_map(home, "detectnet_v2").lines())) == (
        "~/tao/kitti (LOCAL_PROJECT_DIR) → /workspace/tao-experiments"
    )
    assert "~/tao/kitti/data (LOCAL_DATA_DIR) → /workspace/tao-experiments/data (DATA_DOWNLOAD_DIR)" in drawing
    assert "KEY" not in drawing, "it is no path, and a secret"
    assert {"DATA_DOWNLOAD_DIR", "profile 'detectnet_v2'"} <= set(drawing_texts(drawing))
    if os.environ.get("TAOPROF_SCREENSHOTS"):
        PICTURE.write_text(drawing)
    assert drawing == PICTURE.read_text(), "TAOPROF_SCREENSHOTS=docs/images draws it anew"
    home.profile("empty", 'schema = 1\nlayout = "custom"\nmounts = []\n')
    assert "no mounts" in to_svg(path_map(home, "empty"))
    assert home.run("show", "empty", "--svg", "no/such/folder.svg").returncode == 1
    assert home.run("show", "empty", "--svg", "x", "--toml").returncode == 2


def test_it_marks_what_check_finds(home: Home) -> None:
    for folder in ("project/data/train", "specs"):
        (home.root / folder).mkdir(parents=True)
    mounts = {"~/project": "/workspace", "~/specs": "/workspace/data", "~/missing": "/m"}
    tables = [f'[[mounts]]\nsource = "{source}"\ndestination = "{at}"' for source, at in mounts.items()]
    variables = 'HIDDEN = "~/project/data/train"\nGONE = "/workspace/gone"\nLOST = "/elsewhere"\nIMAGE = "/usr/bin"\n'
    home.profile("p", "\n".join(['schema = 1\nlayout = "custom"\n[variables]', variables, *tables]))
    drawn = path_map(home, "p")
    findings = home.json("check", "p")["data"]["findings"]
    assert {(finding.id, finding.what) for finding in drawn.findings} <= {
        (finding["id"], finding["what"]) for finding in findings
    }
    lines = "\n".join(drawn.lines())
    assert "~/project/data → /workspace/data (hidden by mount 2)" in lines
    assert "~/project/data/train (HIDDEN) → /workspace/data/train (hidden by mount 2)" in lines
    assert "~/project/gone (missing) → /workspace/gone (GONE)" in lines
    assert "~/missing (missing) → /m" in lines
    assert "LOST /elsewhere (in no mount)" in lines
    assert "IMAGE /usr/bin (in the image)" in lines
    shown = drawing_texts(to_svg(drawn))
    assert {"missing", "hidden by mount 2", "in no mount"} <= set(shown)
    assert "does not exist" in " ".join(shown[2:]), "the findings are there as sentences"


def test_hostile_texts_are_nothing_but_text(home: Home) -> None:
    markup = "<script>alert(1)</script>&\"']]><![CDATA[ --> $${x}"
    hostile = [markup, "\u202egnp.exe\x1b[31m\n\x07\ufffe", "שלום/مرحبا", "長い" * 200, "b/" * 200]
    names = [f"A{number}" for number in range(len(hostile))]
    variables = [f"{name} = {json.dumps('/w/' + text)}" for name, text in zip(names, hostile, strict=True)]
    mounts = [
        f"[[mounts]]\nsource = {json.dumps('/' + text)}\ndestination = {json.dumps(f'/m{number}/{text}')}"
        for number, text in enumerate([*hostile, "${LONG}"])
    ]
    home.profile(
        "p", "\n".join(['schema = 1\nlayout = "custom"\n[variables]', 'LONG = "${env:ENDLESS}"', *variables, *mounts])
    )
    home.context.environ["ENDLESS"] = "x" * 10_000
    drawing = to_svg(path_map(home, "p"))
    shown = drawing_texts(drawing)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufffe]", drawing)
    assert any("\\u202e" in text for text in shown)
    assert any("<script>" in text for text in shown)
    assert max(len(text) for text in shown[2:]) < 80, "each line fits"
    assert len(drawing) < 100_000
