"""What a person is asked when a notebook is imported, and folders as they are found in the wild."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.commands import Terminal, one_clear_error
from tests.support.home import Home
from tests.support.notebooks import notebook as to_notebook

WRITES = """\
import json, os
os.environ["LOCAL_PROJECT_DIR"] = {source!r}
mapping = {{"Mounts": [{{"source": os.environ["LOCAL_PROJECT_DIR"], "destination": {destination!r}}}]}}
json.dump(mapping, open(os.path.expanduser("~/.tao_mounts.json"), "w"))
"""


def notebook(
    path: Path, source: str = "/data", destination: object = "/workspace", *, then: Sequence[str] = ()
) -> Path:
    """Write a notebook whose first cell writes the mounts file; ``then`` are the sources of further cells."""
    return notebook_of(path, [WRITES.format(source=source, destination=destination), *then])


def notebook_of(path: Path, sources: list[str]) -> Path:
    """Write a notebook with these cells."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(to_notebook(sources))
    return path


def names(home: Home) -> list[str]:
    return [profile["name"] for profile in home.json("list")["data"]["profiles"]]


@pytest.mark.parametrize(
    ("first", "second", "status", "saved"),
    [("~/data\n", "y\n", 0, True), ("~/data\n", "maybe\nyes\n", 0, True), ("~/data\n", "maybe\nno\n", 0, False),
     ("~/data\n", "maybe\n\x04", 0, False), ("~/data\n", "\n", 0, True), ("~/data\n", "n\n", 0, False),
     ("~/data\n", "\x04", 0, False), ("~/data\n", "\x03", -2, False), ("\x04", None, 2, False),
     ("\x03", None, -2, False), ("\n\n\n", None, 2, False)],
)  # fmt: skip
def test_the_answer_decides(home: Home, first: str, second: str | None, status: int, saved: bool) -> None:
    notebook(home.root / "a.ipynb", "YOUR_LOCAL_PROJECT_DIR")
    with Terminal([home.taoprof, "import", "a.ipynb"], environ=home.environ, cwd=home.root) as terminal:
        terminal.wait_for("LOCAL_PROJECT_DIR, the project folder on this machine: ")
        terminal.send(first)
        if second is not None:
            terminal.wait_for("[Y/n] ")
            terminal.send(second)
        ended, output = terminal.finish()
    assert (ended, b"Traceback" in output) == (status, False), output
    assert names(home) == (["a"] if saved else [])


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [('"~/data"', "data"), ("$HOME/data", "data"), ("${HOME}/da\t", "data"), ("~/da\t", "data"),
     ("data", "project/data"), ("", "project"), ("<dir>\n/dev/null\n~/data", "data"),
     (r"~/my\ data", "my data"), ("~/my data", "my data"), (r"~/back\slash", r"back\slash"),
     ('"~/da\t"', "data"), ("/\n~/data", "data"), ("FIXME\n$NOSUCH/x\n/dev/null/x", None),
     ("~nobody9/x\n~/data", "data"), ("~/todo", "todo")],
)  # fmt: skip
def test_an_answer_is_read_as_a_shell_does_and_asked_again_if_it_cannot_be(
    home: Home, typed: str, wanted: str | None
) -> None:
    for name in ("data", "project", "todo", "my data", r"back\slash"):
        (home.root / name).mkdir()
    notebook(home.root / "project/a.ipynb", "FIXME")
    words = [home.taoprof, "import", "a.ipynb"]
    with Terminal(words, environ=home.environ, cwd=home.root / "project") as terminal:
        for line in typed.split("\n"):
            terminal.wait_for("LOCAL_PROJECT_DIR, the project folder on this machine [~/project]: ")
            terminal.send(f"{line}\n")
        if wanted is not None:
            terminal.wait_for("[Y/n] ")
            terminal.send("\n")
        assert terminal.finish()[0] == (0 if wanted else 2)
    if wanted:
        shown = home.json("show", "a")["data"]["mounts"]
        assert [mount["source"] for mount in shown] == [str(home.root / wanted)]


def test_a_mistyped_variable_is_refused_before_anything_is_asked(home: Home) -> None:
    notebook(home.root / "a.ipynb", "FIXME")
    words = [home.taoprof, "import", "a.ipynb", "--set", "PROJECT=~/x"]
    with Terminal(words, environ=home.environ, cwd=home.root) as terminal:
        status, output = terminal.finish()
    assert status == 2
    assert " no variable 'PROJECT' in 'a.ipynb'" in output.decode()
    assert "needs one value" not in output.decode()
    (home.root / "a.py").write_text("import os\nos.listdir()\n")
    error = home.run("import", "a.py", "--set", "PROJECT=~/x").stderr
    assert "no variable 'PROJECT' in 'a.py'; variables: none" in error, "__file__ is not one that can be given"


