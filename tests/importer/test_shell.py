"""Shell scripts that export variables and write the mapping: reading finds what really running them in bash does."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.importer.notebooks import read, rendered
from tests.support.home import find_command

MAPPING = '{"Mounts": [{"source": "§", "destination": "/x"}]}'
HERE = f"cat > ~/.tao_mounts.json <<EOF\n{MAPPING}\nEOF\n"


def here(source: str, before: str = "") -> str:
    return before + "\n" + HERE.replace("§", source)


SCRIPTS = {
    "exports": here("$A", "export A=/a\nexport B='b c' C=\"c d\""),
    "an assignment first": here("$A", "A=/a\nexport A\nB=unseen"),
    "braces": here("${A}/${B}", "export A=/a B=b"),
    "several": here("$A", "export A=/a; export B=b && export C=c"),
    "a default": here("${A:-/d}", "export B=${C:-x}"),
    "a default that is not used": here("${A:-/d}", "export A=/a"),
    "a default of variables": here("${A:-$B/${C:-c}}", "B=/b"),
    "a default for the empty": here("/${A:-d}${A-e}${B-f}", "export A="),
    "a default that is set": here("$A", ': "${A:=/d}"\nexport A'),
    "a default of the home": here("${A:-$HOME/x}"),
    "pwd": here("$(pwd)/x", "export A=`pwd` B=$PWD"),
    "cd": here("$(pwd)", "mkdir -p sub/b && cd sub\ncd b\nexport A=$(pwd)"),
    "cd and back": here("$(pwd)", "mkdir -p sub\ncd sub\ncd ..\nexport A=$(pwd)"),
    "id": here("/x", "export A=$(id -u):$(id -g) U=$(id -u)").replace(
        "]}", '], "DockerOptions": {"user": "$(id -u):$(id -g)"}}'
    ),
    "the script's folder": here("$D/x", 'D="$(cd "$(dirname "$0")" && pwd)"\nexport D'),
    "the script's folder in bash": here(
        "$D/x", 'export D=$( cd "$( dirname "${BASH_SOURCE[0]}" )" >/dev/null 2>&1 && pwd )'
    ),
    "dirname and basename": here("$(dirname /a/b/c)/$(basename /d/e)", "P=/p/q/\nexport A=$(dirname $P) B=$(basename $P)"),
    "realpath": here("$(realpath .)"),
    "a quoted here-document": here("/a$B", "export B=b").replace("<<EOF", "<<'EOF'"),
    "a here-document in double quotes": here("/a$B", "export B=b").replace("<<EOF", '<<"EOF"'),
    "a here-document of tabs": "export A=/a\ncat <<-END > $HOME/.tao_mounts.json\n\t" + MAPPING.replace("§", "$A") + "\n\tEND\n",
    "a here-document through tee": here("/a").replace("cat > ~/.tao_mounts.json <<EOF", "cat <<EOF | tee ~/.tao_mounts.json"),
    "tee": here("/a").replace("cat > ~/.tao_mounts.json <<EOF", "tee ~/.tao_mounts.json <<EOF >/dev/null"),
    "a here-document with escapes": here(r"/a\$B\\`echo /b`"[:5] + "c", "export B=b"),
    "echo": "echo '" + MAPPING.replace("§", "/a") + "' > ~/.tao_mounts.json",
    "echo with variables": 'A=/a\necho "' + MAPPING.replace("§", "$A").replace('"', '\\"') + '" > $HOME/.tao_mounts.json',
    "echo put together": "A=/a\necho '" + MAPPING.replace("§", "'$A'") + "' > ~/.tao_mounts.json",
    "printf": "printf '" + MAPPING.replace("§", "/a") + "' > ~/.tao_mounts.json",
    "printf of a format": "printf '%s\\n' '" + MAPPING.replace("§", "/a") + "' > ~/.tao_mounts.json",
    "a file in a variable": 'F="$HOME/.tao_mounts.json"\nexport A=/a\n' + here("$A").replace("~/.tao_mounts.json", '"$F"'),
    "tlt": here("/a").replace("tao_mounts", "tlt_mounts"),
    "written twice": here("/a") + here("/b"),
    "continued lines": here("$A", "export A=/a \\\n  B=b \\\n  C=c"),
    "comments": here("$A#b", "export A=/a # not this\n# export A=/b\nexport B=b#c"),
    "tildes": here("$A", "export A=~/a B=~ C='~' D=\"~/x\" E=a~"),
    "quotes": here("$A", "export A=/a'b'\"c\"d\\ e B=\"a 'b' \\\"c\\\" \\$d\""),
    "dollars": here("/a", "export A='$B' B=\"a$\" C=a\\$b"),
    "an empty one": here("/a", "export A= B='' C=\"\""),
    "set again": here("$A", "export A=/a\nA=/b\nexport B=$A"),
    "set after the file": here("$A", "export A=/a") + "\nexport A=/b B=c\n",
    "unset": here("/a", "export A=a B=b\nunset A"),
    "declare": here("$A", "declare -x A=/a\nreadonly B=b\ntypeset -x C=c"),
    "set -e": "#!/usr/bin/env bash\nset -euo pipefail\n" + here("/a", "export A=a"),
    "CRLF in JSON only": here("/a"),
    "a loop of no matter": here("$A", "export A=/a\nfor x in 1 2; do echo $x > /dev/null; done\nif true; then echo; fi"),
    "a function of no matter": here("$A", 'say() {\n  echo "$1"\n}\nexport A=/a\nsay hello'),
    "a function that is not called": here("$A", "export A=/a\nchange() {\n  export A=/b\n}\n"),
    "a function not called, on one line": here("$A", "export A=/a\nchange() { export A=/b; }\nfunction other { export A=/c; }"),
    "braces of a group": here("$A", "{ export A=/a; }"),
    "a comment in a here-document": here("/a # b"),
    "redirected elsewhere": here("/a", "echo x > /dev/null 2>&1; echo y 2>/dev/null >&2"),
    "exec and exit": here("/a") + "exit 0\n",
    "after the exit": here("/a", "export A=a") + "exit 0\nexport A=b\n" + HERE.replace("§", "/b"),
    "a test of a folder": here("$A", 'export A=/a\n[ -d "$A" ] || true\ntest -n "$A" && true'),
}  # fmt: skip


@pytest.mark.parametrize("name", SCRIPTS)
def test_reading_finds_what_bash_does(tmp_path: Path, name: str) -> None:
    home = tmp_path.resolve() / "home"
    folder = home / "nb"
    folder.mkdir(parents=True)
    script = SCRIPTS[name]
    if not script.startswith("#!"):
        script = "#!/bin/bash\n" + script
    (folder / "file").write_text(script)
    environ = {"HOME": str(home), "PATH": "/usr/local/bin:/usr/bin:/bin", "USER": "ana"}
    (folder / "after").write_text("trap 'env -0 > \"$HOME/after\"' EXIT\n")
    subprocess.run(
        [find_command("bash"), "file"],
        cwd=folder,
        env={**environ, "BASH_ENV": "after"},
        capture_output=True,
        check=True,
    )
    after = dict(line.split("=", 1) for line in (home / "after").read_text().split("\0") if line)
    own = {"PWD", "OLDPWD", "SHLVL", "_", "BASH_ENV"}
    expected = {key: value for key, value in after.items() if environ.get(key) != value and key not in own}
    mounts = [home / f".{kind}_mounts.json" for kind in ("tao", "tlt")]
    mapping = next(json.loads(path.read_text()) for path in mounts if path.exists())
    found = read(home, script.encode(), folder=folder)
    assert found.mapping == mapping, found.notes
    assert found.left_out == []
    assert found.variables == expected
    assert found.questions == []
    written = rendered(home, found)
    variables = {key: f"{home}{value[1:]}" if value.startswith("~") else value for key, value in expected.items()}
    assert written == (variables, mapping)


UNSURE = {
    "if": 'export A=/a\nif [ -n "$X" ]; then\n  export A=/b\nfi',
    "else": 'export A=/a\nif [ -n "$X" ]; then\n  :\nelse\n  export A=/b\nfi',
    "for": "export A=/a\nfor x in $LIST; do\n  export A=/$x\ndone",
    "case": "export A=/a\ncase $X in\n  a) export A=/b;;\nesac",
    "while": "export A=/a\nwhile read x; do export A=$x; done",
    "a command's output": "export A=$(cat file)",
    "an argument": "export A=$1",
    "an expansion": "export A=${B%/*}",
    "a called function": "f() {\n  export A=/b\n}\nexport A=/a\nf",
    "a short if": '[ -d /nowhere ] && export A=/b\n[ -d /nowhere ] || export A=/a',
    "a source": "export A=$B",
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name in UNSURE if name != "a source"])
def test_what_depends_on_running_is_asked(tmp_path: Path, name: str) -> None:
    found = read(tmp_path, ("#!/bin/bash\n" + UNSURE[name] + "\n" + HERE.replace("§", "$A")).encode())
    assert [question.name for question in found.questions] in (["A"], ["/x"], [""])
    found = read(tmp_path, ("#!/bin/bash\n" + UNSURE[name] + "\n" + HERE.replace("§", "$A")).encode(), A="/given")
    assert (found.questions, found.mapping["Mounts"][0]["source"]) == ([], "/given")
