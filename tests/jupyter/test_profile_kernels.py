"""``taoprof kernel``: what it writes is a kernel to Jupyter, and runs in the profile."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from taoprofiles.profiles.kernels import LOGOS
from tests.support.commands import call
from tests.support.engine import TrainingHome, until
from tests.support.home import Home, require, write_program
from tests.support.jupyterlab import PANEL, ROOT, Browser, JupyterLabServer, kernel_path, write_notebook
from tests.support.kernels import Kernel, read_environ

pytestmark = [pytest.mark.jupyter, pytest.mark.slow]

H = TypeVar("H", bound=Home)

FIRST_CELL = """\
import os
%env NUM_GPUS=4
os.environ["LOCAL_PROJECT_DIR"] = "FIXME"
os.environ["LOCAL_DATA_DIR"] = os.path.join(os.environ["LOCAL_PROJECT_DIR"], "data")
os.environ["SPECS_DIR"] = "/workspace/tao-experiments/detectnet_v2/specs"
"""
MOUNTS_CELL = """\
import json
with open(os.path.expanduser("~/.tao_mounts.json"), "w") as file:
    json.dump({"Mounts": [{"source": os.getenv("LOCAL_PROJECT_DIR"), "destination": "/workspace"}]}, file)
"""


@pytest.fixture
def home(home: Home) -> Home:
    """A home with the profile alpha, and its kernel."""
    return with_kernel(home)


def with_kernel(home: H) -> H:
    (home.root / "project/specs").mkdir(parents=True)
    home.run("new", "alpha", "--network", "detectnet_v2", cwd=home.root / "project", check=True)
    install(home, "alpha")
    return home


def install(home: Home, name: str, *options: str, python: object = sys.executable) -> dict[str, Any]:
    done = home.run("kernel", "install", name, "--python", str(python), *options, "--json", check=True)
    return json.loads(done.stdout)["data"]["kernels"][0]


def spec_of(home: Home, name: str = "taoprof-alpha") -> Path:
    return home.root / ".local/share/jupyter/kernels" / name / "kernel.json"


def held(home: Home) -> list[tuple[str, str, int]]:
    return [(hold["kind"], hold["profile"], hold["pid"]) for hold in home.holds()]


def test_a_kernel_is_in_the_profile_for_all_its_life(home: Home) -> None:
    with Kernel(home, name="taoprof-alpha", notebook="a/train.ipynb") as kernel:
        there = read_environ(kernel)
        wanted = json.loads(home.run("env", "alpha", "--format", "json", "--reveal", check=True).stdout)
        assert {name: there.get(name) for name in wanted} == wanted
        own = Path(there["LAUNCHER_MOUNTS"])
        assert json.loads(own.read_text())["Mounts"][0]["source"] == str(home.root / "project")
        assert held(home) == [("notebook", "alpha", kernel.pid)]
        assert home.holds()[0]["reason"] == "train.ipynb"
        for command in ("taoprof", "tao"):
            assert kernel.run(f"!command -v {command}").text.strip() == str(Path(sys.executable).with_name(command))
        assert "this notebook uses profile 'alpha'" in kernel.run("%taoprof status").text
        refused = home.run("stop", home.holds()[0]["id"])
        assert "has no running task" in refused.stderr, "the kernel itself is not a task"
        arguments = {"clientID": "test", "adapterID": "", "pathFormat": "path"}
        request = {"type": "request", "seq": 1, "command": "initialize", "arguments": arguments}
        assert kernel.ask("debug_request", request)["success"], "so the kernelspec may say that there is a debugger"

        cell = kernel.start("import time\nprint('at work')\nwhile True:\n    time.sleep(0.1)").until("at work")
        kernel.interrupt()
        assert "KeyboardInterrupt" in cell.finish().traceback
        assert held(home) == [("notebook", "alpha", kernel.pid)]
        kernel.restart()
        assert read_environ(kernel)["LAUNCHER_MOUNTS"] != str(own)
        assert held(home) == [("notebook", "alpha", kernel.pid)]
        kernel.run("%taoprof release")
        assert held(home) == []
        assert "SPECS_DIR" not in read_environ(kernel)
        kernel.restart()
        kernel.shutdown()
        assert held(home) == []


def test_the_notebooks_own_first_cells_do_no_harm_and_it_is_told_once(home: Home) -> None:
    with Kernel(home, name="taoprof-alpha") as kernel:
        before = read_environ(kernel)
        output = kernel.run(FIRST_CELL).text
        assert "has its previous values again: NUM_GPUS, LOCAL_PROJECT_DIR, LOCAL_DATA_DIR\n" in output
        output = kernel.run(MOUNTS_CELL).text
        assert "~/.tao_mounts.json changed while this cell ran" in output
        assert "undo" not in output, "in a new home that takes back the profile's last setting"
        again = kernel.run(FIRST_CELL + MOUNTS_CELL)
        assert "taoprof:" not in again.output
        assert read_environ(kernel) == before
        changed = {"KEY": "mine", "SPECS_DIR": "/workspace/tao-experiments/other/specs"}
        output = kernel.run(f"os.environ.update({changed})").text
        assert "KEY, SPECS_DIR now differ from profile 'alpha'" in output, "what can be right is the cell's"
        kernel.run(FIRST_CELL)
        assert read_environ(kernel) == before | changed
        assert "changed by a cell" in kernel.run("%taoprof env").output


def test_a_python_without_taoprofiles_will_do(home: Home) -> None:
    """JupyterLab's: it has ipykernel."""
    python = ROOT / ".jupyterlab/bin/python"
    require(python.exists(), "JupyterLab is not installed in .jupyterlab")
    install(home, "alpha", python=python)
    (home.root / "modules").mkdir()
    (home.root / "modules/mine.py").touch()
    environ = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(home.root / "modules"), "PYTHONSAFEPATH": "1"}
    with Kernel(home, name="taoprof-alpha", environ=environ) as kernel:
        kernel.run("import mine")
        assert kernel.run("import sys; print(sys.executable)").text.strip() == str(python)
        assert kernel.execute("import taoprofiles").failed
        assert read_environ(kernel)["PATH"] == f"{python.parent}:/usr/bin:/bin:{Path(sys.executable).parent}"
        assert "LOCAL_PROJECT_DIR" in kernel.run(FIRST_CELL).text
        assert read_environ(kernel)["LOCAL_PROJECT_DIR"] == str(home.root / "project")
        assert held(home) == [("notebook", "alpha", kernel.pid)]