def test_a_folder_is_asked_about_once(home: Home) -> None:
    for name in ("a", "b"):
        notebook(home.root / f"project/{name}.ipynb", "FIXME")
    home.profile("known")  # for its notebook nothing is asked
    notebook_of(home.root / "project/known.ipynb", ["%env HOST_DATA_DIR=FIXME", MOUNT])
    with Terminal([home.taoprof, "import", "project"], environ=home.environ, cwd=home.root) as terminal:
        terminal.wait_for("project/a.ipynb needs one value from you")
        terminal.wait_for("LOCAL_PROJECT_DIR, the project folder on this machine [~/project]: ")
        terminal.send("\n")
        terminal.wait_for("b.ipynb      b ")
        terminal.wait_for("known.ipynb  -        -       profile 'known' already exists")
        terminal.wait_for("Save 2 profiles? [Y/n] ")
        terminal.send("n\n")
        assert terminal.finish()[0] == 0
    assert names(home) == ["known"]


def test_a_hint_can_be_pasted(home: Home) -> None:
    """Whatever a stranger has called the file."""
    notebook(home.root / "x; touch y.ipynb", "FIXME")
    assert "import 'x; touch y.ipynb' --set" in home.run("import", "x; touch y.ipynb").stderr
    notebook(home.root / "数; x.ipynb", "FIXME")
    with (home.root / "数; x.ipynb").open() as piped:
        done = home.run("import", "-", "--name", "a", stdin=piped)
    assert "taoprof import - --name a --set" in done.stderr
    one_clear_error(home.run("import", "x; touch y.ipynb", "--set", "LOCAL_PROJECT_DIR="), 2)


def test_each_file_of_a_folder_is_imported_independently(home: Home) -> None:
    folder = home.root / "nb"
    for path in ("good.ipynb", "数据.ipynb", "p/x/same.ipynb", "q/x/same.ipynb", "My Dir/train.ipynb", "b/train.ipynb"):
        notebook(folder / path, f"/data/{path.encode().hex()}")
    os.mkfifo(folder / "pipe.ipynb")
    (folder / "loop.ipynb").symlink_to("loop.ipynb")
    (folder / "around").symlink_to(".")
    home.profile("train")
    done = home.run("import", "nb", "--force")
    assert (done.returncode, "Traceback" in done.stderr) == (3, False), done.stderr
    assert names(home) == ["My-Dir-train", "b-train", "good", "p-x-same", "q-x-same", "train"]
    (unnamed,) = [line for line in done.stdout.splitlines() if "import this file alone with --name" in line]
    assert unnamed.startswith("数据.ipynb")


def test_files_of_one_name_get_different_profiles(home: Home) -> None:
    """By their folders, as many as it takes, or by their ending: each can be used."""
    files = {
        "nb/a/x.ipynb": "a-x",
        "nb/b/x.ipynb": "b-x",
        "nb/one/c/y.ipynb": "one-c-y",
        "nb/two/c/y.ipynb": "two-c-y",
        "nb/z.ipynb": "z-ipynb",
        "nb/z.py": "z-py",
        "nb/w.ipynb": "w",
    }
    for path in files:
        notebook(home.root / path, f"/data/{files[path]}")
    (home.root / "nb/z.py").write_text(WRITES.format(source="/data/z-py", destination="/workspace"))
    done = home.json("import", "nb")
    named = {f"nb/{file['file']}": file["name"] for file in done["data"]["files"]}
    assert (done["ok"], named) == (True, files)
    for name in files.values():
        assert home.json("show", name)["data"]["mounts"][0]["source"] == f"/data/{name}"
    assert "its folder or ending is in the profile's name" in str(done["messages"])


def test_folders_a_thousand_deep_and_one_that_cannot_be_read(home: Home) -> None:
    notebook(home.root / "nb/good.ipynb")
    here = os.open(home.root / "nb", os.O_RDONLY)
    for _ in range(1100):  # as one path, mkdir would refuse the last of them
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    closed = home.root / "nb/closed"
    closed.mkdir(mode=0)
    done = home.run("import", "nb")
    assert done.returncode == 0, done.stderr
    assert names(home) == ["good"]
    if os.getuid():
        assert "cannot read nb/closed: permission denied" in done.stderr
    subprocess.run(["rm", "-rf", home.root / "nb/d"], check=True)  # too deep for what pytest clears up with
    closed.chmod(0o700)


