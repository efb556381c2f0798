"""The oracle: what a launcher of a given version will do, told without starting it."""

from __future__ import annotations

from taoprofiles.launcher.prediction import Prediction

TYPE_CHECKING = False
if TYPE_CHECKING:
    from taoprofiles.launcher.prediction import Machine


def predict(version: str, machine: Machine, arguments: list[str] | None) -> Prediction:
    """Tell what ``tao ARGUMENTS`` does with the mounts file that it would find, up to its last call of Docker.

    Docker is taken to answer, and to have the image. ``arguments`` of None stand for any task: then the task is not
    looked for, the login to the registry not tested, and ``call.image`` is "". Nothing is read but through ``machine``.

    Raises ValueError for what is no version of the launcher (see ``versions.parse``).
    """
    raise NotImplementedError
