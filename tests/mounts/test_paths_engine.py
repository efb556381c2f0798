"""What a path means inside, against a real container: nested mounts, and links of every kind."""

from __future__ import annotations

import itertools
import os
import random
from pathlib import Path

import pytest

from taoprofiles.check.path_map import translate
from taoprofiles.mounts import mapping
from taoprofiles.mounts.paths import PathResolver
from tests.support.engine import TrainingHome

pytestmark = pytest.mark.engine

NAMES = ("a", "b", "c")


def grown(root: Path, chance: random.Random) -> None:
    """Fill a folder with folders, files that say where they are, and links: near, far, of this host and of inside."""
    targets = ["a", "b", "../b", "../../c", "a/c", "/w/a", "/w/b/c", "/x/a", str(root / "a"), "/nowhere", "c"]
    for path in [root / "/".join(parts) for size in (1, 2, 3) for parts in itertools.product(NAMES, repeat=size)]:
        if not path.parent.is_dir() or path.parent.resolve() != path.parent or os.path.lexists(path):
            continue
        kind = chance.choice(["folder", "folder", "file", "link", "nothing"])
        if kind == "folder":
            path.mkdir()
        elif kind == "file":
            path.write_text(f"{path}\n")
        elif kind == "link":
            path.symlink_to(chance.choice(targets))


def test_every_path_is_what_the_container_has(training_home: TrainingHome) -> None:
    home, image = training_home, next(iter(training_home.engine.images.values()))
    for seed in range(4):
        chance = random.Random(seed)
        sources = {name: home.root / f"{seed}" / name for name in ("outer", "inner", "other")}
        for source in sources.values():
            source.mkdir(parents=True)
        (sources["outer"] / "b").mkdir()  # where the inner mount lies, so that the engine makes nothing there
        for source in sources.values():
            grown(source, chance)
        mounts = {str(sources["outer"]): "/w", str(sources["inner"]): "/w/b", str(sources["other"]): "/x"}
        listed = [{"source": source, "destination": place} for source, place in mounts.items()]
        home.mapping_file.write_bytes(mapping.to_bytes({"Mounts": listed}))
        below = ["/".join(parts) for size in (1, 2, 3) for parts in itertools.product(NAMES, repeat=size)]
        paths = [f"{place}/{path}" for place in ("/w", "/x") for path in below]
        script = 'for p; do if [ -f "$p" ]; then cat "$p"; elif [ -e "$p" ]; then echo folder; else echo none; fi; done'
        binds = [f"--volume={source}:{place}" for source, place in mounts.items()]
        output = home.engine.docker(
            "run", "--rm", "--network=none", *binds, image, "/bin/sh", "-c", script, "x", *paths
        )
        resolver = PathResolver(mounts)
        for place, there in zip(paths, output.splitlines(), strict=True):
            resolution = resolver.resolve(place)
            exists = resolution.kind in ("found", "entry-out")
            assert exists == (there != "none"), (seed, place, there, resolution)
            if there.startswith("/"):
                assert resolution.host == there
                assert os.path.realpath(translate(home.context, place, None).answer) == there
                back = translate(home.context, there, None)
                assert place == back.answer or resolver.resolve(back.answer).host == there