def without_profile(home: Home) -> None:
    (home.profiles / "alpha.toml").unlink()


def without_folder(home: Home) -> None:
    (home.root / "project/specs").rmdir()


def without_python(home: Home) -> None:
    spec_of(home).write_text(spec_of(home).read_text().replace(sys.executable, "/nowhere/python"))


REFUSED: dict[Callable[[Home], None], tuple[str, str]] = {
    without_profile: ("there is no profile 'alpha'.", "taoprof kernel remove alpha"),
    without_folder: (
        "cannot start a kernel with 'alpha': 1 folder does not exist;",
        "taoprof run alpha --mkdir -- true",
    ),
    without_python: (
        "'/nowhere/python' cannot run a kernel: it cannot be started: ",
        "taoprof kernel install alpha --python",
    ),
}
"""By what is done: how the line begins, and the way back that it names."""


@pytest.mark.parametrize("prepare", REFUSED)
def test_a_kernel_that_is_refused_says_why_in_each_cell(home: Home, prepare: Callable[[Home], None]) -> None:
    prepare(home)
    begins, way = REFUSED[prepare]
    with Kernel(home, name="taoprof-alpha") as kernel:
        for code in ("!tao model detectnet_v2 train", "%env X=1", "1 +"):
            cell = kernel.execute(code)
            assert cell.failed
            (line,) = cell.output.strip().splitlines()
            assert line.startswith(f"taoprof: error: {begins}")
            assert way in line
            assert line.endswith("Then restart the kernel")
        assert home.holds() == []


