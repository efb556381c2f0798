"""The layouts, written out by hand from NVIDIA's notebooks."""

from __future__ import annotations

import shutil

import pytest

from taoprofiles.profiles import layouts
from taoprofiles.profiles.model import Profile, template
from taoprofiles.profiles.rendering import Renderer
from tests.support.generated_profiles import AROUND
from tests.support.home import Home


def renderer_of(**keys: object) -> Renderer:
    profile_template = template(Profile.model_validate(keys), name="detectnet_v2")
    return Renderer(profile_template, AROUND, name="detectnet_v2", path="")


def render(**keys: object) -> tuple[dict[str, str], list[tuple[str, str]]]:
    renderer = renderer_of(**keys)
    mounts = [(mount["source"], mount["destination"]) for mount in renderer.mapping()["Mounts"]]
    return renderer.variables(), mounts


@pytest.mark.parametrize(
    ("keys", "project", "specs", "network"),
    [
        ({"project_dir": "~/tao/kitti"}, "/home/ana/tao/kitti", "/home/ana/tao/kitti/specs", "detectnet_v2"),
        (
            {"project_dir": "/p", "notebook_dir": "~/notebooks/yolo_v4", "network": "yolo_v4"},
            *("/p", "/home/ana/notebooks/yolo_v4/specs", "yolo_v4"),
        ),
    ],
)
def test_local(keys: dict[str, str], project: str, specs: str, network: str) -> None:
    variables, mounts = render(layout="local", **keys)
    assert variables == {
        "KEY": "nvidia_tlt",
        "NUM_GPUS": "1",
        "LOCAL_PROJECT_DIR": project,
        "LOCAL_EXPERIMENT_DIR": f"{project}/{network}",
        "LOCAL_DATA_DIR": f"{project}/data",
        "LOCAL_SPECS_DIR": specs,
        "USER_EXPERIMENT_DIR": f"/workspace/tao-experiments/{network}",
        "DATA_DOWNLOAD_DIR": "/workspace/tao-experiments/data",
        "SPECS_DIR": f"/workspace/tao-experiments/{network}/specs",
    }
    assert mounts == [(project, "/workspace/tao-experiments"), (specs, f"/workspace/tao-experiments/{network}/specs")]


HOST_VARIABLES = {
    "LOCAL_PROJECT_DIR": "/p",
    "HOST_DATA_DIR": "/p/data",
    "HOST_RESULTS_DIR": "/p/dino/results",
    "HOST_SPECS_DIR": "/n/specs",
    "DATA_DIR": "/data",
    "SPECS_DIR": "/specs",
    "RESULTS_DIR": "/results",
}
HOST_MOUNTS = [("/p/data", "/data"), ("/n/specs", "/specs"), ("/p/dino/results", "/results")]


def test_host() -> None:
    variables, mounts = render(layout="host", project_dir="/p", notebook_dir="/n", network="dino")
    assert variables == HOST_VARIABLES
    assert mounts == [("/p", "/workspace/tao-experiments"), *HOST_MOUNTS]


def test_tao7() -> None:
    renderer = renderer_of(layout="tao7", project_dir="/p", notebook_dir="/n", network="dino")
    assert renderer.variables() == HOST_VARIABLES
    home = "/results/.tao-runtime/home"
    variables = {
        "USER": "tao",
        "LOGNAME": "tao",
        "HOME": home,
        "XDG_CACHE_HOME": f"{home}/.cache",
        "HF_HOME": f"{home}/.cache/huggingface",
        "TORCH_HOME": f"{home}/.cache/torch",
        "TRITON_CACHE_DIR": f"{home}/.cache/triton",
        "TORCHINDUCTOR_CACHE_DIR": f"{home}/.cache/torchinductor",
        "MPLCONFIGDIR": f"{home}/.cache/matplotlib",
    }
    assert renderer.mapping() == {
        "Mounts": [{"source": source, "destination": destination} for source, destination in HOST_MOUNTS],
        "Envs": [{"variable": name, "value": value} for name, value in variables.items()],
        "DockerOptions": {"user": "1000:1001"},
    }


def test_what_the_profile_says_replaces_the_variables_and_the_user_of_tao7() -> None:
    keys = {"variables": {"RESULTS_DIR": "/out"}, "container": {"env": {"USER": "ana"}}, "docker": {"user": "root"}}
    mapping = renderer_of(layout="tao7", project_dir="/p", **keys).mapping()
    values = {item["variable"]: item["value"] for item in mapping["Envs"]}
    assert (values["USER"], values["HOME"]) == ("ana", "/out/.tao-runtime/home")
    assert mapping["DockerOptions"] == {"user": "root"}
    assert mapping["Mounts"][2] == {"source": "/p/detectnet_v2/results", "destination": "/out"}


def test_what_follows_moves_with_what_is_overridden() -> None:
    own = {"LOCAL_PROJECT_DIR": "/q", "SPECS_DIR": "/s"}
    variables, mounts = render(layout="local", project_dir="/p", variables=own)
    assert variables["LOCAL_DATA_DIR"] == "/q/data"
    assert variables["LOCAL_EXPERIMENT_DIR"] == "/q/detectnet_v2"
    assert mounts == [("/q", "/workspace/tao-experiments"), ("/p/specs", "/s")]
    variables, mounts = render(layout="host", project_dir="/p", variables={"HOST_DATA_DIR": "/fast/data"})
    assert mounts[1] == ("/fast/data", "/data")


def test_variables_are_added_after_those_of_the_layout() -> None:
    own = {"A": "${B}", "B": "${DATA_DIR}/b", "DATA_DIR": "/d"}
    variables, _ = render(layout="host", project_dir="/p", variables=own)
    assert list(variables)[-2:] == ["A", "B"]
    assert (variables["A"], variables["DATA_DIR"]) == ("/d/b", "/d")


