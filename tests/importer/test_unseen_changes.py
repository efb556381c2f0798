"""What a cell may change in a way that is not followed is unknown afterwards, and what it cannot change stays known."""

from __future__ import annotations

from pathlib import Path

import pytest

from taoprofiles.importer import build
from taoprofiles.importer.state import Unknown
from tests.importer.notebooks import context, read, write
from tests.support.notebooks import notebook

START = (
    "import os, json\nfrom pathlib import Path\nM = os.path.expanduser('~/.tao_mounts.json')\nos.environ['MF'] = M\n"
)
MAPPING = {"Mounts": [{"source": "/a", "destination": "/x"}]}


@pytest.mark.parametrize(
    "command",
    [
        "os.system('sed -i s,/a,/b, ~/.tao_mounts.json')",
        "os.system(f'cp t.json {M}')",
        "!echo '{}' | tee ~/.tao_mounts.json",
        "!cat t.json | tee $M",
        "!find . -name t.json -exec cp {} ~/.tao_mounts.json \\;",
        "!cp {open('x')} ~/.tao_mounts.json",
        "!cp t.json $MF",
        "!cp t.json ~/.tao_mount*",
        "%sx cp t.json ~/.tao_mounts.json",
        "%system cp t.json $M",
        "%cp t.json ~/.tao_mounts.json",
        "get_ipython().getoutput('cp t.json ~/.tao_mounts.json')",
        "if os.path.exists('x'):\n    !cp t.json $MF\n",
        "if os.path.exists('x'):\n    os.system('cp t.json $MF')\n",
        "%%bash\ncat <<E | tee ~/.tao_mounts.json\n{}\nE",
        "%%bash\ncp t.json ${MF}",
        '%%bash -s "$M"\ncp t.json $1',
        "%%bash\nF=.tao_mounts; sed -i s,/a,/b, $F.json",
        "%%perl\nopen(F, '>', '.tao_mounts.json')",
    ],
)
def test_a_command_that_may_write_the_mounts_file_makes_it_unknown(tmp_path: Path, command: str) -> None:
    assert isinstance(read(tmp_path, notebook([START, f"m = {MAPPING}\n{write('m')}", command])).mapping, Unknown)


@pytest.mark.parametrize(
    "command",
    [
        "!cat ~/.tao_mounts.json",
        "!cat $M | head -5",
        "!cat $MF | python3 -m json.tool",
        "%cat ~/.tao_mounts.json",
        "%sx cat ~/.tao_mounts.json",
        "os.system('cat ~/.tao_mounts.json')",
        "os.system('mkdir -p $MODEL_DIR/x; cp a.txt b.txt')",
        "!sed -i 's|x|y|' $SPECS_DIR/train.txt | tee log.txt",
        "!tao model detectnet_v2 train -e $SPECS_DIR/train.txt -k $KEY > log.txt",
        "!cp -r {os.listdir('.')[0]} $SPECS_DIR",
        "%%bash\nmkdir -p $SPECS_DIR && cp a.txt $SPECS_DIR",
        "%%html\nThe mapping is in ~/.tao_mounts.json.",
        "%matplotlib inline\n%load_ext autoreload\n%autoreload 2\n%pip install nvidia-tao",
    ],
)
def test_a_usual_command_leaves_the_mounts_file_known(tmp_path: Path, command: str) -> None:
    result = read(tmp_path, notebook([START, f"m = {MAPPING}\n{write('m')}", command]))
    assert result.mapping == MAPPING
    assert not [note for note in result.notes if "may " in note]


@pytest.mark.parametrize(
    "command", ["!rm -f ~/.tlt_mounts.json", "%%bash\nrm -f ~/.tlt_mounts.json\ncat ~/.tao_mounts.json"]
)
def test_a_command_that_changes_the_older_mounts_file_leaves_the_other_one_known(tmp_path: Path, command: str) -> None:
    assert read(tmp_path, notebook([START, f"m = {MAPPING}\n{write('m')}", command])).mapping == MAPPING
    older = f"m = {MAPPING}\n{write('m')}".replace(".tao_mounts", ".tlt_mounts")
    assert isinstance(read(tmp_path, notebook([START, older, command])).mapping, Unknown)