def test_kills_leave_no_hold_and_take_no_other(home: Home, tmp_path: Path) -> None:
    """Of the kernel, and of the server that started it."""
    server = (
        "import sys; from jupyter_client import KernelManager\n"
        "kernel = KernelManager(kernel_name='taoprof-alpha'); kernel.start_kernel()\n"
        "client = kernel.client(); client.start_channels(); client.wait_for_ready(timeout=60)\n"
        "print(kernel.provisioner.pid, flush=True); sys.stdin.read()"
    )
    with (
        Kernel(home, name="taoprof-alpha") as other,
        subprocess.Popen(
            [sys.executable, "-c", server],
            env=home.environ,
            cwd=home.root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        ) as parent,
    ):
        try:
            assert parent.stdout is not None
            pid = int(parent.stdout.readline())
            assert sorted(hold[2] for hold in held(home)) == sorted([other.pid, pid])
        finally:
            os.killpg(parent.pid, signal.SIGKILL)
        until(lambda: held(home) == [("notebook", "alpha", other.pid)], "the server's kernel has ended")
        other.kill()
        assert held(home) == []


@pytest.mark.engine
def test_the_training_of_a_killed_kernel_keeps_its_hold(training_home: TrainingHome) -> None:
    home = with_kernel(training_home)
    with Kernel(home, name="taoprof-alpha") as kernel:
        kernel.start("!tao model detectnet_v2 train 60").until(": training as")
        (container,) = home.engine.containers_of(home.root)
        kernel.kill()
        assert [(hold["profile"], hold["container"]) for hold in home.holds()] == [("alpha", container)]
        home.engine.remove(container)
        until(lambda: home.holds() == [], "nothing is held")


RUNNERS = {
    "papermill": ("--kernel", "taoprof-alpha", "train.ipynb", "done.ipynb"),
    "nbconvert": ("--execute", "--to", "notebook", "--output", "done.ipynb", "train.ipynb"),
}