def test_a_python_script_is_one_cell(home: Home) -> None:
    (home.root / "mount.py").write_text(
        "import json, os\nif __name__ == '__main__':\n"
        "    with open(os.path.expanduser('~/.tao_mounts.json'), 'w') as f:\n"
        "        json.dump({'Mounts': [{'source': os.getcwd() + '/data', 'destination': '/data'}]}, f)\n"
    )
    done = home.run("import", "mount.py")
    assert done.returncode == 0, done.stderr
    mounts = home.json("show", "mount")["data"]["mounts"]
    assert [(mount["source"], mount["destination"]) for mount in mounts] == [(str(home.root / "data"), "/data")]


RUN_ONCE = "hint: run it once, then: taoprof import --name NAME"
OTHER = "is not a notebook, a Python script, a mounts file or a profile"
NO_CALL = "import pandas as pd\nx = pd.read_csv('a')\nfor i in x:\n    break\n!python3 -m pip install awscli"
COLAB = ["%env TAO_DOCKER_DISABLE=1", "!sh setup.sh", "!tao yolo_v4 train -e $SPECS_DIR/x.txt"]
WITH_LANGUAGE = '{{"cells": [{{"cell_type": "code", "source": "x"}}], "nbformat": 4, "metadata": {}}}'


@pytest.mark.parametrize(
    ("file", "content", "status", "texts"),
    [
        ("x.env", "A=1\n", 2, [OTHER]),
        (".env", "A=b\n", 2, [OTHER]),
        ("spec.yaml", "a: b\n", 2, ["is not a notebook"]),
        ("notes.txt", "hello", 2, ["is not a notebook"]),
        ("p.toml", "[docker]\n", 3, ["layout: missing"]),
        ("profile", "[docker]\n", 3, ["layout: missing"]),
        ("p.toml", "a: b\n", 3, ["profile 'p' is not valid"]),
        ("m.json", "\ufeff{}", 3, ["save it as UTF-8 without a byte order mark"]),
        ("m.json", '{"Mounts": [{"source": "C:/ana", "destination": "/data"}]}', 3,
         ["Mounts[0].source: 'C:/ana' is a Windows path"]),
        ("two.json", '{"Mounts": []}\n{"Mounts": []}', 3, ["hint: the mapping ends before this"]),
        ("bare.json", '{"Mounts": [{"source": /srv/data}]}', 3, ['hint: texts need double quotes: "/srv/data"']),
        ("single.json", "{'Mounts': []}", 3, ["hint: JSON has only straight double quotes"]),
        ("comment.json", '{"Mounts": [] // none\n}', 3, ["hint: JSON has no comments: remove it"]),
        ("a.ipynb", "", 3, ["'a.ipynb' is empty"]),
        ("a.ipynb", "\0\1", 3, ["'a.ipynb' is not a notebook: it is not valid JSON"]),
        ("a.ipynb", '{"a": 1}', 3, ["'a.ipynb' is not a notebook: it has no list of cells"]),
        ("a.ipynb", '{"cells": [{"cell_ty', 3, ["'a.ipynb' is not a notebook: it is not valid JSON"]),
        ("a.ipynb", '{"nbformat": 3, "worksheets": [{"cells": []}]}', 3,
         ["'a.ipynb' is a notebook of an old format (nbformat 3)"]),
        ("a.ipynb", WITH_LANGUAGE.format('{"kernelspec": {"language": "R"}}'), 3,
         ["the notebook is in R, of which nothing is evaluated"]),
        ("a.ipynb", WITH_LANGUAGE.format('{"language_info": {"name": "julia"}}'), 3,
         ["the notebook is in julia, of which nothing is evaluated"]),
        *(("a.ipynb", [WRITES.format(source=source, destination=destination)], 3, [])
          for source, destination in (("/a:b", "/workspace"), ("/a\ud800", "/workspace"), ("/a", 1), ("/a", ["x"]))),
        ("setup.sh", "cat >~/.tao_mounts.json <<END\n{}\nEND\n", 3, [RUN_ONCE]),
        ("m.py", "import json\nm = {'Mounts': []}\nopen('config/mounts.json', 'w').write(json.dumps(m))\n", 3,
         ["hint: line 2 has a mapping: run it once, then import what it wrote: taoprof import FILE\n"]),
        ("mount.py", "nope\nopen('.tao_mounts.json', 'w')\n", 3, ["line 1: the script ends here"]),
        # Running it once would not help: notebooks for Colab, or inside of a container.
        ("a.ipynb", ["%env KEY=x", NO_CALL], 3,
         ["writes no mounts file and starts no TAO image: no line of it names ~/.tao_mounts.json\n",
          "hint: to create a profile for a project folder: taoprof new NAME"]),
        ("a.ipynb", COLAB, 3, ["sets TAO_DOCKER_DISABLE=1: its tasks run without a container and need no mounts file",
                               "hint: to train in containers on this machine: taoprof new NAME"]),
        ("a.ipynb", ["from ourenv import setup\nsetup()"], 3,
         ["cell 1, line 2: a call is not followed ('ourenv' is not followed)", RUN_ONCE]),
        ("a.ipynb", ["!python3 mount.py"], 3, ["cell 1, line 1: '!python3 mount.py' is not run", RUN_ONCE]),
        ("a.ipynb", ["%%writefile mount.py\nx = 1", "%run mount.py"], 3,
         ["cell 2, line 1: may set variables that are not known", RUN_ONCE]),
        ("a.ipynb", ["class K:\n    def go(self): open('.tao_mounts.json', 'w')\nK().go()"], 3,
         ["'class K'", RUN_ONCE]),
        ("a.ipynb", ["import os\nif os.path.exists('/x'):\n    open(os.path.expanduser('~/.tao_mounts.json'), 'w')"], 3,
         ["'if'", RUN_ONCE]),
        ("a.ipynb", ["open('/root/.tao_mounts.json', 'a').write('{}')"], 3,
         ["mode 'a' adds to what the file holds", RUN_ONCE]),
        ("a.ipynb", ["import json\njson.dump({}, open('/root/.tao_mounts.json', 'a'))"], 3,
         ["mode 'a' adds to what the file holds", RUN_ONCE]),
        ("a.ipynb", ["import os\nif os.environ.get('X'):\n    open('.tao_mounts.json', 'w').write('{}')"], 3,
         ["cell 1, line 3: names a", RUN_ONCE]),
    ],
)  # fmt: skip
def test_what_cannot_be_imported_is_one_clear_error(
    home: Home, file: str, content: str | list[str], status: int, texts: list[str]
) -> None:
    if isinstance(content, str):
        (home.root / file).write_text(content)
    else:
        notebook_of(home.root / file, content)
    done = home.run("import", file)
    one_clear_error(done, status, *texts)
    assert "pandas" not in done.stderr
    assert "edit" not in done.stderr, "there is no profile to be edited"
    assert names(home) == []


