"""Layouts: the variables and mounts that TAO derives from the project folder, and the identity of a container's user.

Sources: NVIDIA's launcher notebooks (NVIDIA/tao_tutorials, notebooks/tao_launcher_starter_kit); for ``tao7`` and the
identity NVIDIA's skill bank (NVIDIA-TAO/tao-skill-bank 49672c2, skills/platform/tao-run-on-docker/SKILL.md, and
163d060) and docker/Dockerfile of tao-pytorch 7.0.1. Every value is an expression, so a profile that sets one variable
changes all values that refer to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taoprofiles.launcher.behaviour import parse_image_tag

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


# The networks whose containers are TensorFlow's: tf1 and tf2 images in the config.json of nvidia-tao 6.26.3, and the
# names that earlier launchers had for them (nvidia-tao 4.0.1, nvidia-tlt 0.1.21).
_TENSORFLOW = frozenset(
    "augment bpnet classification classification_tf1 classification_tf2 converter detectnet_v2 dssd efficientdet "
    "efficientdet_tf1 efficientdet_tf2 emotionnet faster_rcnn fpenet gazenet gesturenet heartratenet lprnet mask_rcnn "
    "multitask_classification retinanet ssd unet yolo_v3 yolo_v4 yolo_v4_tiny".split()
)
_PYTORCH = frozenset(
    "action_recognition annotations auto_label bevfusion centerpose classification_pyt clip cosmos-embed1 "
    "deformable_detr depth_net dino grounding_dino mae mal mask2former mask_grounding_dino ml_recog n_gram "
    "nvdinov2 nvpanoptix3d ocdnet ocrnet oneformer optical_inspection pointpillars pose_classification "
    "punctuation_and_capitalization question_answering re_identification rtdetr segformer sparse4d "
    "spectro_gen speech_to_text stylegan_xl text_classification token_classification visual_changenet vocoder".split()
)


EXAMPLE_IMAGE = "nvcr.io/nvidia/tao/tao-toolkit:7.1.0-pyt"
"""For hints: the image of TAO 7 for training (versions.yaml of the skill bank)."""

_TAO7_HOME = "${RESULTS_DIR}/.tao-runtime/home"


def choose(network: str, *, image: str | None = None, has_launcher: bool = True) -> tuple[str, str]:
    """Return the layout for a network, by its name, and the reason.

    ``image`` is the image of its tasks, if given; ``has_launcher`` is false if nothing tells of a launcher here.
    """
    tag = parse_image_tag(image or "")
    if tag is not None and tag[0] >= (7,):
        return "tao7", f"'{image}' is an image of TAO {tag[0][0]}"
    if network in _TENSORFLOW:
        return "local", f"'{network}' is one of TAO's TensorFlow networks"
    if not has_launcher:
        return "tao7", "there is no 'tao' on PATH and no mounts file; for the launcher of TAO 5 and 6: --layout host"
    if network in _PYTORCH:
        return "host", f"'{network}' is one of TAO's PyTorch networks"
    return "host", f"'{network}' is not a network that taoprof knows; new networks use PyTorch"


def is_network(name: str) -> bool:
    """Check whether this is the name of one of TAO's networks or data services, which is also its command."""
    return name in _TENSORFLOW or name in _PYTORCH


def variables(layout: str, *, project_dir: str, notebook_dir: str, network: str) -> dict[str, str]:
    """Return the variables of a layout as expressions; ``project_dir`` and ``notebook_dir`` are expressions too."""
    if layout == "local":
        return {
            "KEY": "nvidia_tlt",  # the key of NVIDIA's public TensorFlow models
            "NUM_GPUS": "1",
            "LOCAL_PROJECT_DIR": project_dir,
            "LOCAL_EXPERIMENT_DIR": f"${{LOCAL_PROJECT_DIR}}/{network}",
            "LOCAL_DATA_DIR": "${LOCAL_PROJECT_DIR}/data",
            "LOCAL_SPECS_DIR": f"{notebook_dir}/specs",
            "USER_EXPERIMENT_DIR": f"/workspace/tao-experiments/{network}",
            "DATA_DOWNLOAD_DIR": "/workspace/tao-experiments/data",
            "SPECS_DIR": f"/workspace/tao-experiments/{network}/specs",
        }
    if layout in ("host", "tao7"):
        return {
            "LOCAL_PROJECT_DIR": project_dir,
            "HOST_DATA_DIR": "${LOCAL_PROJECT_DIR}/data",
            "HOST_RESULTS_DIR": f"${{LOCAL_PROJECT_DIR}}/{network}/results",
            "HOST_SPECS_DIR": f"{notebook_dir}/specs",
            "DATA_DIR": "/data",
            "SPECS_DIR": "/specs",
            "RESULTS_DIR": "/results",
        }
    return {}