@pytest.mark.parametrize("runner", RUNNERS)
def test_programs_that_run_notebooks(home: Home, runner: str) -> None:
    require(importlib.util.find_spec(runner), f"{runner} is not installed")
    from nbconvert import HTMLExporter

    cells = ("import os; print(os.environ['SPECS_DIR'])", "%taoprof")
    write_notebook(home.root / "train.ipynb", *cells, kernel="taoprof-alpha")
    command = [sys.executable, "-m", runner, *RUNNERS[runner]]
    environ = {**home.environ, "PATH": kernel_path()}
    done = subprocess.run(command, env=environ, cwd=home.root, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    cell = json.loads((home.root / "done.ipynb").read_text())["cells"][0]
    assert "".join(cell["outputs"][0]["text"]) == "/workspace/tao-experiments/detectnet_v2/specs\n"
    page, _ = HTMLExporter().from_filename(str(home.root / "done.ipynb"))
    assert 'alt="Path map of profile' in page
    assert home.holds() == []
    without_profile(home)
    done = subprocess.run(command, env=environ, cwd=home.root, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1
    assert "taoprof: error: there is no profile 'alpha'." in done.stderr


def test_what_is_installed_is_a_kernel_by_the_rules_of_jupyter_and_vs_code(home: Home, tmp_path: Path) -> None:
    """VS Code hides kernels whose program has no absolute path, and cannot start those of a provisioner."""
    from jupyter_client.kernelspec import KernelSpecManager

    home.profile("A.b")
    prefix = tmp_path / "opt"
    os.umask(old := os.umask(0o077))
    try:
        there = install(home, "A.b", "--prefix", str(prefix))
    finally:
        os.umask(old)
    manager = KernelSpecManager(kernel_dirs=[str(spec_of(home).parents[1]), str(prefix / "share/jupyter/kernels")])
    manager.ensure_native_kernel = False
    assert set(manager.find_kernel_specs()) == {"taoprof-alpha", there["kernel"]}
    spec = manager.get_kernel_spec(there["kernel"])
    assert spec.display_name == "TAO: A.b"
    assert spec.language == "python"
    assert spec.argv == [
        home.taoprof,
        "run",
        "A.b",
        "--",
        sys.executable,
        *"-m ipykernel_launcher -f".split(),
        "{connection_file}",
    ]
    assert all(Path(spec.argv[at]).is_absolute() for at in (0, 4))
    assert spec.metadata == {"taoprof": {"profile": "A.b"}, "debugger": True}
    for name in (*LOGOS, "kernel.json"):
        path = Path(spec.resource_dir, name)
        assert stat.S_IMODE(path.stat().st_mode) == 0o644, "of an environment that others use too"
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755
    logos = ROOT / "taoprofiles/profiles/logos"
    for name in LOGOS:
        assert Path(spec.resource_dir, name).read_bytes() == (logos / name).read_bytes()
    for size in (32, 64):
        assert (logos / f"logo-{size}x{size}.png").read_bytes()[16:24] == 2 * size.to_bytes(4, "big")
    home.environ["VIRTUAL_ENV"] = str(prefix)
    assert {kernel["profile"] for kernel in home.json("kernel", "list")["data"]["kernels"]} == {"alpha", "A.b"}
    assert [k["profile"] for k in home.json("kernel", "list", "--user")["data"]["kernels"]] == ["alpha"]
    home.run("kernel", "remove", "--all", check=True)
    assert list(prefix.rglob("taoprof*")) == []


def test_a_profile_that_is_renamed_before_the_first_cell(home: Home) -> None:
    with Kernel(home, name="taoprof-alpha") as kernel:
        home.run("rename", "alpha", "Beta", check=True)
        cell = kernel.run("import os; print(os.environ['SPECS_DIR'])")
        assert "warning: this kernel was started with profile 'alpha', but there is no profile 'alpha'" in cell.output
        assert "/workspace/tao-experiments/detectnet_v2/specs" in cell.output, "nothing else is different"
        assert "warning" not in kernel.run("1").output


def test_refusals_and_kernels_that_are_not_ours(home: Home) -> None:
    for words in (
        *("install", "install alpha --all", "install alpha --user --sys-prefix", "list --all", "list --python x"),
        *("remove", "remove alpha --all", "remove alpha --python x", "install alpha --python /bin/false"),
    ):
        assert home.run("kernel", *words.split()).returncode == 2, words
    assert home.run("kernel", "install", "b", "--python", sys.executable).returncode == 4
    for number, content in enumerate(("", "[]", '{"metadata": 1}', '{"metadata": {"taoprof": {"profile": 1}}}')):
        other = spec_of(home, f"other{number}")
        other.parent.mkdir()
        other.write_text(content)
    name = "<script>alert(1)</script>\u202e\x1b[31m" + "x" * 10_000
    hostile = {"argv": ["a", "b", "c", "d", "\x1b[31m"], "metadata": {"taoprof": {"profile": name}}}
    other.write_text(json.dumps(hostile))
    listed = home.run("kernel", "list", check=True).stdout
    assert "\x1b" not in listed
    assert "\u202e" not in listed
    assert [k["profile"] for k in home.json("kernel", "list")["data"]["kernels"]] == [name, "alpha"]
    assert home.run("kernel", "install", name).returncode == 2


def test_a_kernel_never_replaces_what_a_link_leads_to(home: Home) -> None:
    """The folder may be another user's: --prefix."""
    for name in ("kernel.json", LOGOS[0]):
        path = spec_of(home).with_name(name)
        target = path.replace(home.root / f"{name}.mine")
        before = target.read_bytes()
        path.symlink_to(target)
        install(home, "alpha")
        assert target.read_bytes() == before
        assert not path.is_symlink()
    target = spec_of(home).parent.rename(home.root / "target")
    spec_of(home).parent.symlink_to(target)
    home.run("kernel", "remove", "alpha", check=True)
    assert not spec_of(home).parent.is_symlink()
    assert (target / "kernel.json").exists(), "as Jupyter removes a link"


@pytest.mark.parametrize("content", ['{"argv": ["mine"], "display_name": "Mine", "language": "python"}', "{"])
def test_another_programs_kernel_of_the_same_name_stays(home: Home, content: str) -> None:
    other = spec_of(home, "taoprof-beta")
    other.parent.mkdir()
    other.write_text(content)
    home.profile("beta")
    done = home.run("kernel", "install", "beta", "--python", sys.executable)
    assert done.returncode == 3
    assert f"'{other.parent}' has a kernel that was not installed by taoprof" in done.stderr
    home.run("remove", "beta", check=True)
    done = home.run("rename", "alpha", "beta", check=True)
    assert f"the kernel in '{spec_of(home).parent}' still has profile 'alpha': '{other.parent}' has a" in done.stderr
    assert home.run("kernel", "remove", "beta").returncode == 4
    assert other.read_text() == content
    assert list(other.parent.iterdir()) == [other]


def test_what_a_person_has_added_to_a_kernelspec_stays(home: Home) -> None:
    spec = json.loads(spec_of(home).read_text())
    spec["argv"][2:2] = ["--gpus", "0"]
    spec |= {"env": {"A": "alpha"}, "display_name": "mine", "metadata": {**spec["metadata"], "mine": "alpha"}}
    spec_of(home).write_text(json.dumps(spec))
    kernel = home.json("kernel", "list")["data"]["kernels"][0]
    assert (kernel["python"], kernel["problem"]) == (sys.executable, "")
    home.run("rename", "alpha", "run", check=True)
    spec["argv"][4] = spec["metadata"]["taoprof"]["profile"] = "run"
    assert json.loads(spec_of(home, "taoprof-run").read_text()) == spec
    home.run("rename", "run", "alpha", check=True)
    spec = json.loads(spec_of(home).read_text())
    assert spec["argv"][1:5] == ["run", "--gpus", "0", "alpha"]
    spec_of(home).write_text(json.dumps({**spec, "argv": ["/old/taoprof", *spec["argv"][1:]]}))
    assert home.json("kernel", "list")["data"]["kernels"][0]["problem"] == "no such taoprof"
    (home.root / "taoprof").write_text("#!/bin/sh\n")
    (home.root / "taoprof").chmod(0o755)
    spec_of(home).write_text(json.dumps({**spec, "argv": ["nice", "taoprof", *spec["argv"][1:]]}))
    with_path = {"PATH": f"{home.root}:/usr/bin:/bin"}
    done = call(home, "--json", "kernel", "list", environ=with_path)
    assert done.envelope["data"]["kernels"][0]["problem"] == "", "programs are found by PATH, as Jupyter does"
    spec_of(home).write_text(json.dumps({**spec, "argv": 1}))
    kernel = home.json("kernel", "list")["data"]["kernels"][0]
    assert (kernel["python"], kernel["problem"]) == ("", "no such Python"), "listed, so that it can be removed"
    home.run("kernel", "remove", "alpha", check=True)


def test_a_program_that_a_person_has_put_before_taoprof_stays(home: Home) -> None:
    for wrapper in ("/usr/bin/nice -n 10", "/usr/bin/env --", "/opt/conda/bin/conda run -n alpha"):
        before = wrapper.split()
        spec = json.loads(spec_of(home).read_text())
        at = spec["argv"].index(home.taoprof)
        spec["argv"] = [*before, *spec["argv"][at:]]
        spec_of(home).write_text(json.dumps(spec))
        kernel = home.json("kernel", "list")["data"]["kernels"][0]
        assert (kernel["python"], kernel["problem"]) == (sys.executable, "")
        home.run("rename", "alpha", "beta", check=True)
        spec["argv"][len(before) + 2] = "beta"
        assert json.loads(spec_of(home, "taoprof-beta").read_text())["argv"] == spec["argv"]
        home.run("undo", check=True)


def test_a_refused_rename_or_removal_changes_no_kernel(home: Home) -> None:
    """Not even if the kernel's profile is missing: its file may come back."""
    home.profile("beta")
    file = home.profiles / "alpha.toml"
    away = file.rename(home.root / "alpha.toml")
    for words in (["rename", "alpha", "beta"], ["remove", "alpha"]):
        assert home.run(*words).returncode == 4
        kernels = home.json("kernel", "list")["data"]["kernels"]
        assert [(kernel["profile"], kernel["problem"]) for kernel in kernels] == [("alpha", "no such profile")]
    away.rename(file)
    home.run("remove", "alpha", check=True)
    assert home.run("remove", "alpha").returncode == 4
    home.run("undo", check=True)
    assert spec_of(home).exists(), "the second removal was refused, and forgets nothing"


def test_kernels_are_found_where_jupyter_finds_them_and_once(home: Home, tmp_path: Path) -> None:
    share = tmp_path / "opt/share/jupyter"
    install(home, "alpha", "--prefix", str(tmp_path / "opt"))
    link = tmp_path / "venv/share/jupyter"
    link.parent.mkdir(parents=True)
    link.symlink_to(share)
    home.environ |= {"JUPYTER_PATH": f"/nowhere:{share}", "VIRTUAL_ENV": str(tmp_path / "venv")}
    expected = [str(spec_of(home).parent), str(share / "kernels/taoprof-alpha")]
    assert [kernel["path"] for kernel in home.json("kernel", "list")["data"]["kernels"]] == expected
    assert home.run("rename", "alpha", "beta", check=True).stderr.count("is now 'TAO: beta'") == 2


def test_a_program_that_is_no_python_is_not_one_without_ipykernel(home: Home) -> None:
    """Nothing can be installed for it."""
    program = home.root / "python"
    program.write_text("#!/bin/sh\nyes\n")
    program.chmod(0o755)
    done = home.run("kernel", "install", "alpha", "--python", str(program))
    assert done.returncode == 2
    assert f"'{program}' cannot run a kernel: its output exceeds" in done.stderr
    assert "pip" not in done.stderr


@pytest.mark.parametrize(
    ("kind", "command"),
    [
        ("pip", "{python} -m pip install ipykernel"),
        ("system", "python3 -m venv ~/tao-env && . ~/tao-env/bin/activate && pip install ipykernel"),
        ("uv", "uv pip install --python {python} ipykernel"),
    ],
)
def test_the_command_that_installs_ipykernel_fits_the_environment(home: Home, kind: str, command: str) -> None:
    """The system's own Python refuses pip, and an environment of uv has none."""
    program = write_program(home.root / "python", f"echo none {kind}")
    done = home.run("kernel", "install", "--python", str(program), "alpha")
    assert done.returncode == 2
    assert done.stderr.splitlines()[1] == f"hint: to install it: {command.format(python=program)}"


def test_a_missing_notebook_is_told_before_a_missing_kernel(home: Home) -> None:
    home.environ["VIRTUAL_ENV"] = "/no/environment"
    done = home.run("import", "detectnet.ipynb", "--kernel")
    assert done.stderr.splitlines()[0] == "taoprof: error: there is no file 'detectnet.ipynb'"


def test_import_sets_the_kernel_of_a_notebook_whose_text_is_not_all_valid(home: Home) -> None:
    """A cell's output may have half of a surrogate pair, as JSON has it: escaped."""
    notebook = home.root / "project/detectnet_v2.ipynb"
    content = json.loads((ROOT / "docs/examples/detectnet_v2.ipynb").read_text())
    content["cells"][0]["source"] = ["é \ud800"]
    notebook.write_text(json.dumps(content).replace("\\u00e9", "é"), encoding="utf-8")
    settings = ("--set", f"LOCAL_PROJECT_DIR={home.root}/project")
    home.run("import", str(notebook), *settings, "--kernel", "--in-place", check=True)
    assert json.loads(notebook.read_text(encoding="utf-8"))["cells"] == content["cells"]
    notebook.write_text(json.dumps({**content, "metadata": []}))
    done = home.run("import", str(notebook), *settings, "--kernel", "--in-place", "--name", "other")
    assert done.returncode == 3
    assert f"profile 'other' and its kernel were created, but '{notebook}' is not a notebook: it has no" in done.stderr


def test_import_installs_the_kernel_and_sets_it_only_if_asked(home: Home) -> None:
    notebook = home.root / "project/detectnet_v2.ipynb"
    notebook.write_bytes((ROOT / "docs/examples/detectnet_v2.ipynb").read_bytes())
    notebook.chmod(0o640)
    before = notebook.read_bytes()
    words = ("import", str(notebook), "--set", f"LOCAL_PROJECT_DIR={home.root}/project", "--kernel")
    for more in (["--in-place", "--name", "x"], ["--kernel"]):
        assert home.run("import", str(home.root / "project"), *more).returncode == 2
    done = home.run(*words, check=True)
    assert (
        "kernel 'TAO: detectnet_v2' installed in ~/.local/share/jupyter/kernels/taoprof-detectnet_v2\n" in done.stdout
    )
    assert "choose the kernel 'TAO: detectnet_v2' in the notebook" in done.stderr
    assert "%taoprof use" not in done.stderr
    assert notebook.read_bytes() == before
    for backup in (f"{notebook}.bak", None):
        data = home.json(*words, "--in-place", "--force")["data"]
        assert (data["kernel"]["kernel"], data["backup"]) == ("taoprof-detectnet_v2", backup)
    assert Path(f"{notebook}.bak").read_bytes() == before
    spec = {"display_name": "TAO: detectnet_v2", "language": "python", "name": "taoprof-detectnet_v2"}
    text = notebook.read_text()
    old = json.loads(before)
    assert json.loads(text) == {**old, "metadata": {**old["metadata"], "kernelspec": spec}}
    assert len(set(text.splitlines()) ^ set(before.decode().splitlines())) <= 6, "the rest of the text is as it was"
    assert stat.S_IMODE(notebook.stat().st_mode) == stat.S_IMODE(Path(f"{notebook}.bak").stat().st_mode) == 0o640


TILE = '.jp-LauncherCard[title="TAO: alpha"]'
IMAGE = f"() => document.querySelector('{TILE} img')?.naturalWidth > 0"
HAS_KERNEL = f"([path, name]) => {{ {PANEL} return panel.sessionContext.session?.kernel?.name === name; }}"
PICK = "() => { jupyterapp.commands.execute('notebook:change-kernel'); }"


def test_jupyterlab_has_it_in_the_launcher_and_in_the_list_of_kernels(home: Home) -> None:
    notebook = write_notebook(home.root / "train.ipynb", "import os; print(os.environ['SPECS_DIR'])", "%taoprof status")
    specs = "/workspace/tao-experiments/detectnet_v2/specs"
    with JupyterLabServer(home) as lab, Browser(lab) as browser:
        page = browser.page
        page.wait_for_function(IMAGE)
        page.locator(TILE).first.click()
        until(lambda: [hold["reason"] for hold in home.holds()] == ["Untitled.ipynb"], "its kernel has started")
        train = browser.open(notebook.name)
        page.evaluate(PICK)
        page.locator(".jp-Dialog select").select_option(label="TAO: alpha")
        page.locator(".jp-Dialog button.jp-mod-accept").click()
        page.wait_for_function(HAS_KERNEL, arg=[notebook.name, "taoprof-alpha"])
        train.idle()
        train.run(0)
        train.until_shown(0, specs)
        train.run(1)
        train.until_shown(1, "this notebook uses profile 'alpha'")
        assert browser.errors == []
        os.kill(lab.process.pid, signal.SIGKILL)
        until(lambda: home.holds() == [], "without JupyterLab the kernels end")