FIRST = WRITES.format(source="/data", destination="/workspace")
LISTS = "import os\ndef show(folder):\n    for name in os.listdir(folder):\n        print(name)\nshow('x')"


@pytest.mark.parametrize(
    ("cells", "texts"),
    [
        ([FIRST, "x = 1\nwhile x < 3:\n    x += 1\nnope", "%run setup.py"],
         ["cell 2, line 2: 'while'", "cell 2, line 4: the cell ends here",
          "cell 3, line 1: may set variables that are not known: '%run' is not followed"]),
        ([FIRST, "import glob\nx = glob.glob('x')[0]\n%env A={x}\n%env B={x}"],
         ["A, B are left out: cell 2, line 1: 'glob' is not followed"]),
        ([FIRST.replace('os.path.expanduser("~/.tao_mounts.json")', '".tao_mounts.json"')],
         ["the mounts file is written to '{home}/nb/.tao_mounts.json'; tao reads only"]),
        ([FIRST, LISTS], []),
    ],
)  # fmt: skip
def test_what_is_not_followed_is_named_also_when_the_import_succeeds(
    home: Home, cells: list[str], texts: list[str]
) -> None:
    """Each once; the loop of a function that shows pictures needs no note."""
    notebook_of(home.root / "nb/a.ipynb", cells)
    done = home.run("import", "nb/a.ipynb", check=True)
    for text in texts:
        assert text.replace("{home}", str(home.root)) in done.stderr
    assert texts or "not evaluated" not in done.stderr


@pytest.mark.parametrize("unfollowed", ["%run setup.py", "exec(open('x').read())", "%dotenv", "from x import *"])
def test_what_is_set_after_code_that_is_not_followed_is_known(home: Home, unfollowed: str) -> None:
    writes = "json.dump({'Mounts': [{'source': os.environ['DATA'], 'destination': '/data'}]}, open(M, 'w'))"
    last = f"%env DATA={home.root}/data\nM = os.path.expanduser('~/.tao_mounts.json')\n{writes}"
    notebook_of(home.root / "a.ipynb", ["import json, os\n" + unfollowed, last])
    done = home.run("import", "a.ipynb")
    assert (done.returncode, "may set variables that are not known" in done.stderr) == (0, True), done.stderr
    assert [mount["source"] for mount in home.json("show", "a")["data"]["mounts"]] == [f"{home.root}/data"]


def test_a_folder_whose_files_may_write_a_mounts_file_is_told_so(home: Home) -> None:
    (home.root / "n").mkdir()
    notebook_of(home.root / "n/a.ipynb", ["!python3 mount.py"])
    done = home.run("import", "n")
    assert (done.returncode, "hint: run it once" in done.stderr) == (3, True)
    assert "a.ipynb: cell 1, line 1: '!python3 mount.py' is not run" in done.stderr


