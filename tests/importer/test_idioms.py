"""The ways in which notebooks set paths and write the mapping: reading finds what really executing them does."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.importer.notebook_execution import Execution, execute
from tests.importer.notebooks import read, rendered, write
from tests.support.notebooks import notebook


class Idiom(NamedTuple):
    cells: list[str]
    fill: dict[str, str] = {}  # noqa: RUF012 - what stands there, and what a person writes in its place
    given: dict[str, str] = {}  # noqa: RUF012 - the same, as --set has it
    left_out: set[str] = set()  # noqa: RUF012 - variables that cannot be told
    loose: bool = False
    """Not the same as a profile: it has null values, or mounts one folder twice."""


OS = "import os"


def mounts(*pairs: str, **more: str) -> str:
    """Write a cell with a dictionary of mounts, each an expression for the source and one for the destination."""
    lines = [
        f'        {{"source": {pair.split(" -> ")[0]}, "destination": {pair.split(" -> ")[1]}}},' for pair in pairs
    ]
    rest = [f'    "{key}": {value},' for key, value in more.items()]
    return "\n".join(["import os", "tao_configs = {", '    "Mounts": [', *lines, "    ],", *rest, "}"])


DATA = 'os.environ["LOCAL_DATA_DIR"] -> "/workspace/tao-experiments/data"'
SET = 'import os\nos.environ["LOCAL_DATA_DIR"] = {}'


def one(expression: str, *before: str, **more: Any) -> Idiom:
    """Set one variable by an expression, and mount it."""
    return Idiom([OS, *before, SET.replace("{}", expression), mounts(DATA), write()], **more)


def lines(text: str, *rest: str, **more: Any) -> Idiom:
    """Run a cell of one's own, then mount LOCAL_DATA_DIR, which it sets."""
    return Idiom([text, *rest, mounts(DATA), write()], **more)


def mounted(*cells: str) -> Idiom:
    """Run cells after one with a dictionary that mounts /d."""
    return Idiom([mounts('"/d" -> "/x"'), *cells])


