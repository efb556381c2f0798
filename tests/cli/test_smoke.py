"""The whole thing, once: a project folder, a profile, a switch."""

from tests.support.home import Home


def test_new_use_current(home: Home) -> None:
    project = home.root / "tao/kitti"
    project.mkdir(parents=True)
    home.run("new", "detectnet_v2", cwd=project, check=True)
    home.run("use", "detectnet_v2", "--mkdir", check=True)
    assert home.run("current").stdout == "detectnet_v2\n"
    assert home.mapping()["Mounts"][0] == {"source": str(project), "destination": "/workspace/tao-experiments"}