def test_the_home_of_another_user_stays_one(home: Home) -> None:
    notebook(home.root / "a.ipynb", "~root/data")
    assert home.run("import", "a.ipynb").returncode == 0
    assert home.json("show", "a")["data"]["mounts"][0]["source"] == os.path.expanduser("~root/data")


MOUNT = """\
import json, os
mapping = {"Mounts": [{"source": os.environ["HOST_DATA_DIR"], "destination": "/data"}]}
json.dump(mapping, open(os.path.expanduser("~/.tao_mounts.json"), "w"))
"""


@pytest.mark.parametrize(
    ("cell", "reason", "value"),
    [
        ("%env HOST_DATA_DIR=/srv/$USER/tao", "nothing expands $USER", "/srv/ana/tao"),
        ('import os\nos.environ["HOST_DATA_DIR"] = "/srv/${NOPE}/tao"', "nothing expands ${NOPE}", "…"),
        ('import os\nroot = "/srv/$NOPE"\nos.environ["HOST_DATA_DIR"] = root + "/x"', "nothing expands $NOPE", "…"),
        ("%env HOST_DATA_DIR=/srv/data # the data", "IPython keeps the comment in the value", "/srv/data"),
        ("%env HOST_DATA_DIR=/srv/data  #data", "IPython keeps the comment in the value", "/srv/data"),
        ("%env HOST_DATA_DIR=$HOME/tao", "nothing expands $HOME", "{home}/tao"),
        ('%env HOST_DATA_DIR="/srv/data"', "the quotes are a part of the value", "/srv/data"),
        ('import os\nos.environ["HOST_DATA_DIR"] = r"C:\\Users\\ana"', "a Windows path", "…"),
        ("%env HOST_DATA_DIR=~no-such-user/tao", "there is no user 'no-such-user'", "…"),
    ],
)
def test_a_value_that_is_not_a_path_is_asked_for(home: Home, cell: str, reason: str, value: str) -> None:
    notebook_of(home.root / "a.ipynb", [cell, MOUNT])
    done = home.run("import", "a.ipynb", environ={"USER": "ana"})
    one_clear_error(done, 2)
    assert reason in done.stderr
    assert f"={value.replace('{home}', str(home.root))}\n" in done.stderr
    name = done.stderr.partition("--set ")[2].partition("=")[0]
    assert home.run("import", "a.ipynb", "--set", f"{name}={home.root}/mine").returncode == 0


@pytest.mark.parametrize("value", ["/path/to/…", "FIXME", "<your folder>", "…", "~/...", "$HOME/path/to/kitti"])
def test_a_placeholder_is_no_value(home: Home, value: str) -> None:
    notebook_of(home.root / "a.ipynb", ["%env HOST_DATA_DIR=FIXME", "%env KEY=FIXME", MOUNT])
    for words in (
        ("import", "a.ipynb", "--set", f"HOST_DATA_DIR={value}", "--set", "KEY=x"),
        ("import", "a.ipynb", "--set", "HOST_DATA_DIR=/tmp", "--set", f"KEY={value.replace('~/', '')}"),
        ("new", "p", "--project-dir", value),
    ):
        one_clear_error(home.run(*words), 2, "is a placeholder")
    (home.root / "path/to/kitti").mkdir(parents=True)
    home.run("new", "p", "--project-dir", "$HOME/path/to/kitti", check=True)


PLACEHOLDER = """\
schema = 1
layout = "custom"
description = "TODO: more folders"
mounts = [{source = "/path/to/kitti", destination = "/data"}]
"""


@pytest.mark.parametrize(
    ("command", "key"),
    [
        ("set own HOST_DATA_DIR=/path/to/data", "variables.HOST_DATA_DIR: '/path/to'"),
        ("set own KEY=YOUR_KEY", "variables.KEY: 'YOUR_'"),
        ("set own X=${Y}/FIXME Y=/data", "variables.X: 'FIXME'"),
        ("set own container.env.A=<token>", "container.env.A: '<token>'"),
        ("set own slurm.account=YOUR_ACCOUNT", "slurm.account: 'YOUR_'"),
        ("new p --image nvcr.io/YOUR_ORG/x:1", "image: 'YOUR_'"),
        ("edit own", "mounts[0].source: '/path/to'"),
        ("import m.json", "mounts[0].source: '/path/to'"),
        ("import --name mapping", "mounts[0].source: '/path/to'"),
        ("import p.toml", "mounts[0].source: '/path/to'"),
        ("trust --yes --allow /path", "mounts[0].source: '/path/to'"),
    ],
)
def test_no_command_stores_a_placeholder(home: Home, command: str, key: str) -> None:
    home.profile("own", PLACEHOLDER.replace("/path/to/kitti", "/kitti"))
    for path in ("p.toml", ".taoprof.toml"):
        (home.root / path).write_text(PLACEHOLDER)
    for path in ("m.json", ".tao_mounts.json"):
        (home.root / path).write_text('{"Mounts": [{"source": "/path/to/kitti", "destination": "/data"}]}')
    editor = "sed -i s,/kitti,/path/to/kitti,"
    one_clear_error(home.run(*command.split(), environ={"EDITOR": editor}), 3, f"  {key} is a placeholder\n")
    assert names(home) == ["own"]
    assert home.json("show", "own")["data"]["mounts"][0]["source"] == "/kitti"


