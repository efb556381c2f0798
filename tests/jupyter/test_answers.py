"""What notebooks show when something has changed, and the secrets that they must never show."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.home import Home
from tests.support.kernels import Kernel, load, load_and_use, read_environ

pytestmark = pytest.mark.jupyter

SECRET = "nvapi-0123456789"
PROFILE = """\
schema = 1
layout = "custom"
[variables]
MINE = "${{env:NGC_API_KEY}}"
DATA = "${{env:DATA}}/kitti"
[[mounts]]
source = "{root}"
destination = "/workspace"
[container.env]
LOGIN = "${{env:NGC_API_KEY}}"
"""


@pytest.fixture
def home(home: Home) -> Home:
    home.environ |= {"NGC_API_KEY": SECRET, "DATA": "/data"}
    home.profile("alpha", PROFILE.format(root=home.root))
    home.profile("beta", PROFILE.format(root=home.root / "projects"))
    return home


def test_a_variable_that_refers_to_a_secret_is_one(home: Home) -> None:
    """Whatever it is called: its value and the one that a cell sets it to are not shown, nor another profile's."""
    with Kernel(home) as kernel:
        load_and_use(kernel)
        other = "'other-' + os.environ['NGC_API_KEY']"
        outputs = [kernel.run(f"import os; os.environ['MINE'] = {other}").output, kernel.run("%taoprof status").output]
        outputs += [kernel.run(f"!taoprof use {name}").output for name in ("beta", "alpha", "beta")]
        envs = f"[{{'variable': 'LOGIN', 'value': {other}}}]"
        outputs.append(
            kernel.run(
                f"import json; json.dump({{'Mounts': [], 'Envs': {envs}}}, open('.tao_mounts.json', 'w'))"
            ).output
        )
        outputs += [kernel.run(f"%taoprof {word}").output for word in ("show", "check", "status", "list")]
        assert "MINE" in outputs[0]
        assert "LOGIN" in outputs[5]
        assert all(SECRET not in text for text in outputs)


def test_status_reports_what_has_changed(home: Home) -> None:
    with Kernel(home) as kernel:
        load_and_use(kernel)
        # A profile refers to what was there before: DATA is /data/kitti by now, and does not become /data/kitti/kitti.
        assert "warning" not in kernel.run("%taoprof status").output
        assert "kitti/kitti" not in kernel.run("%taoprof show").output
        kernel.run("%taoprof use alpha")
        there = read_environ(kernel)
        assert there["DATA"] == "/data/kitti"
        private = Path(there["LAUNCHER_MOUNTS"])
        text = private.read_text()
        private.write_text(text.replace(str(home.root), "/elsewhere"))
        assert "another mapping" in kernel.run("%taoprof status").output
        private.unlink()
        assert "does not exist" in kernel.run("%taoprof status").output
        private.mkdir()
        assert "is a folder" in kernel.run("%taoprof status").output
        private.rmdir()
        private.write_text(text)
        home.run("rename", "alpha", "gamma", check=True)
        assert "there is no profile 'alpha'" in kernel.run("%taoprof status").output
        assert "this notebook uses profile 'alpha'" in kernel.run("%taoprof status").output


def test_status_reports_that_the_shared_file_is_another_profiles_by_now(home: Home) -> None:
    """Somebody released the hold by its id, and switched; this notebook's launches would read that."""
    with Kernel(home) as kernel:
        load_and_use(kernel, "alpha --shared")
        home.run("release", home.holds()[0]["id"], "--yes", check=True)
        home.run("use", "beta", check=True)
        output = kernel.run("%taoprof status").output
        assert "another mapping" in output
        assert "was released" in output
        assert "%taoprof use alpha --shared" in output
        again = kernel.run("import os; os.environ['DATA'] = os.remove('.tao_mounts.json') or 'mine'").text
        assert again.count("%taoprof use alpha --shared") == 2, "the file is gone, and a variable is another"
        kernel.run("%taoprof use alpha --shared")
        assert "warning" not in kernel.run("%taoprof status").output
        assert home.run("current").stdout == "alpha\n"


def test_messages_name_the_notebooks_own_commands(home: Home) -> None:
    home.profile("folder", f'layout = "custom"\n[[mounts]]\nsource = "{home.root}/new"\ndestination = "/d"\n')
    with Kernel(home) as kernel:
        load(kernel)
        refused = kernel.execute("%taoprof use folder").output
        assert " %taoprof use folder --mkdir" in refused
        shown = kernel.run("%taoprof show folder")
        assert "/new (missing) → /d" in "".join(shown.html), "what the drawing says to those who cannot see it"
        assert "no (missing)" in shown.text
        assert "!taoprof new nosuch" in kernel.execute("%taoprof use nosuch").output
        usage = kernel.run("print(get_ipython().find_line_magic('taoprof').__doc__)").text  # what '%taoprof?' shows
        assert all(f"%taoprof {command}" in usage for command in ("use", "show", "status")), usage
        kernel.run("%taoprof use alpha")
        for command, output in (
            ("use", "no profile given"),
            ("edit alpha", "an editor needs"),
            ("shell beta", "a shell"),
        ):
            assert output in kernel.run(f"!taoprof {command}").output, "where nobody can type, nothing waits for it"
        output = kernel.run("!taoprof status; taoprof current --short; taoprof use beta").output
        assert "'alpha', with a mounts file of its own" in output
        assert "\nalpha\r\n" in output
        assert "still uses profile 'alpha'" in output
        assert "unset LAUNCHER_MOUNTS" not in output
        assert "changed by a cell" not in kernel.run("import os; os.environ['DATA']\n%taoprof env").output
        kernel.run("os.environ['DATA'] = '/mine'")
        assert "'/data/kitti' (changed by a cell)" in kernel.run("%taoprof env").output
        for line, offered in (("", "release"), ("use ", "beta"), ("use beta --m", "--mkdir"), ("sho", "show")):
            code = f"print(get_ipython().complete('', '%taoprof {line}', {len('%taoprof ' + line)})[1])"
            assert repr(offered) in kernel.run(code).text
        seal = Path(home.context.seal)
        seal.parent.mkdir()
        seal.touch()
        sealed = "raise PermissionError(13, 'denied', '.tao_mounts.json')"
        assert "the guard protects it" in kernel.execute(sealed).output