def test_globals_in_code_that_is_not_followed_leaves_variables_known(tmp_path: Path) -> None:
    code = "try:\n    print('x' in globals())\nfinally:\n    pass\nos.environ['R'] = os.environ['A']"
    assert read(tmp_path, notebook([START + "os.environ['A'] = '/a'", code])).variables["R"] == "/a"


def test_a_script_knows_its_own_path_and_a_notebook_has_none(tmp_path: Path) -> None:
    code = "import os\nos.environ['R'] = os.path.dirname(os.path.abspath(__file__)) + '/specs'"
    assert read(tmp_path, code.encode()).variables == {"R": f"{tmp_path}/specs"}
    assert "name '__file__' is not defined" in read(tmp_path, notebook([code])).notes[0]
    piped = build.SourceFile(context(tmp_path), code.encode(), where=build.STDIN, path=None).evaluate({})
    assert "R" not in piped.variables
    assert not piped.notes


def test_a_message_names_the_function_that_is_called_with_other_arguments(tmp_path: Path) -> None:
    result = read(tmp_path, notebook(["def show(path):\n    pass\nshow('a', images=2)"]))
    assert result.notes[0].endswith("TypeError: show(): got an unexpected keyword argument 'images'")


def test_a_message_names_the_import_of_the_notebook_itself(tmp_path: Path) -> None:
    result = read(tmp_path, notebook([START, "import __main__"]))
    assert result.notes[0].endswith("skipped from here on: the notebook is imported as a module")


@pytest.mark.parametrize(
    "code",
    [
        "for line in open('status.json'):\n    data = eval(line)",
        "def best(p):\n    with open(p) as f:\n        for line in f:\n            eval(line)\n    return 1\nbest('a')",
        "def best(p):\n    for f in p.glob('*'):\n        exec(f)\nlist(map(best, os.listdir('.')))",
        "f = open('log.txt')\nf.close()\nif os.path.exists('x'):\n    f.read()",
    ],
)
def test_code_that_gets_neither_the_path_nor_an_open_file_cannot_write_the_mapping(tmp_path: Path, code: str) -> None:
    writing = f"m = {MAPPING}\nwith open(M, 'w') as f:\n    json.dump(m, f)"
    assert read(tmp_path, notebook([START, writing, code])).mapping == MAPPING
    still_open = f"m = {MAPPING}\nf = open(M, 'w')\njson.dump(m, f)\nshare(f)"
    assert isinstance(read(tmp_path, notebook(["from x import share\n" + START, still_open])).mapping, Unknown)


@pytest.mark.parametrize(
    "code",
    [
        "%time x = '/b'",
        "%prun x = '/b'",
        "%prun -q x = '/b'",
        "%sc x=echo /b",
        "%reset -f",
        "%xdel x",
        "%run other.py",
        "%pushd sub\nx = os.getcwd()",
        "%some_magic x",
        "%%bash --out x\necho /b",
        "%%script --no-raise-error --err x bash\necho /b",
        "%%capture x\nprint('/b')",
        "%%capture --no-stderr x\nprint('/b')",
        "%%some_magic\nx = '/b'",
        "if os.path.exists('/'):\n    %time x = '/b'",
        "if os.path.exists('/'):\n    %xdel x",
    ],
)
def test_a_magic_that_may_set_a_name_makes_it_unknown(tmp_path: Path, code: str) -> None:
    result = read(tmp_path, notebook([START + "x = '/a'", code, "os.environ['R'] = x"]))
    assert result.variables.get("R", "/b") == "/b"