def test_an_editor_that_does_not_exist(home: Home) -> None:
    home.profile("own")
    one_clear_error(
        home.run("edit", "own", environ={"EDITOR": "nano-not-here"}),
        1,
        "cannot start the editor 'nano-not-here': ",
        "hint: to use another editor: EDITOR=nano taoprof edit own\n",
    )


def test_what_a_profile_has_already_and_a_folder_that_exists_are_no_new_placeholder(home: Home) -> None:
    home.profile("own", PLACEHOLDER)
    (home.root / "TODO").mkdir()
    home.run("set", "own", "A=1", f"DATA={home.root}/TODO", "on_end=echo TODO", check=True)
    home.run("set", "own", "NEW=/data/bring_your_own/new", "container.env.D=/train-your-own", check=True)
    assert "variables.DATA" not in home.run("check", "own").stdout
    assert "variables.NEW" not in home.run("check", "own").stdout
    home.profile("two", PLACEHOLDER.replace("[{", '[{source = "/first", destination = "/first"}, {'))
    editor = """sed -i 's,{source = "/first"[^}]*}\\, ,,'"""
    assert home.run("edit", "two", environ={"EDITOR": editor}, check=True).stdout == "profile 'two' changed\n"


@pytest.mark.parametrize("broken", ["x = " + "[" * 3000 + "]" * 3000, ".".join("a" * 3000) + " = 1", 'x = "ä'])
def test_a_profile_that_cannot_be_parsed_is_replaced(home: Home, broken: str) -> None:
    path = home.profile("own", broken)
    (home.root / "good.toml").write_text('schema = 1\nlayout = "custom"\n')
    for words in (("edit", "own"), ("import", "good.toml", "--name", "own", "--force")):
        path.write_text(broken)
        home.run(*words, environ={"EDITOR": f"cp {home.root}/good.toml"}, check=True)
        assert path.read_text() == 'schema = 1\nlayout = "custom"\n'


def test_a_secret_that_is_a_placeholder_is_not_shown(home: Home) -> None:
    """It may be the key itself."""
    home.profile("own", 'schema = 1\nlayout = "custom"\n[variables]\nKEY = "YOUR_KEY"\n')
    done = home.run("check", "own")
    assert "warning: variables.KEY: it still contains 'YOUR_' [placeholder]\n" in done.stdout
    assert "YOUR_KEY" not in done.stdout + done.stderr


def test_a_placeholder_is_reported_once_where_it_is_written(home: Home) -> None:
    folder = "schema = 1\nlayout = 'host'\nproject_dir = '/path/to/kitti'\n"
    variables = """\
schema = 1
layout = "custom"
mounts = [{source = "${DATA}", destination = "/data"}, {source = "${PROJECT}", destination = "/p"}]
[variables]
DATA = "${PROJECT}/data"
PROJECT = "/path/to/kitti"
"""
    for name, text, key in (("a", folder, "project_dir"), ("b", variables, "variables.PROJECT")):
        home.profile(name, text)
        findings = home.json("check", name)["data"]["findings"]
        assert [(finding["where"], finding["hint"]) for finding in findings if finding["id"] == "placeholder"] == [
            (key, f"taoprof set {name} {key.removeprefix('variables.')}=…")
        ]
        for command in (["use", name], ["shell", name]):
            error = home.json(*command)["error"]
            assert error["problems"] == [f"{key}: '/path/to/kitti' still contains '/path/to'"]
    setting = "%env PROJECT=/path/to/kitti\nimport os\nos.environ['DATA'] = os.environ['PROJECT'] + '/data'"
    notebook_of(home.root / "c.ipynb", [setting, WRITES.format(source="/tmp", destination="/data")])
    done = home.run("import", "c.ipynb")
    assert "PROJECT, DATA are left out: cell 1, line 1: a placeholder, '/path/to/kitti'\n" in done.stderr


@pytest.mark.parametrize("source", ["{home}/$USER/tao", "{home}/data # the data"])
def test_no_folder_is_offered_to_be_created_of_a_text_that_is_not_a_path(home: Home, source: str) -> None:
    folder = source.format(home=home.root)
    (home.root / "m.json").write_text(json.dumps({"Mounts": [{"source": folder, "destination": "/data"}]}))
    done = home.run("import", "m.json")
    assert (done.returncode, "mkdir" in done.stderr, "is not a folder's path" in done.stderr) == (0, False, True)