IDIOMS: dict[str, Idiom] = {
    # Variables
    "env": lines("%env LOCAL_DATA_DIR=/data/kitti\n%env KEY=tlt_encode"),
    "env with blanks": lines("%env LOCAL_DATA_DIR = /data/kitti"),
    "set_env": lines("%set_env LOCAL_DATA_DIR=/data/kitti"),
    "env in quotes, which stay": lines("%env LOCAL_DATA_DIR=/data/kitti\n%env Q=\"a b\"\n%env KEY='x'"),
    "env with a comment, which stays": lines("%env LOCAL_DATA_DIR=/data/kitti\n%env NUM=2 # of GPUs"),
    "env that is a comment": lines("# %env NOTEBOOK_ROOT=~/x\n%env LOCAL_DATA_DIR=/data/kitti"),
    "env with a name of Python's": lines('root = "/data"', "%env LOCAL_DATA_DIR=$root/kitti"),
    "env with an expression": lines('root = "/data"', "%env LOCAL_DATA_DIR={root}/kitti\n%env N={1+2}"),
    "env with an expression of calls": lines(
        'import os\nroot = "/data"', '%env LOCAL_DATA_DIR={os.path.join(root, "x")}'
    ),
    "env with a name that is not there": lines("%env WHO=/home/$USER/tao\n%env LOCAL_DATA_DIR=/d"),
    "env of a variable of the environment": lines("%env A=/a\n%env B=$A/kitti\n%env LOCAL_DATA_DIR=/d"),
    "env of two parts": lines("%env LOCAL_DATA_DIR /data/kitti"),
    "env PATH tells it": lines("%env PATH\n%env LOCAL_DATA_DIR=/b"),
    "env as a value": lines("a = %env USER\n%env LOCAL_DATA_DIR=/home/$a/x"),
    "automagic": lines("env LOCAL_DATA_DIR=/data/kitti"),
    "join": one('os.path.join("/data", "kitti")'),
    "join of one": one('os.path.join("/data")'),
    "join of three": one('os.path.join("/data", "a/", "b")'),
    "join of four": one('os.path.join("/data", "a", "b", "c")'),
    "join with an absolute one": one('os.path.join("/data", "/b", "c")'),
    "join over several lines": one('os.path.join(\n    os.getenv("NOTEBOOK_ROOT", os.getcwd()),\n    "data"\n)'),
    "getenv with a default": one('os.getenv("ROOT", "/data")'),
    "getenv of what is set": one('os.getenv("ROOT", "/data") + "/x"', "%env ROOT=/r"),
    "getenv without a default": Idiom(
        [OS, "%env A=/a", 'x = os.getenv("NOPE")\nos.environ["LOCAL_DATA_DIR"] = x\n', mounts('"/a" -> "/b"'), write()]
    ),
    "environ.get": one('os.environ.get("ROOT", "/data") + os.environ.get("NOPE", "")'),
    "environ.get of nothing": one('str(os.environ.get("NOPE"))'),
    "environ.setdefault": one('os.environ.setdefault("ROOT", "/data")'),
    "environ.update": lines('import os\nos.environ.update({"LOCAL_DATA_DIR": "/d"}, KEY="k")'),
    "environ of another name": lines('from os import environ as e\ne["LOCAL_DATA_DIR"] = "/d"'),
    "environ in": one('"/a" if "NOPE" in os.environ else "/b"'),
    "PATH is there": lines('import os\nos.environ["PATH"] += ":/opt"\n%env LOCAL_DATA_DIR=/b'),
    "literal": one('"/data/kitti"'),
    "unnormalised": one('os.path.join(os.getcwd(), "../../data")'),
    "trailing slash": one('"/data/kitti/"'),
    "relative": one('"./"'),
    "from the home": one('os.path.expanduser("~/tao")'),
    "of HOME": one('os.path.join(os.environ["HOME"], "tao")'),
    "HOME set": Idiom(
        [
            "%env HOME=/tmp/elsewhere",
            'import os\nos.environ["LOCAL_DATA_DIR"] = "/d"\nos.environ["H"] = os.path.expanduser("~/x")',
            mounts(DATA),
            f"%env HOME={{HOME}}\n%env B=1\n{write()}",
        ],
    ),
    "import earlier": lines("import os, json", 'os.environ["LOCAL_DATA_DIR"] = "/d"'),
    "import as": lines('import os.path as osp, os as o\no.environ["LOCAL_DATA_DIR"] = osp.join("/d", "e")'),
    "from os import": lines(
        'from os.path import join\nfrom os import environ\nenviron["LOCAL_DATA_DIR"] = join("/d", "e")'
    ),
    "Python before the import": lines('os.environ["LOCAL_DATA_DIR"] = "/early"', "%env LOCAL_DATA_DIR=/d"),
    "code in a string": lines('"""\n%env LOCAL_DATA_DIR=/wrong\n"""\n%env LOCAL_DATA_DIR=/d'),
    "code in another string": lines(
        "x = '''\nimport os\nos.environ['LOCAL_DATA_DIR'] = '/w'\n'''\n%env LOCAL_DATA_DIR=/d"
    ),
    "a mixed cell": lines(
        'import os\n%env ROOT=/d\n!echo $ROOT \\\n    more\nos.environ["LOCAL_DATA_DIR"] = os.environ["ROOT"] + "/x"\n'
        "!ls\nif True:\n    %env KEY=k\n    !ls\nfiles = !ls\n?print\nprint?"
    ),
    "a magic in brackets is none": lines("x = [\n    3\n    %2\n]\n%env LOCAL_DATA_DIR=/d"),
    "an error of syntax loses the whole cell": lines("%env LOCAL_DATA_DIR=/a", "%env LOCAL_DATA_DIR=/b\nx = = 1"),
    "cd": lines("!mkdir -p sub", "%cd sub", SET.replace("{}", "os.getcwd()")),
    "cd above": lines("%cd ..", SET.replace("{}", 'os.path.abspath("x")')),
    "cd home": lines("%cd ~", SET.replace("{}", 'os.path.join(os.getcwd(), "x")')),
    "cd with makedirs": lines(
        OS + '\nos.makedirs("a/b", exist_ok=True)\nos.chdir("a/b")', SET.replace("{}", "os.getcwd()")
    ),
    # Text
    "plus": one('"/data" + "/" + "kitti"'),
    "plus in place": lines('import os\np = "/data"\np += "/x"\nos.environ["LOCAL_DATA_DIR"] = p'),
    "f-string with quotes": one("f\"{os.environ['ROOT']}/kitti\"", "%env ROOT=/d"),
    "format": one('"{}/{}".format(root, "kitti")', 'root = "/data"'),
    "percent": one('"%s/kitti/%d" % (root, 5)', 'root = "/data"'),
    "percent of one": one('"/data/%s%%" % Path("x")', "from pathlib import Path"),
    "percent of a tuple that is short": lines("%env LOCAL_DATA_DIR=/a", 'x = "%s%s" % ("a",)\n%env LOCAL_DATA_DIR=/b'),
    "percent of too many": lines("%env LOCAL_DATA_DIR=/a", 'x = "%s" % ("a", "b")\n%env LOCAL_DATA_DIR=/b'),
    "joined list": one('"/".join(["", "data", "kitti"])'),
    "strip": one('" /data/ ".strip().rstrip("/")'),
    "replace": one('"/X/kitti/X".replace("X", "data")'),
    "split": one('"/data:/b".split(":")[0] + "/a  b ".split()[1]'),
    "split with a limit": one('"/data,b,c".split(",", 1)[1] + "/data/a/b".rsplit("/", 1)[0]'),
    "partition": one('"/data=b".partition("=")[0] + "/a/b".rpartition("/")[2]'),
    "prefix and suffix": one('"x/data.json".removeprefix("x").removesuffix(".json")'),
    "case": one('"/Data".lower() + "x".upper() + "tao".title()'),
    "conditional": one('"/a" if 1 > 2 else "/b"'),
    "or": one('os.environ.get("NOPE") or "/b"'),
    "raw and implicit": one('r"/data" "/kitti"'),
    "escapes": one('"/d\\x61ta/\\u00fc"'),
    # Paths
    "dirname": one('os.path.dirname("/data/x/file")'),
    "dirname of the folder": one("os.path.dirname(os.getcwd())"),
    "basename": one('"/" + os.path.basename("/data/x")'),
    "abspath": one('os.path.abspath("../x")'),
    "realpath": one('os.path.realpath("x")'),
    "normpath": one('os.path.normpath("/data/./x/../y//z/")'),
    "expandvars": one('os.path.expandvars("$ROOT/${ROOT}/x")', "%env ROOT=/d"),
    "pathlib": one('str(Path("/data") / "kitti")', "from pathlib import Path"),
    "pathlib home": one('str(Path.home() / "kitti")', "from pathlib import Path"),
    "pathlib cwd": one('str(Path.cwd().parent / "kitti" / "../x")', "from pathlib import Path"),
    "pathlib resolve": one('str(Path("../x").resolve())', "from pathlib import Path"),
    "pathlib normal": one('str(Path("/data//x/./y/"))', "from pathlib import Path"),
    "pathlib in f-string": one("f\"{Path('/data')}/x\"", "from pathlib import Path"),
    "pathlib joinpath": one('os.fspath(Path("/d").joinpath("x", Path("y")))', "from pathlib import Path"),
    "pathlib in os.path": one('os.path.join(Path("/d"), "x")', "from pathlib import Path"),
    "pathlib makes a folder": one(
        'str(root / "x")', 'from pathlib import Path\nroot = Path("d")\nroot.mkdir(exist_ok=True)'
    ),
    "pathlib as a variable ends the cell": lines(
        "%env LOCAL_DATA_DIR=/a", 'import os\nfrom pathlib import Path\nos.environ["LOCAL_DATA_DIR"] = Path("/b")'
    ),
    "pathlib writes": mounted(
        "import json\nfrom pathlib import Path\n"
        '(Path.home() / ".tao_mounts.json").write_text(json.dumps(tao_configs, indent=4))'
    ),
    "pathlib opens": mounted(
        "import json\nfrom pathlib import Path\n"
        'with (Path.home() / ".tao_mounts.json").open("w") as f:\n    json.dump(tao_configs, f)'
    ),
    # Control
    "if on a flag": lines(
        "CLOUD = False\nLOCAL = not CLOUD",
        "if CLOUD:\n    %env LOCAL_DATA_DIR=/a\nelif LOCAL:\n    %env LOCAL_DATA_DIR=/b\n",
    ),
    "loop": lines('import os\nfor name, path in [("LOCAL_DATA_DIR", "/d"), ("B", "/b")]:\n    os.environ[name] = path'),
    "loop over a dictionary": lines(
        'import os\nfor k, v in {"LOCAL_DATA_DIR": "/d"}.items():\n    os.environ[k] = v\n'
    ),
    "loop over f-strings": lines(
        'import os\nfor k in ["DATA", "SPECS"]:\n    os.environ[f"LOCAL_{k}_DIR"] = f"/d/{k.lower()}"'
    ),
    "helper with a loop": lines(
        'import os\ndef find(paths):\n    for p in paths:\n        if p.endswith("b"):\n            return p\n'
        'os.environ["LOCAL_DATA_DIR"] = find(["/a", "/b"])'
    ),
    "helper that writes": mounted(
        "import json, os\ndef save(what, path='~/.tao_mounts.json'):\n"
        "    with open(os.path.expanduser(path), 'w') as f:\n        json.dump(what, f)",
        "save(tao_configs)",
    ),
    "with": lines("import os, contextlib\nwith open(os.devnull) as f:\n    %env LOCAL_DATA_DIR=/d\n"),
    "assert": lines('import os\nassert os.getcwd()\n%env LOCAL_DATA_DIR=/d\nassert 0, "x"\n%env LOCAL_DATA_DIR=/e'),
    "unpacking": lines('import os\na, (b, c) = "/d", ["x", "y"]\nos.environ["LOCAL_DATA_DIR"] = "/".join([a, b, c])'),
    "chained": lines('import os\nos.environ["LOCAL_DATA_DIR"] = os.environ["B"] = a = "/d"'),
    "class": lines('class Config:\n    root = "/x"\n%env LOCAL_DATA_DIR=/d'),
    "annotated": lines('import os\nroot: str = "/d"\nos.environ["LOCAL_DATA_DIR"] = root'),
    "match": lines("x = 1\nmatch x:\n    case 1:\n        y = 2\n%env LOCAL_DATA_DIR=/d"),
    "exit at the end": lines("%env LOCAL_DATA_DIR=/d", "x = 1\nraise SystemExit"),
    # The mapping
    "four mounts and options": Idiom(
        [
            'import os\nos.environ["LOCAL_PROJECT_DIR"] = "/p"\n'
            'for n in ("DATA", "SPECS", "RESULTS"):\n    os.environ[f"LOCAL_{n}_DIR"] = os.path.join("/p", n.lower())',
            mounts(
                'os.environ["LOCAL_PROJECT_DIR"] -> "/workspace/tao-experiments"',
                'os.environ["LOCAL_SPECS_DIR"] -> "/specs"',
                'os.environ["LOCAL_RESULTS_DIR"] -> "/results"',
                DockerOptions='{"shm_size": "16G", "ulimits": {"memlock": -1, "stack": 67108864}, "network": "host",'
                ' "user": "{}:{}".format(os.getuid(), os.getgid())}',
            ),
            write(),
            "%env SPECS_DIR=/specs\n%env DATA_DIR=/data",
        ]
    ),
    "user as an f-string": Idiom(
        [mounts('"/d" -> "/x"', DockerOptions='{"user": f"{os.getuid()}:{os.getgid()}"}'), write()]
    ),
    "user put together": Idiom(
        [mounts('"/d" -> "/x"', DockerOptions='{"user": str(os.getuid()) + ":" + str(os.getgid())}'), write()]
    ),
    "user root": Idiom([mounts('"/d" -> "/x"', DockerOptions='{"user": "root"}'), write()]),
    "cache in the home": Idiom(
        [
            mounts(
                '"~/.cache" -> "/root/.cache"',
                'os.path.join(os.environ["HOME"], ".c") -> "/c"',
                'os.path.expanduser("~/.d") -> "/d"',
            ),
            write(),
        ]
    ),
    "tlt": mounted(write().replace("tao_mounts", "tlt_mounts")),
    "tlt and tao": mounted(write().replace("tao_mounts", "tlt_mounts"), mounts('"/e" -> "/x"'), write()),
    "drive_map": Idiom([mounts('"/d" -> "/x"').replace("tao_configs", "drive_map"), write("drive_map")]),
    "mounts_file as a variable": mounted(
        'import json\nmounts_file = os.path.expanduser("~/.tao_mounts.json")\n'
        'with open(mounts_file, "w") as mfile:\n    json.dump(tao_configs, mfile, indent=4)\n!cat ~/.tao_mounts.json'
    ),
    "dumps and write": mounted(
        'import json\nf = open(os.environ["HOME"] + "/.tao_mounts.json", "w")\n'
        "f.write(json.dumps(tao_configs, indent=2))\nf.close()"
    ),
    "written as text": Idiom(
        [
            'import os\nwith open(os.path.expanduser("~/.tao_mounts.json"), "wt") as f:\n'
            '    f.write(\'{"Mounts": [{"source": "/d", \')\n    f.write(\'"destination": "/x"}]}\\n\')'
        ]
    ),
    "mutation and second write": mounted(
        write(), 'tao_configs["Envs"] = [{"variable": "A", "value": "1"}]\n' + write()
    ),
    "mutated, not written again": mounted(write(), 'tao_configs["Mounts"].clear()'),
    "one object twice": Idiom(
        ['m = {"source": "/d", "destination": "/x"}\ntao_configs = {"Mounts": [m]}\nm["source"] = "/e"', write()]
    ),
    "a source twice": Idiom([mounts('"/d" -> "/x"', '"/e" -> "/y"', '"/d" -> "/z"'), write()], loose=True),
    "a null source": Idiom([mounts('os.getenv("NOPE") -> "/x"'), write()], loose=True),
    "relative sources": Idiom([mounts('"specs" -> "/specs"', '"../up" -> "/up"'), write()]),
    "variables after the write": mounted(write(), "%env SPECS_DIR=/specs", "%env LATER=1"),
    "set again after the write": lines("%env LOCAL_DATA_DIR=/a", *[mounts(DATA), write()], "%env LOCAL_DATA_DIR=/b"),
    "not JSON": mounted(write(), 'tao_configs["x"] = {1, 2}', mounts('"/e" -> "/x"'), write()),
    # Cell magics
    "writefile": Idiom(['%%writefile ~/.tao_mounts.json\n{"Mounts": [{"source": "/d", "destination": "/x"}]}\n']),
    "writefile in a variable": Idiom(
        ['h = "{HOME}"', '%%writefile {h}/.tao_mounts.json\n{"Mounts": [{"source": "/d", "destination": "/x"}]}\n'],
    ),
    "bash sets nothing": lines("%%bash\nexport LOCAL_DATA_DIR=/a", "%env LOCAL_DATA_DIR=/b"),
    "another cell magic": lines("%%time\n%env LOCAL_DATA_DIR=/a", "%env B=1", "%env LOCAL_DATA_DIR=/b"),
    "capture": lines("%%capture\n%env LOCAL_DATA_DIR=/a"),
    "timed line": lines("%time x = 1\n%env LOCAL_DATA_DIR=/a"),
    "javascript": lines("%%javascript\nalert(1)", "%env LOCAL_DATA_DIR=/a"),
    # What odd people write
    "dumps with a line feed": mounted(
        'import json\nwith open(os.path.expanduser("~/.tao_mounts.json"), "w") as f:\n'
        '    f.write(json.dumps(tao_configs) + "\\n")'
    ),
    "dump into open": mounted(
        'import json\njson.dump(tao_configs, open(os.path.expanduser("~/.tao_mounts.json"), mode="w"))'
    ),
    "open and write": mounted(
        'from json import dumps\nopen(f"{os.path.expanduser(\'~\')}/.tao_mounts.json", "w").write(dumps(tao_configs))'
    ),
    "dump by name": mounted(
        'import json as j\nwith open(file=os.path.expanduser("~/.tao_mounts.json"), mode="w") as f:\n    j.dump(fp=f, obj=tao_configs, indent="  ", sort_keys=True)'
    ),
    "a helper with a magic": lines("def go():\n    %env LOCAL_DATA_DIR=/d", "%env B=1\ngo()"),
    "a helper of a helper": lines(
        'import os\ndef a(x):\n    return b(x) + "a"\ndef b(x):\n    return "/" + x\nos.environ["LOCAL_DATA_DIR"] = a("x")'
    ),
    "a helper with a default that is a list": lines(
        'import os\ndef add(x, to=[]):\n    to.append(x)\n    return to\nadd("")\nos.environ["LOCAL_DATA_DIR"] = "/".join(add("d"))'
    ),
    "names of a loop stay": lines('import os\nfor x in ["/a", "/d"]:\n    pass\nos.environ["LOCAL_DATA_DIR"] = x'),
    "two at once": lines('import os\nos.environ["LOCAL_DATA_DIR"], os.environ["B"] = "/d", "b"'),
    "plus in place on the environment": lines(
        'import os\nos.environ["LOCAL_DATA_DIR"] = "/d"\nos.environ["LOCAL_DATA_DIR"] += "/e"'
    ),
    "values of numbers": lines(
        'import os\nfor k, v in {"LOCAL_DATA_DIR": "/d", "N": 3, "B": True, "F": 0.1}.items():\n    os.environ[k] = str(v)'
    ),
    "sep": one('os.sep + os.sep.join(["a", "b"]) + os.path.sep'),
    "a dictionary of paths": one('paths["data"]', 'paths = {"data": "/d"}\npaths["x"] = paths["data"] + "/x"'),
    "made if not there": lines(
        'import os\nos.environ["LOCAL_DATA_DIR"] = os.path.join(os.getcwd(), "made")\np = os.environ["LOCAL_DATA_DIR"]\n'
        'if not os.path.exists(p):\n    os.makedirs(p)\n!mkdir -p $p/x\nif os.path.isdir(p + "/x"):\n    os.environ["B"] = "yes"',
        left_out={"B"},
    ),
    "cd of a name": lines(
        "import os\nd = 'a b'\nos.makedirs(d, exist_ok=True)", "%cd $d", SET.replace("{}", "os.getcwd()")
    ),
    "cd in quotes": lines(
        "import os\nos.makedirs('a b', exist_ok=True)", '%cd "a b"', SET.replace("{}", "os.getcwd()")
    ),
    "cd quietly": lines("import os\nos.makedirs('q', exist_ok=True)", "%cd -q q", SET.replace("{}", "os.getcwd()")),
    "env of the environment": lines('import os\n%env A=/a\n%env LOCAL_DATA_DIR={os.environ["A"]}/x'),
    "env of an attribute": lines("import os\n%env LOCAL_DATA_DIR=$os.sep"),
    "time": lines("%%time\n%env LOCAL_DATA_DIR=/a\nx = 1"),
    "a type error": lines("%env LOCAL_DATA_DIR=/a", 'import os\nos.environ["LOCAL_DATA_DIR"] = 1 + "a"\n'),
    "a number as a value": lines(
        "%env LOCAL_DATA_DIR=/a", 'import os\nos.environ["N"] = 1\nos.environ["LOCAL_DATA_DIR"] = "/b"'
    ),
    "an index too far": lines("%env LOCAL_DATA_DIR=/a", "x = [1][1]\n%env LOCAL_DATA_DIR=/b"),
    "a name that shadows": lines('str = "/d"', 'import os\nos.environ["LOCAL_DATA_DIR"] = str'),
    "a shell's answer": lines("x = !echo /d\n%env LOCAL_DATA_DIR=/d"),
    "a backslash": one('"/a" + \\\n    "/b"'),
    "bytes": lines("x = b'a'\n%env LOCAL_DATA_DIR=/d"),
    "nothing but json": Idiom(
        [
            mounts(
                '"/d" -> "/x"',
                Envs='[{"variable": "A", "value": os.environ.get("NOPE", "x")}]',
                DockerOptions='{"ports": {"8888": 8888}}',
            ),
            write(),
        ]
    ),
    # Text of cells
    "CRLF": lines("%env LOCAL_DATA_DIR=/a\r\n%env B=1\r\n", "import os\r\nif True:\r\n    os.environ['C'] = 'c'\r\n"),
    "prompts of Python": lines(">>> import os\n>>> os.environ['LOCAL_DATA_DIR'] = '/a'\n>>> if True:\n...     x = 1"),
    "prompts of IPython": lines("In [1]: import os\n\nIn [2]: os.environ['LOCAL_DATA_DIR'] = '/a'"),
    "leading indent": lines("    import os\n    os.environ['LOCAL_DATA_DIR'] = '/a'"),
    "empty cells": lines("", "   \n", "# nothing", "%env LOCAL_DATA_DIR=/a"),
    "a tab": lines("if True:\n\t%env LOCAL_DATA_DIR=/a"),
    "not ASCII": lines("%env LOCAL_DATA_DIR=/dätä/漢\nünïcode = 1"),
    "semicolons": lines("import os; os.environ['LOCAL_DATA_DIR'] = '/a'; x = 2"),
    # Placeholders
    "FIXME as text": lines("%env LOCAL_DATA_DIR=FIXME", fill={"FIXME": "/mine"}, given={"LOCAL_DATA_DIR": "/mine"}),
    "FIXME as a bare name": one("FIXME", fill={"FIXME": '"/mine"'}, given={"LOCAL_DATA_DIR": "/mine"}),
    "FIX_ME as a bare name": one("FIX_ME", fill={"FIX_ME": '"/mine"'}, given={"LOCAL_DATA_DIR": "/mine"}),
    "FIXME as a string": one('"FIXME"', fill={"FIXME": "/mine"}, given={"LOCAL_DATA_DIR": "/mine"}),
    "a path to": lines(
        "%env LOCAL_DATA_DIR=/path/to/local/tao-experiments",
        fill={"/path/to/local/tao-experiments": "/mine"},
        given={"LOCAL_DATA_DIR": "/mine"},
    ),
    "YOUR_": one(
        '"YOUR_LOCAL_PROJECT_DIR_PATH"',
        fill={"YOUR_LOCAL_PROJECT_DIR_PATH": "/mine"},
        given={"LOCAL_DATA_DIR": "/mine"},
    ),
    "angles": one('"<YOUR DATA FOLDER>"', fill={"<YOUR DATA FOLDER>": "/mine"}, given={"LOCAL_DATA_DIR": "/mine"}),
    "REPLACE_ME": one('"REPLACE_ME"', fill={"REPLACE_ME": "/mine"}, given={"LOCAL_DATA_DIR": "/mine"}),
    "TODO": one("TODO", fill={"TODO": '"/mine"'}, given={"LOCAL_DATA_DIR": "/mine"}),
    "a placeholder of Python's": one(
        'root + "/data"', 'root = "/path/to/data"', fill={"/path/to/data": "/mine"}, given={"root": "/mine"}
    ),
    "a placeholder that others come from": Idiom(
        [
            "%env LOCAL_PROJECT_DIR=FIXME",
            'import os\nos.environ["LOCAL_DATA_DIR"] = os.path.join(os.getenv("LOCAL_PROJECT_DIR", os.getcwd()), "data")',
            mounts('os.environ["LOCAL_PROJECT_DIR"] -> "/p"', DATA),
            write(),
        ],
        fill={"FIXME": "/mine"},
        given={"LOCAL_PROJECT_DIR": "/mine"},
    ),
    "variables restored by name": Idiom(
        ["import os\n%env LOCAL_DATA_DIR=/d", "%store -r job_id model", "%store", mounts(DATA), write()]
    ),
    "a placeholder that nobody needs": lines("%env KEY=FIXME\n%env LOCAL_DATA_DIR=/d", left_out={"KEY"}),
    "f-string": one('f"{root}/kitti/{n}/{root!s}"', 'root = "/data"; n = 7'),
    "format by name": one('"{root}/{0}/{{}}".format("kitti", root=root)', 'root = "/data"'),
    "pathlib expanduser": one('str(Path("~/x").expanduser())', "import pathlib\nPath = pathlib.Path"),
    "pathlib root": one('str(Path("/").parent) + str(Path("a").parent)', "from pathlib import Path"),
    "helper function": lines(
        'import os\ndef put(name, path="/d", sub="x"):\n    """Put."""\n    os.environ[name] = os.path.join(path, sub)\n'
        '    return path\nr = put("LOCAL_DATA_DIR", sub="y")\nput(name="R", path=r)'
    ),
    "a comparison": one('"/a" if "b" in "abc" and 1 < 2 and "x" not in ["y"] and None is None else "/b"'),
}