@pytest.mark.parametrize(
    "code",
    [
        "getattr(os, 'environ')['A'] = '/b'",
        "os.__dict__['environ']['A'] = '/b'",
        "import subprocess\nsubprocess.os.environ['A'] = '/b'",
        "import pathlib\npathlib.os.environ['A'] = '/b'",
        "import importlib\nimportlib.import_module('os').environ['A'] = '/b'",
        "__import__('os').environ['A'] = '/b'",
        "import sys\nsys.modules['os'].environ['A'] = '/b'",
        "import sys\nsys.modules['__main__'].x = '/b'",
        "def f(): return '/b'\nsetattr(os, 'getcwd', f)\nx = os.getcwd()",
        "def f(): return '/b'\nos.getcwd = f\nx = os.getcwd()",
        "import __main__\n__main__.x = '/b'",
        "import __main__\nx = '/a'\n__main__.x = '/b'",
        "vars()['x'] = '/b'",
        "locals()['x'] = '/b'",
        "get_ipython().user_ns['x'] = '/b'",
        "get_ipython().push({'x': '/b'})",
        "get_ipython().run_cell('x = 1')",
        "shell = get_ipython()\nshell.ex('x = 1')",
        "get_ipython().run_cell_magic('capture', 'x', '1')",
        "exec('x = 1')",
        "eval('os.environ.update(A=1)')",
        "try:\n    getattr(os, 'environ')['A'] = '/b'\nfinally:\n    pass",
        "try:\n    os.__dict__['environ']['A'] = '/b'\nfinally:\n    pass",
        "try:\n    exec('x = 1')\nfinally:\n    pass",
        "try:\n    locals()['x'] = '/b'\nfinally:\n    pass",
    ],
)
def test_names_and_variables_that_are_reached_indirectly_do_not_keep_their_values(tmp_path: Path, code: str) -> None:
    start = START + "x = os.environ['A'] = '/a'"
    result = read(tmp_path, notebook([start, code, "os.environ['R'] = x + os.environ['A']"]))
    assert result.variables.get("R", "/a/b") == "/a/b"


@pytest.mark.parametrize(
    "code",
    [
        "model = load()\nmodel.eval()\nimport logging\nlogging.getLogger(__name__)",
        "import argparse\nargs = vars(argparse.ArgumentParser().parse_args([]))",
        "import sys\nprint(sys.version, file=sys.stderr)\nif 'google.colab' in sys.modules:\n    print('colab')",
        "import logging, sys\nlogging.basicConfig(stream=sys.stdout)\nsys.path.append('x')",
        "if 'colab' in str(get_ipython()):\n    print('colab')",
        "try:\n    print(os.path.join('a', os.getcwd()))\nfinally:\n    pass",
        "sizes = list(map(os.path.getsize, os.listdir('.')))",
        "try:\n    os.environ.pop('CUDA_VISIBLE_DEVICES')\nexcept KeyError:\n    pass",
        "if os.path.exists('x'):\n    os.environ.setdefault('B', '1')\n    os.environ.update({'C': '1'}, D='2')",
        "def f(y):\n    os.environ.setdefault('B', '1')\nlist(map(f, [1]))",
        "get_ipython().run_cell_magic('bash', '', 'ls')\nget_ipython().run_line_magic('matplotlib', 'inline')",
    ],
)
def test_usual_code_leaves_names_and_variables_known(tmp_path: Path, code: str) -> None:
    start = START + "from nets import load\nx = os.environ['A'] = '/a'"
    result = read(tmp_path, notebook([start, code, "os.environ['R'] = x + os.environ['A']"]))
    assert result.variables["R"] == "/a/a"


@pytest.mark.parametrize(
    "code",
    [
        "os.nosuch",
        "os.nosuch()",
        "from os import nosuch",
        "'a'.nosuch()",
        "[].nosuch",
        "Path('a').nosuch()",
        "'a' % 1",
        "if 1 < 2:\n    os.nosuch()",
        "def f():\n    os.nosuch()\n    return '/b'\nf()",
        "for i in [1]:\n    os.nosuch()",
        "os.environ['NOPE']",
        "%env NOPE",
        "if os.environ.get('NOPE') is None:\n    raise ValueError('NOPE is not set')",
        "assert os.getenv('NOPE')",
        "import sys\nif not os.getenv('NOPE'):\n    sys.exit(1)",
    ],
)
def test_what_follows_code_that_may_fail_is_not_taken_to_be_run(tmp_path: Path, code: str) -> None:
    cells = [START + "os.environ['R'] = '/a'", f"{code}\nos.environ['R'] = '/b'", "os.environ['S'] = '/c'"]
    result = read(tmp_path, notebook(cells))
    assert result.variables.get("R", "/a") == "/a"
    assert result.variables["S"] == "/c"


