"""The program of a kernel that runs in a profile: ipykernel, and what is done about the notebook's own first cells.

It runs in the user's environment, which needs ipykernel and nothing of taoprofiles: it imports the standard library
only, and runs on Python 3.8. ``taoprof run`` becomes this program (``runs/session.py``); what it passes is in the
variable TAOPROF_KERNEL.
"""

from __future__ import annotations

import json
import os
import sys
from importlib.util import find_spec
from typing import Any

SETTINGS = "TAOPROF_KERNEL"
"""JSON: either ``error``, why the profile cannot be used, or the fields of a ProfileKernel."""

ATTRIBUTE = "_taoprof_kernel"
"""The attribute of IPython's shell in which the extension finds the ProfileKernel."""


class ProfileRefusedError(Exception):
    """The kernel has no profile, so no cell runs."""

    def _render_traceback_(self) -> list[str]:
        return [f"taoprof: error: {self}"]


class ProfileKernel:
    """The profile that a kernel was started with.

    - ``profile``: its name; ``run``: the id of the hold; ``fd``: the descriptor that keeps the hold alive
    - ``before``: what the variables were before, None for those that were not set
    - ``assigned``: what they are in the profile
    """

    def __init__(self, shell: Any, profile: str, run: str, fd: int, before: dict[str, str | None]) -> None:
        self._shell = shell
        self.profile, self.run, self.fd = profile, run, fd
        # Not in the environment with which the process was started: the hold could not be released in it.
        os.environ["TAOPROF_RUN"] = run
        os.set_inheritable(fd, False)
        self.before = {**before, "TAOPROF_RUN": None}
        self.assigned = {name: os.environ.get(name) for name in self.before}
        self._mapping_file = os.path.expanduser("~/.tao_mounts.json")
        self._signature: object = None
        self._values = self.assigned
        self._reported: set[str] = set()
        self._is_first_cell = True
        shell.events.register("pre_run_cell", self._before_cell)
        shell.events.register("post_run_cell", self._after_cell)

    @property
    def is_active(self) -> bool:
        """Check whether the profile is still in use: no cell has released it or uses another one."""
        return os.environ.get("TAOPROF_RUN") == self.run

    def _before_cell(self, _: object = None) -> None:
        if self._is_first_cell:
            self._is_first_cell = False
            if find_spec("taoprofiles") is not None:  # %taoprof, and cells whose training fails are made to fail
                self._shell.extension_manager.load_extension("taoprofiles")
        self._signature = self._stat()
        self._values = {name: os.environ.get(name) for name in self.assigned}

    def _after_cell(self, _: object = None) -> None:
        if not self.is_active:
            return
        lines = self._restore()
        if self._stat() != self._signature and "mapping file" not in self._reported:
            self._reported.add("mapping file")
            lines.append(
                "taoprof: ~/.tao_mounts.json changed while this cell ran. 'tao' in this notebook does not read it: "
                "the kernel has its own mounts file. To see whose mapping it has now: taoprof status"
            )
        if lines:
            from IPython.display import display

            display({"text/plain": "\n".join(lines)}, raw=True)  # type: ignore[no-untyped-call]

    def _restore(self) -> list[str]:
        """Undo what a cell with a wrong path set, and return what is to be said about changed variables.

        Such a cell is the notebook's own one that sets all paths, so its other values are not meant for this profile
        either. What any other cell sets is meant.
        """
        changed = [name for name, value in self._values.items() if os.environ.get(name) != value]
        sides = self._mounted_folders() if changed else ([], [])
        new = [name for name in changed if name not in self._reported]
        self._reported.update(new)
        names = ", ".join(new)
        if any(is_outside(self.assigned[name], os.environ.get(name), sides) for name in changed):
            for name in changed:
                value = self._values[name]
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
            line = f"taoprof: this cell set paths that no mount of profile '{self.profile}' has.\n"
            line += f"What it changed of the profile has its previous values again: {names}"
        else:
            differ = "differs" if len(new) == 1 else "differ"
            line = f"taoprof: {names} now {differ} from profile '{self.profile}'"
        hint = f"To change the profile: taoprof set {self.profile} NAME=VALUE, then restart the kernel"
        return [line, hint] if new else []

    def _mounted_folders(self) -> tuple[list[str], list[str]]:
        """Return the sources and the destinations of the mounts; none if the mounts file is not readable."""
        try:
            with open(self.assigned.get("LAUNCHER_MOUNTS") or "", encoding="utf-8") as file:
                mounts = json.load(file)["Mounts"]
            return [mount["source"] for mount in mounts], [mount["destination"] for mount in mounts]
        except (OSError, ValueError, KeyError, TypeError):
            return [], []

    def _stat(self) -> object:
        try:
            status = os.stat(self._mapping_file)
        except OSError:
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns


def is_outside(value: str | None, new: str | None, sides: tuple[list[str], list[str]]) -> bool:
    """Check whether ``value`` is in a mounted folder, on the host or in the container, and ``new`` is not there."""
    of_value = [folders for folders in sides if _is_in(value, folders)]
    return bool(of_value) and not any(_is_in(new, folders) for folders in of_value)


def _is_in(path: str | None, folders: list[str]) -> bool:
    if not path or not os.path.isabs(path):
        return False
    path = os.path.normpath(path)
    return any(path == folder or path.startswith(folder.rstrip("/") + "/") for folder in map(os.path.normpath, folders))


def refuse(shell: Any, message: str) -> None:
    """Make every cell fail with one line."""

    def fail(_: list[str]) -> list[str]:
        raise ProfileRefusedError(message)

    shell.input_transformers_cleanup.insert(0, fail)


def main() -> None:
    """Run the kernel."""
    if not getattr(sys.flags, "safe_path", False):
        del sys.path[0]  # the folder of this file; IPython adds the notebook's
    from ipykernel.kernelapp import IPKernelApp

    settings = json.loads(os.environ.pop(SETTINGS))

    class ProfileKernelApp(IPKernelApp):
        def init_shell(self) -> None:
            super().init_shell()  # type: ignore[no-untyped-call]
            if "error" in settings:
                refuse(self.shell, settings["error"])
            else:
                setattr(self.shell, ATTRIBUTE, ProfileKernel(self.shell, **settings))

    ProfileKernelApp.launch_instance()


if __name__ == "__main__":
    main()