def filled(idiom: Idiom, cell: str) -> str:
    for old, new in idiom.fill.items():
        cell = cell.replace(old, new)
    return cell


@pytest.fixture(scope="module")
def executions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Execution]:
    cells = {name: [filled(idiom, cell) for cell in idiom.cells] for name, idiom in IDIOMS.items()}
    return execute(tmp_path_factory.mktemp("idioms"), cells)


@pytest.mark.parametrize("name", IDIOMS)
def test_static_evaluation_equals_execution(executions: dict[str, Execution], name: str) -> None:
    idiom, (home, folder, _, real) = IDIOMS[name], executions[name]
    content = notebook([cell.replace("{HOME}", str(home)) for cell in idiom.cells])
    result = read(home, content, folder=folder, **idiom.given)
    assert real.mapping is not None
    assert result.mapping == real.mapping, result.notes
    unknown = {left for left, _ in result.left_out}
    assert unknown <= idiom.left_out | {"PATH"}
    expected = {key: value for key, value in real.environ.items() if key not in (*unknown, "HOME")}
    assert {**result.variables, "HOME": ""} == {**expected, "HOME": ""}, result.notes
    if not idiom.loose:
        ours = {key: value for key, value in expected.items() if key != "PATH"}
        assert rendered(home, result) == (as_profiles(ours, home), as_launcher_takes(real.mapping, home, folder))


def as_profiles(variables: dict[str, str], home: Path) -> dict[str, str]:
    return {key: f"{home}{value[1:]}" if value.startswith("~/") else value for key, value in variables.items()}


def as_launcher_takes(mapping: Any, home: Path, folder: Path) -> Any:
    """Make the sources absolute, as they lead from the notebook's folder."""
    for mount in mapping["Mounts"]:
        source = mount["source"].replace("~", str(home), 1) if mount["source"].startswith("~") else mount["source"]
        if not source.startswith("/"):
            source = os.path.normpath(f"{folder}/{source}")
        mount["source"] = source
    return {key: value for key, value in mapping.items() if value}