def test_a_path_function_with_an_option_is_unknown(tmp_path: Path) -> None:
    cell = START + "os.environ['R'] = os.path.realpath('nosuch', strict=True)"
    assert "R" not in read(tmp_path, notebook([cell])).variables


def test_a_module_that_is_imported_again_loses_nothing(tmp_path: Path) -> None:
    """NVIDIA's notebooks import ``os`` in many cells, also after a function that uses it and is not followed."""
    function = (
        "def count(folder):\n    return sum(1 for _ in os.listdir(folder))\nfor n in [count('/d')]:\n    print(n)"
    )
    cells = [START + "os.environ['A'] = '/a'", function, "import os\nos.environ['R'] = os.environ['A'] + '/x'"]
    assert read(tmp_path, notebook(cells)).variables["R"] == "/a/x"


def test_a_module_that_is_imported_again_in_code_that_is_not_followed_loses_nothing(tmp_path: Path) -> None:
    code = "try:\n    import os\n    from os.path import normpath\nexcept ImportError:\n    pass"
    result = read(tmp_path, notebook([START + "os.environ['R'] = '/a'", code, code]))
    assert result.variables["R"] == "/a"
    assert not result.notes


@pytest.mark.parametrize(
    ("path", "is_known"),
    [
        ("os.path.join(name, 'x.txt')", True),
        ("f'{name}/spec.txt'", True),
        ("name + '.json.txt'", True),
        ("Path(name) / 'labels.csv'", True),
        ("name", False),
        ("name + 'json'", False),
        ("os.path.join(name, '.tao_mounts.json')", False),
        ("os.path.dirname(name + '/x.txt')", False),
        ("os.path.join('x.txt', name)", False),
    ],
)
def test_a_file_of_unknown_path_with_another_end_is_not_the_mounts_file(
    tmp_path: Path, path: str, is_known: bool
) -> None:
    """Notebooks write labels and spec files into folders that are not known."""
    mapping = f"import glob\nname = glob.glob('x')[0]\ntao_configs = {MAPPING}\n"
    result = read(tmp_path, notebook([START + mapping + write(), f"open({path}, 'w').write('{{}}')"]))
    assert (result.mapping == MAPPING) is is_known


def test_variables_that_the_code_needs_and_does_not_set_are_asked_for(tmp_path: Path) -> None:
    """Scripts take them from the shell or from a .env file."""
    mounts = "tao_configs = {'Mounts': [{'source': os.environ['A'] + '/x', 'destination': os.environ['B']}]}\n"
    cells = ["import os\n" + mounts + write()]
    result = read(tmp_path, notebook(cells))
    assert [(question.name, str(question.location)) for question in result.questions] == [
        ("A", "cell 1, line 2"),
        ("B", "cell 1, line 2"),
    ]
    result = read(tmp_path, notebook(cells), A="/a", B="/b")
    assert result.mapping == {"Mounts": [{"source": "/a/x", "destination": "/b"}]}
    assert result.variables == {"A": "/a", "B": "/b"}


def test_a_guard_against_a_variable_that_is_not_set_claims_nothing(tmp_path: Path) -> None:
    guard = "import os\nkey = os.environ.get('NOPE')\nif key is None:\n    raise ValueError('NOPE')\n"
    cell = guard + f"tao_configs = {MAPPING}\n" + write()
    result = read(tmp_path, notebook([cell]))
    assert [question.name for question in result.questions] == ["NOPE"]
    assert "raised by the code itself, which may depend on NOPE" in result.notes[0]
    assert read(tmp_path, notebook([cell]), NOPE="1").mapping == MAPPING


def test_a_folder_to_change_to_that_does_not_exist_is_named(tmp_path: Path) -> None:
    result = read(tmp_path, notebook([START + "os.chdir('nope')\nos.environ['R'] = '/b'"]))
    assert result.notes == [
        "cell 1, line 5: the folder 'nope' does not exist here; the cell may end at this line when run"
    ]