def test_a_colleagues_profile_says_what_it_still_needs(home: Home) -> None:
    text = 'schema = 1\nlayout = "custom"\nmounts = [{ source = "${env:SCRATCH}/x", destination = "/x" }]\n'
    (home.root / "p.toml").write_text(text + '[variables]\nA = "${env:NOPE}"\n')
    done = home.run("import", "p.toml")
    assert done.returncode == 0
    assert "still needed for profile 'p'" in done.stderr
    assert "'SCRATCH' is not set" in done.stderr
    assert "'NOPE' is not set" in done.stderr
    done = home.run("show", "p")
    assert (done.returncode, "  A  $NOPE\n" in done.stdout, "  $SCRATCH/x  →  /x  (missing)" in done.stdout) == (
        0,
        True,
        True,
    )
    assert done.stderr == "taoprof: not set here: SCRATCH, NOPE. To set it: export SCRATCH=VALUE NOPE=VALUE\n"
    done = home.run("import", "p.toml", "--force", environ={"SCRATCH": str(home.root), "NOPE": "1"})
    assert "1 folder does not exist: ~/x. To create it: taoprof use p --mkdir" in done.stderr


def test_folders_of_another_machine_are_not_offered_to_be_created(home: Home) -> None:
    notebook(home.root / "a.ipynb", "/home/no-such-user/tao", "/results")
    done = home.run("import", "a.ipynb")
    wanted = "taoprof set a LOCAL_PROJECT_DIR=DIR"
    assert (
        "/home/no-such-user/tao does not exist, and this machine has no home folder of 'no-such-user'. "
        f"To use a folder of this machine: {wanted}\n"
    ) in done.stderr
    for command in ("use a", "use a --mkdir", "run a --mkdir -- true"):
        one_clear_error(
            home.run(*command.split()), 3, f"hint: nothing was changed. To use a folder of this machine: {wanted}\n"
        )
    home.run("set", "a", "docker.user=1000:1000")
    findings = home.json("check", "a")["data"]["findings"]
    assert "results-not-writable-as-user" not in [finding["id"] for finding in findings]
    finding = findings[0]
    assert (finding["id"], finding["fix"]) == ("src-missing", [])
    assert finding["hint"] == f"use a folder of this machine: {wanted}"
    (home.root / "data").mkdir()
    assert home.run("set", "a", f"LOCAL_PROJECT_DIR={home.root}/data").returncode == 0
    assert home.run("use", "a").returncode == 0


def test_a_mount_that_the_launcher_drops_is_no_part_of_an_imported_profile(home: Home) -> None:
    mounts = [{"source": "~", "destination": "/w"}, {"source": str(home.root), "destination": "/home/me"}]
    (home.root / "m.json").write_text(json.dumps({"Mounts": mounts}))
    (home.root / ".tao_mounts.json").write_text(json.dumps({"Mounts": mounts}))
    for command in ("import m.json --name p", "import --name q"):
        done = home.run(*command.split())
        assert done.returncode == 0
        assert "is mounted on '/w' and on '/home/me', and the launcher uses only the last mount" in done.stderr
    assert home.run("use", "p").returncode == 0
    assert [mount["destination"] for mount in home.mapping()["Mounts"]] == ["/home/me"]


def test_what_a_script_takes_from_the_environment_is_suggested_from_there(home: Home) -> None:
    script = "from dotenv import load_dotenv\nload_dotenv()\n" + WRITES.replace("{source!r}", 'os.environ["ROOT"]')
    (home.root / "m.py").write_text(script.format(destination="/w"))
    one_clear_error(
        home.run("import", "m.py", environ={"ROOT": "/data/x"}),
        2,
        "  line 2: may set variables that are not known: 'dotenv' is not followed\n",
        "hint: taoprof import m.py --set ROOT=/data/x; or run it once, then: taoprof import --name",
    )
    guard = "import os\nif os.getenv('NGC_API_KEY') is None:\n    raise ValueError()\n"
    (home.root / "k.py").write_text(guard + WRITES.format(source="/", destination="/w"))
    done = home.run("import", "k.py")
    assert "NGC_API_KEY: it is not set in your environment (line 2)" in done.stderr
    assert "hint: set NGC_API_KEY in your environment, then: taoprof import k.py\n" in done.stderr