def mounts(layout: str) -> list[tuple[str, str, bool]]:
    """Return the mounts of a layout as expressions: (source, destination), and whether they are read-only: none is."""
    pairs = {
        "local": [("${LOCAL_PROJECT_DIR}", "/workspace/tao-experiments"), ("${LOCAL_SPECS_DIR}", "${SPECS_DIR}")],
        "host": [
            ("${LOCAL_PROJECT_DIR}", "/workspace/tao-experiments"),
            ("${HOST_DATA_DIR}", "/data"),
            ("${HOST_SPECS_DIR}", "/specs"),
            ("${HOST_RESULTS_DIR}", "/results"),
        ],
        # Nothing is on /workspace: NVIDIA's images have files there.
        "tao7": [
            ("${HOST_DATA_DIR}", "${DATA_DIR}"),
            ("${HOST_SPECS_DIR}", "${SPECS_DIR}"),
            ("${HOST_RESULTS_DIR}", "${RESULTS_DIR}"),
        ],
    }
    return [(source, destination, False) for source, destination in pairs.get(layout, [])]


def is_host_variable(name: str) -> bool:
    """Check whether a variable is, by its name, a path on the host."""
    return name.startswith(("LOCAL_", "HOST_"))


def env(layout: str) -> dict[str, str]:
    """Return the container's variables of a layout as expressions.

    Only ``tao7`` has some: for the others ``new`` writes them into the profile, since those that exist must not change.
    """
    if layout != "tao7":
        return {}
    return {**USER_ENV, **{name: _TAO7_HOME + below for name, below in FOLDER_VARIABLES.items()}}


def docker(layout: str) -> dict[str, str]:
    """Return the Docker options of a layout: results of ``tao7`` never belong to root because a key is missing."""
    return {"user": "auto"} if layout == "tao7" else {}


USER_NAME = "tao"
"""The name of the container's user, for programs that ask for one; any name will do."""

USER_ENV = {"USER": USER_NAME, "LOGNAME": USER_NAME}
"""Variables of a container whose user id has no name in the image: without one, torch 2 stops at its import."""

FOLDER_VARIABLES = {
    "HOME": "",
    "XDG_CACHE_HOME": "/.cache",
    "HF_HOME": "/.cache/huggingface",
    "TORCH_HOME": "/.cache/torch",
    "TRITON_CACHE_DIR": "/.cache/triton",
    "TORCHINDUCTOR_CACHE_DIR": "/.cache/torchinductor",
    "MPLCONFIGDIR": "/.cache/matplotlib",
}
"""Variables of a container with a folder that must exist and be writable; the folder below HOME of the layout tao7."""

NAMED_UID = "1000"
"""Known to NVIDIA's images for PyTorch, with a home; to others perhaps not, and a second name does no harm."""

_NAME_VARIABLES = ("LOGNAME", "USER", "LNAME", "USERNAME")
"""What Python's ``getpass.getuser`` looks at, before the image's list of users."""


def missing_identity(options: object, names: Collection[object]) -> dict[str, str]:
    """Return the variables that a container needs because the id of its user may be unknown in the image.

    ``options`` are its DockerOptions, ``names`` its variables.
    """
    user = str(options.get("user") or "") if isinstance(options, dict) else ""
    uid = user.partition(":")[0]
    if not (uid.isascii() and uid.isdigit() and int(uid)):
        return {}
    missing = {} if any(name in names for name in _NAME_VARIABLES) else dict(USER_ENV)
    return missing if "HOME" in names or uid == NAMED_UID else {**missing, "HOME": "/tmp"}  # noqa: S108 - in there


def with_identity(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping for one container, whose user has a name and a home; the mapping file never gets them."""
    envs = mapping.get("Envs", [])
    missing = missing_identity(mapping.get("DockerOptions"), [entry["variable"] for entry in envs])
    added = [{"variable": name, "value": value} for name, value in missing.items()]
    return {**mapping, "Envs": [*envs, *added]} if added else dict(mapping)
