"""The layouts, written out by hand from NVIDIA's notebooks."""

from __future__ import annotations

import pytest

from taoprofiles.profiles import layouts
from taoprofiles.profiles.model import Profile, template
from taoprofiles.profiles.rendering import Renderer
from tests.support.generated_profiles import AROUND


def render(**keys: object) -> tuple[dict[str, str], list[tuple[str, str]]]:
    made = template(Profile.model_validate(keys), name="detectnet_v2")
    renderer = Renderer(made, AROUND, name="detectnet_v2", path="")
    mounts = [(mount["source"], mount["destination"]) for mount in renderer.mapping()["Mounts"]]
    return renderer.variables(), mounts


def test_local() -> None:
    variables, mounts = render(layout="local", project_dir="~/tao/kitti")
    assert variables == {
        "KEY": "nvidia_tlt",
        "NUM_GPUS": "1",
        "LOCAL_PROJECT_DIR": "/home/ana/tao/kitti",
        "LOCAL_EXPERIMENT_DIR": "/home/ana/tao/kitti/detectnet_v2",
        "LOCAL_DATA_DIR": "/home/ana/tao/kitti/data",
        "LOCAL_SPECS_DIR": "/home/ana/tao/kitti/specs",
        "USER_EXPERIMENT_DIR": "/workspace/tao-experiments/detectnet_v2",
        "DATA_DOWNLOAD_DIR": "/workspace/tao-experiments/data",
        "SPECS_DIR": "/workspace/tao-experiments/detectnet_v2/specs",
    }
    assert mounts == [
        ("/home/ana/tao/kitti", "/workspace/tao-experiments"),
        ("/home/ana/tao/kitti/specs", "/workspace/tao-experiments/detectnet_v2/specs"),
    ]


def test_local_with_a_notebook_folder_and_a_network() -> None:
    variables, mounts = render(layout="local", project_dir="/p", notebook_dir="~/notebooks/yolo_v4", network="yolo_v4")
    assert variables == {
        "KEY": "nvidia_tlt",
        "NUM_GPUS": "1",
        "LOCAL_PROJECT_DIR": "/p",
        "LOCAL_EXPERIMENT_DIR": "/p/yolo_v4",
        "LOCAL_DATA_DIR": "/p/data",
        "LOCAL_SPECS_DIR": "/home/ana/notebooks/yolo_v4/specs",
        "USER_EXPERIMENT_DIR": "/workspace/tao-experiments/yolo_v4",
        "DATA_DOWNLOAD_DIR": "/workspace/tao-experiments/data",
        "SPECS_DIR": "/workspace/tao-experiments/yolo_v4/specs",
    }
    assert mounts == [
        ("/p", "/workspace/tao-experiments"),
        ("/home/ana/notebooks/yolo_v4/specs", "/workspace/tao-experiments/yolo_v4/specs"),
    ]


def test_host() -> None:
    variables, mounts = render(layout="host", project_dir="/p", notebook_dir="/n", network="dino")
    assert variables == {
        "LOCAL_PROJECT_DIR": "/p",
        "HOST_DATA_DIR": "/p/data",
        "HOST_RESULTS_DIR": "/p/dino/results",
        "HOST_SPECS_DIR": "/n/specs",
        "DATA_DIR": "/data",
        "SPECS_DIR": "/specs",
        "RESULTS_DIR": "/results",
    }
    assert mounts == [
        ("/p", "/workspace/tao-experiments"),
        ("/p/data", "/data"),
        ("/n/specs", "/specs"),
        ("/p/dino/results", "/results"),
    ]


def test_custom() -> None:
    assert render(layout="custom") == ({}, [])
    assert render(layout="custom", project_dir="/p", network="dino") == ({}, [])


def test_what_follows_moves_with_what_is_overridden() -> None:
    variables, mounts = render(
        layout="local", project_dir="/p", variables={"LOCAL_PROJECT_DIR": "/q", "SPECS_DIR": "/s"}
    )
    assert variables["LOCAL_DATA_DIR"] == "/q/data"
    assert variables["LOCAL_EXPERIMENT_DIR"] == "/q/detectnet_v2"
    assert mounts == [("/q", "/workspace/tao-experiments"), ("/p/specs", "/s")]
    variables, mounts = render(layout="host", project_dir="/p", variables={"HOST_DATA_DIR": "/fast/data"})
    assert mounts[1] == ("/fast/data", "/data")


def test_variables_are_added_after_those_of_the_layout() -> None:
    variables, _ = render(
        layout="host", project_dir="/p", variables={"A": "${B}", "B": "${DATA_DIR}/b", "DATA_DIR": "/d"}
    )
    assert list(variables)[-2:] == ["A", "B"]
    assert (variables["A"], variables["DATA_DIR"]) == ("/d/b", "/d")


def test_mounts_of_the_profile_replace_those_of_the_layout() -> None:
    given = [{"source": "${LOCAL_PROJECT_DIR}/x", "destination": "${SPECS_DIR}"}]
    assert render(layout="host", project_dir="/p", mounts=given)[1] == [("/p/x", "/specs")]
    assert render(layout="host", project_dir="/p", mounts=[])[1] == []


@pytest.mark.parametrize("project_dir", ["/p/", "/p///", "/p"])
def test_slash_at_the_end_makes_no_difference(project_dir: str) -> None:
    variables, _ = render(layout="local", project_dir=project_dir, notebook_dir="/n/")
    assert (variables["LOCAL_DATA_DIR"], variables["LOCAL_SPECS_DIR"]) == ("/p/data", "/n/specs")


@pytest.mark.parametrize(
    ("network", "layout", "word"),
    [
        ("detectnet_v2", "local", "TensorFlow"),
        ("yolo_v4", "local", "TensorFlow"),
        ("yolo_v4_tiny", "local", "TensorFlow"),
        ("unet", "local", "TensorFlow"),
        ("efficientdet_tf2", "local", "TensorFlow"),
        ("classification_tf1", "local", "TensorFlow"),
        ("segformer", "host", "PyTorch"),
        ("dino", "host", "PyTorch"),
        ("classification_pyt", "host", "PyTorch"),
        ("visual_changenet", "host", "PyTorch"),
        ("of-tomorrow", "host", "not a network that taoprof knows"),
    ],
)
def test_choice(network: str, layout: str, word: str) -> None:
    chosen, why = layouts.choose(network)
    assert chosen == layout
    assert word in why
    assert network in why