def test_a_note_about_several_files_is_printed_once(home: Home) -> None:
    for name, number in (("a", 1), ("b", 2), ("c", 3)):
        notebook(home.root / f"nb/{name}.ipynb", then=["\n" * number + "while input(): x = 1\n%run x.py"])
    done = home.run("import", "nb")
    assert done.returncode == 0
    assert "3 files (a.ipynb, …): not evaluated, so what they set is unknown" in done.stderr
    assert "3 files (a.ipynb, …): may set variables that are not known: '%run' is not followed" in done.stderr
    assert "3 files (a.ipynb, …): LOCAL_PROJECT_DIR is left out" in done.stderr
    assert "3 profiles have problems (a, b, c): taoprof check a\n" in done.stderr
    assert len(done.stderr.splitlines()) == 4


def test_variables_that_act_on_programs_are_taken_only_with_consent(home: Home) -> None:
    text = (
        'schema = 1\nlayout = "custom"\nmounts = []\n\n[variables]\nPATH = "/evil"\nLD_PRELOAD = "/e.so"\nKEY = "x"\n'
    )
    (home.root / "theirs.toml").write_text(text)
    done = home.run("import", "theirs.toml", "--name", "c", check=True)
    assert "left out: variables.PATH, variables.LD_PRELOAD" in done.stderr
    kept = (home.profiles / "c.toml").read_text()
    assert ("evil" in kept, "e.so" in kept, 'KEY = "x"' in kept) == (False, False, True)
    home.run("import", "theirs.toml", "--name", "d", "--yes", check=True)
    assert (home.profiles / "d.toml").read_text() == text


def test_a_missing_file_is_told_with_the_most_similar_one(home: Home) -> None:
    def hint(path: str) -> str:
        done = home.run("import", path)
        one_clear_error(done, 3)
        return done.stderr.splitlines()[1]

    folder = home.root / "notebooks"
    folder.mkdir()
    assert hint("notebooks/dino.ipynb").endswith(
        f"notebook in '{folder}'. To create a profile without one: taoprof new NETWORK"
    )
    (folder / "dino_v2.ipynb").touch()
    (folder / "other.ipynb").touch()
    assert hint("notebooks/dino.ipynb") == "hint: did you mean 'notebooks/dino_v2.ipynb'?"
    assert hint("no/dino.ipynb") == f"hint: the folder '{home.root}/no' does not exist or cannot be read"


def test_the_problems_of_a_new_profile_are_counted(home: Home) -> None:
    """As ``check`` finds them; folders that do not exist have a message of their own."""
    options = {"shm_size": "64", "user": f"{os.getuid()}:{os.getgid()}"}
    mapping = {
        "Envs": [{"variable": "USER", "value": "tao"}, {"variable": "HOME", "value": "/tmp"}],
        "Mounts": [{"source": source, "destination": f"/d{source}"} for source in ("/tmp", "/nowhere")],
        "DockerOptions": options,
    }
    (home.root / "m.json").write_text(json.dumps(mapping))
    (home.root / "n").mkdir()
    written = f"with open(os.path.expanduser('~/.tao_mounts.json'), 'w') as f:\n    json.dump({mapping}, f)\n"
    (home.root / "n/n.py").write_text("import json, os\n" + written)
    for name, words in {"x": ("m.json", "--name", "x"), "y": ("n/n.py", "--name", "y"), "n": ("n",)}.items():
        done = home.run("import", *words, check=True)
        assert f"taoprof: 1 problem: taoprof check {name}\n" in done.stderr, done.stderr
    options["shm_size"] = "16G"
    (home.root / "m.json").write_text(json.dumps({**mapping, "Mounts": mapping["Mounts"][:1]}))
    assert "problem" not in home.run("import", "m.json", "--name", "sound", check=True).stderr


@pytest.mark.parametrize(
    ("source", "words", "hint"),
    [
        (WRITES.format(source="FIXME", destination="/data"), "a.ipynb --name x --kernel --in-place",
         "taoprof import a.ipynb --name x --kernel --in-place --set LOCAL_PROJECT_DIR=…"),
        (WRITES.format(source="FIXME", destination="/data") + "KEY = FIXME", "--force a.ipynb --set KEY=s3cret",
         "taoprof import --force a.ipynb --set 'KEY=…' --set LOCAL_PROJECT_DIR=…"),
        ("!python3 mount.py", "a.ipynb --name x --kernel --in-place",
         "run it once, then: taoprof import --name x --kernel"),
        ("open('/root/.tao_mounts.json', 'a').write('{}')", "a.ipynb",
         "run it once, then: taoprof import --name NAME"),
    ],
)  # fmt: skip
def test_the_hint_has_the_options_that_were_given(home: Home, source: str, words: str, hint: str) -> None:
    notebook_of(home.root / "a.ipynb", [source])
    done = home.run("import", *words.split())
    assert done.returncode in (2, 3)
    assert f"hint: {hint}\n" in done.stderr, done.stderr
    assert "s3cret" not in done.stderr