def test_mounts_of_the_profile_replace_those_of_the_layout() -> None:
    mounts = [{"source": "${LOCAL_PROJECT_DIR}/x", "destination": "${SPECS_DIR}"}]
    assert render(layout="host", project_dir="/p", mounts=mounts)[1] == [("/p/x", "/specs")]
    assert render(layout="host", project_dir="/p", mounts=[])[1] == []
    assert render(layout="custom", project_dir="/p", network="dino") == ({}, []), "which has none"


@pytest.mark.parametrize("project_dir", ["/p/", "/p///", "/p"])
def test_slash_at_the_end_makes_no_difference(project_dir: str) -> None:
    variables, _ = render(layout="local", project_dir=project_dir, notebook_dir="/n/")
    assert (variables["LOCAL_DATA_DIR"], variables["LOCAL_SPECS_DIR"]) == ("/p/data", "/n/specs")


@pytest.mark.parametrize(
    ("network", "layout", "word"),
    [
        *((name, "local", "TensorFlow") for name in ("detectnet_v2", "yolo_v4", "yolo_v4_tiny", "unet")),
        *((name, "local", "TensorFlow") for name in ("efficientdet_tf2", "classification_tf1")),
        *((name, "host", "PyTorch") for name in ("segformer", "dino", "classification_pyt", "visual_changenet")),
        ("of-tomorrow", "host", "not a network that taoprof knows"),
    ],
)
def test_choice(network: str, layout: str, word: str) -> None:
    chosen, why = layouts.choose(network)
    assert chosen == layout
    assert word in why
    assert network in why


@pytest.mark.parametrize(
    ("network", "image", "layout"),
    [
        ("dino", None, "tao7"),
        ("of-the-future", None, "tao7"),
        ("detectnet_v2", None, "local"),  # TAO 7 has no TensorFlow
        ("detectnet_v2", "nvcr.io/nvidia/tao/tao-toolkit:7.1.0-deploy", "tao7"),
        ("dino", "nvcr.io/nvidia/tao/tao-toolkit:10.0.0-pyt", "tao7"),
        ("dino", "nvcr.io/nvidia/paidf-anomalygen:1.0.1", "tao7"),
    ],
)
def test_choice_without_a_launcher_or_by_the_image(network: str, image: str | None, layout: str) -> None:
    assert layouts.choose(network, image=image, has_launcher=False)[0] == layout
    other = "nvcr.io/nvidia/tao/tao-toolkit:6.26.3-pyt"
    assert layouts.choose("dino", image=other) == layouts.choose("dino"), "no image of TAO 7"


@pytest.mark.parametrize("launcher", ["none", "on PATH", "a mounts file"])
def test_new_looks_for_a_launcher(home: Home, launcher: str) -> None:
    programs = home.root / "bin"
    programs.mkdir()
    home.environ["PATH"] = str(programs)
    if launcher == "on PATH":
        (programs / "tao").touch(0o755)
    elif launcher == "a mounts file":
        home.mapping_file.write_text("{}")
    done = home.run("new", "dino", "--project-dir", ".", check=True)
    assert home.json("show", "dino")["data"]["layout"] == ("tao7" if launcher == "none" else "host")
    assert ("To set it: taoprof set dino image=IMAGE" in done.stderr) == (launcher == "none")
    assert ("mkdir -p" in done.stderr) == (launcher == "none"), "there is nothing to switch for"
    image = "nvcr.io/nvidia/tao/tao-toolkit:7.1.0-pyt"
    result = home.run("new", "x", "--project-dir", ".", "--image", image, check=True)
    assert f"using layout 'tao7': '{image}' is an image of TAO 7" in result.stderr
    data = home.json("show", "x")["data"]
    assert (data["layout"], data["images"], data["docker"]["shm_size"]) == ("tao7", {"": image}, "16G")
    assert "image: must be the name of an image" in home.run("new", "y", "--image=-v").stderr


def test_a_program_of_the_images_is_not_one_of_this_machine(home: Home) -> None:
    home.run("new", "dino", "--layout", "tao7", "--project-dir", ".", check=True)
    done = home.run("run", "dino", "--mkdir", "--", "dino", "train")
    assert done.returncode == 127
    assert (
        "taoprof set dino image=IMAGE; to start it by the launcher: taoprof run dino -- tao model dino train"
        in done.stderr
    )


def test_folders_of_the_caches_are_created_with_a_run_and_on_request(home: Home) -> None:
    home.run("new", "dino", "--layout", "tao7", "--project-dir", ".", check=True)
    runtime = home.root / "dino/results/.tao-runtime"
    assert home.run("use", "dino").returncode == 3
    for folder in ("data", "specs", "dino/results"):
        (home.root / folder).mkdir(parents=True)
    home.run("use", "dino", check=True)
    assert not runtime.exists(), "a switch creates nothing unasked"
    home.run("run", "dino", "--", "true", check=True)
    caches = ["huggingface", "matplotlib", "torch", "torchinductor", "triton"]
    assert sorted(path.name for path in (runtime / "home/.cache").iterdir()) == caches
    shutil.rmtree(runtime)
    done = home.run("use", "dino", "--mkdir", check=True)
    assert "taoprof: created ~/dino/results/.tao-runtime/home\n" in done.stderr, "the outermost one stands for all"
    assert sorted(path.name for path in (runtime / "home/.cache").iterdir()) == caches
    shutil.rmtree(runtime)
    home.run("set", "dino", "docker.user=4321:4321", check=True)
    home.run("run", "dino", "--", "true", check=True)
    assert not runtime.exists(), "another user's container could not use what we create"
