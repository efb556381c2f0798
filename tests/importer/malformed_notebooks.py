"""Notebooks that mean harm, or are just broken: made from a grammar by a number, and by hand.

``python -m tests.importer.malformed_notebooks FOLDER SHARE`` reads those that are asked for on standard input, in a process of its
own, under a hook that sees every file opened, program started, module imported or code compiled. SHARE is how much of
what a notebook may cost it may cost here.
"""

from __future__ import annotations

import faulthandler
import json
import random
import re
import resource
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

SECONDS = 20.0  # of CPU; what grows exponentially takes minutes
"""What reading one of them may take."""
MEMORY = 600 << 20
"""What all of the process may take, Python's own share with it."""

WRITE = 'with open(os.path.expanduser("~/.tao_mounts.json"), "w") as f:\n    json.dump(tao_configs, f)'


# The grammar

LEAVES = r"""
0 1 -1 2.5 1e999 -1e999 1e-320 True None 10**10**10 9**9**9 2**255*2**255*2**255 0xffffffffffffffffffffffff 1j ...
"" "a" 'x/y' "/data" "FIXME" "~/x" "\ud800" "\0" "%s%s" "{}{}{0}" "{0.__class__}" "{a[b]}" "{:>99999999999}" "a"*10**12
"%1000000000d"%1 f"{1:>99999999999}" "x"*60000 [0]*10**9 "{}".format "%(a)s" "²" "{²}".format(1) "{:{}}" b"x" b"\xff"*9
[] {} () set() [[]]*3 range(10**18) range(-10**18,10**18) list(range(9999)) "a,"*30000 FIXME YOUR_PATH a b c d x tao_configs
os os.environ os.path os.environ["HOME"] os.environ["A"] json Path __builtins__ __name__ __file__ globals() locals() vars()
().__class__.__bases__[0].__subclasses__() (lambda:0).__globals__ os.__dict__ "".__class__ int.__subclasses__ print open
eval("1") exec("x=1") compile("1","","eval") __import__("canary") __import__("os").system("touch§canary-touched") getattr(os,"system")
open("canary.txt","w").write("x") os.system("touch§canary-touched") os.popen("touch§canary-touched").read() input()
subprocess.run(["touch","canary-touched"]) socket.socket() os.remove("canary.txt") os.unlink("canary.txt") exit() quit()
Path("canary.txt").unlink() Path("canary.txt").write_text("x") os.rename("canary.txt","y") shutil.rmtree(".") os.fork()
importlib.import_module("canary") pickle.loads(b"cos\nsystem\n(S'touch§canary-touched'\ntR.") os.kill(0,9) os._exit(1)
""".split()  # fmt: skip

WHOLE = r"""
while True: pass
while 1: a = [a, a]
for x in range(10000): a = a + a if a else [1]
for x in [0, 1, 2, 3]: os.environ["A"] = os.environ.get("A", "") + os.environ["A"]
for x in ["a", "b", "c"]: tao_configs["Mounts"].append({"source": os.environ.get("A"), "destination": f"/{x}"})
for x in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]: a = [a, a]
a = []; a.append(a); b = {"a": a}; b["b"] = b; a == a; json.dumps(b); tao_configs["x"] = b
[x for x in range(9999) for y in range(9999) for z in range(9999)]
def f(n=1): return f(n + 1) + f(n + 2)
f(1)
def g(): return g
f = lambda x: f(f)(f)
(lambda f: f(f))(lambda f: f(f))
class A(B, metaclass=C): os.environ["A=B"] = "x"
os.environ["A=B"] = "x"
os.environ[""] = "x"
os.environ["A\0"] = "x"
os.environ = {}
os.environ["A"] += os.environ["A"]
os.environ.update({1: 2})
os.environ["A"], *b, c["d"] = "abc"
import canary
from canary import *
from . import canary
import os as json, json as os
import google.colab
del os.environ["A"], a, a[0], a[:]
global a
return 1
yield 1
await a
async def f(): await a
async with a as b: pass
break
continue
raise
raise a from b
raise SystemExit
raise KeyboardInterrupt
assert a, b
with open("canary.txt", "w") as f: f.write("x")
with a as (b, [c, d]), open(a) as e: pass
print(a, file=open("canary.txt", "w"))
!touch canary-touched
!rm -rf . && touch canary-touched > ~/.tao_mounts.json
x = !touch canary-touched
%cd {__import__("os").system("touch canary-touched")}
%env A={open("canary.txt","w")}
%env A={a}{b}$c$$d${e}{{f}}{a!r}{a:>9}{a.b[0]}
%env A={0.__class__}
%env {a}={b}
%env A={[x for x in range(10**9)]}
%env
%env =
%env = =
%env A B=c
%set_env A \
%run canary.py
%load_ext canary
%time open("canary.txt", "w")
?canary
canary??
_·(0)
_·(99999999999)
_·(-1)
_·("x")
_·()
""".strip().split("\n")

BROKEN = [
    "'''",
    '"""',
    "@a",
    "type X = int",
    "try: a()",
    "match a:",
    "%%time",
    ">>> import canary",
    "In [1]: import canary",
    "$",
]
BASH = "%%bash\ntouch canary-touched\ncat > ~/.tao_mounts.json <<EOF\n{}\nEOF"

FORMS = r"""§1 + §2|§1 % §2|§1 * §2|§1 ** §2|§1 // §2|§1 / §2|§1 | §2|§1 << §2|-§1|not §1|§1 and §2 or §3|§1 if §2 else §3|[§1, §2]|(§1, §2)
{§1: §2}|{**§1, "x": §2}|[*§1, §2]|{§1, §2}|§1[§2]|§1[§2:§3]|§1[::§2]|§1.x|§1.__class__|§1.format(§2, a=§3)|§1.join(§2)|§1.split(§2)
§1(§2)|§1(*§2, **§3)|(lambda a, b=§2: §1)(§3)|[§1 for a in §2 if §3]|{a: §1 for a in §2}|(§1 for a, b in §2)|f"{a}/{b!r}"|f'{a}{b:>{c}}'
str(§1)|int(§1)|len(§1)|dict(§1)|list(§1)|tuple(§1)|range(§1)|range(§1, §2, §3)|enumerate(§1, §2)|zip(§1, §2)|sorted(§1)|any(§1)|bool(§1)
isinstance(§1, str)|os.path.join(§1, §2)|os.path.expanduser(§1)|os.path.expandvars(§1)|os.path.abspath(§1)|os.path.realpath(§1)
os.path.split(§1)|os.path.exists(§1)|os.path.splitext(§1)|os.getenv(§1, §2)|os.environ.get(§1)|os.environ.setdefault(§1, §2)|os.environ.pop(§1)
os.environ.update(§1)|json.dumps(§1)|json.loads(§1)|json.dump(§1, open(§2, "w"))|json.load(open(§1))|copy.deepcopy(§1)|Path(§1) / §2
Path(§1).parent|str(Path(§1))|Path(§1).resolve()|Path(§1).with_name(§2)|§1.replace(§2, §3)|§1.strip(§2)|§1.rsplit(§2, §3)|§1.find(§2, §3)
§1.update(§2)|§1.append(§2)|§1.extend(§2)|§1.insert(§2, §3)|§1.pop(§2)|§1.get(§2)|§1.items()|§1.index(§2)|§1.startswith(§2)|§1.encode()
§1 == §2|§1 in §2|§1 < §2|§1 is §2|(a := §1)|os.makedirs(§1)|os.chdir(§1)|os.getuid()|print(§1, file=open(§2, "w"))|open(§1, "w").write(§2)
reversed(§1)|§1.partition(§2)|§1.title()|§1.count(§2)|§1.removeprefix(§2)|{**§1, **§2}|"%s/%d" % (§1, §2)|"{:>{}}".format(§1, §2)"""

STATEMENTS = r"""a = §1|b = §1|c = a = §1|a, b = §1|a += §1|b *= §1|os.environ["A"] = §1|os.environ[§1] = §2|§1|tao_configs["Mounts"] = §1
tao_configs["Mounts"].append({"source": §1, "destination": "/x"})|tao_configs = §1|tao_configs["DockerOptions"] = §1|a[§1] = §2|del a[§1]
tao_configs["Envs"] = [{"variable": §1, "value": §2}]|c[§1] = c|return §1|assert §1|raise §1|x: §1 = §2|%env A={§1}|%env A=$a/{§1}/$b
%cd {§1}|a.b = §1|[a, *b] = §1|a |= §1|os.environ |= §1|!mkdir -p {§1}|%env {§1}"""

BLOCKS = ["if §1:", "for a in §1:", "while §1:", "try:", "with §1 as a:", "def f(a=§1, *, b=1):", "class C:"]


class Writer:
    """Writes programs by a number: the same number, the same program."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def expression(self, depth: int) -> str:
        pick = self.random
        if depth <= 0 or pick.random() < 0.3:
            leaf = pick.choice(LEAVES).replace("§", " ")
            return leaf if leaf.isidentifier() else f"({leaf})"
        form = pick.choice(re.split(r"[|\n](?! §)", FORMS))
        return re.sub("§[123]", lambda _: self.expression(depth - 1), form)

    def statement(self, depth: int, indent: str = "") -> str:
        pick = self.random
        if depth <= 0 or pick.random() < 0.25:
            return indent + pick.choice(WHOLE)
        if pick.random() < 0.65:
            form = pick.choice(re.split(r"[|\n](?!=)", STATEMENTS))
            return indent + re.sub("§[12]", lambda _: self.expression(3), form)
        lines = [indent + pick.choice(BLOCKS).replace("§1", self.expression(2))]
        lines += [self.statement(depth - 1, indent + "    ") for _ in range(pick.randint(1, 4))]
        if lines[0].strip() == "try:":
            lines += [indent + pick.choice(["except:", "except KeyError as e:", "finally:"]), indent + "    a = 1"]
        return "\n".join(lines)

    def cell(self) -> str:
        lines = [self.statement(4) for _ in range(self.random.randint(1, 6))]
        if self.random.random() < 0.05:
            lines.insert(self.random.randrange(len(lines)), self.random.choice(BROKEN))
        if self.random.random() < 0.4:
            lines.append(WRITE)
        return BASH if self.random.random() < 0.03 else "\n".join(lines)

    def notebook(self) -> bytes:
        start = "import os, json, sys, copy\nfrom pathlib import Path\na, b, c = '/a', ['/b'], {}\ntao_configs = {'Mounts': []}"
        sources = [start, *(self.cell() for _ in range(self.random.randint(1, 5)))]
        cells: list[Any] = [{"cell_type": "code", "source": source} for source in sources]
        if self.random.random() < 0.5:
            cells.append({"cell_type": "code", "source": WRITE.splitlines(keepends=True)})
        if self.random.random() < 0.05:
            odd = [None, 7, [], "x", {}, {"cell_type": "code"}, {"cell_type": "code", "source": {}}]
            cells.append(self.random.choice(odd))
        content = json.dumps({"cells": cells, "nbformat": 4}).encode()
        return self.mutated(content) if self.random.random() < 0.2 else content

    def mutated(self, content: bytes) -> bytes:
        """Change a few bytes, as a broken disk or a wrong editor does."""
        pick, whole = self.random, bytearray(content)
        for _ in range(pick.randint(1, 8)):
            at = pick.randrange(len(whole) + 1)
            end = min(len(whole), at + pick.choice([0, 1, 1, 2, 50]))
            piece = bytes(whole[pick.randrange(len(whole) + 1) :][: pick.randint(0, 60)])
            byte = bytes([pick.randrange(256)])
            whole[at:end] = pick.choice([b"", b"", byte, piece, b'"', b"\\", b"{", b"\n", b"\xff"])
        return bytes(whole)


# By hand


def _code(*sources: str) -> bytes:
    return json.dumps({"cells": [{"cell_type": "code", "source": source} for source in sources]}).encode()


def _mounts(source: str, before: str = "", more: str = "") -> bytes:
    start = "import os, json\n" + before
    return _code(start, f'tao_configs = {{"Mounts": [{{"source": {source}, "destination": "/x"}}]{more}}}\n{WRITE}')


def _text(text: str) -> bytes:
    """Write a text as it is into the mounts file."""
    return _code(f"import os\nopen(os.path.expanduser('~/.tao_mounts.json'), 'w').write('{text}')")


def _stairs(line: str, times: int, last: str) -> str:
    return "\n".join([*(" " * n + line.replace("§", str(n)) for n in range(times)), " " * times + last])


NESTED = """
brackets|[|1|]
round brackets|(|"/x"|)
braces|{1:|1|}
not|not |1|
minus|-|1|
plus|'a' + |'b'|
power|1**|1|
or|'' or |'b'|
attributes||os|.path
methods||'x'|.strip()
entries||os|[0]
calls||os|()
inner calls|str(|1|)
lambdas|lambda: |1|
called lambdas|(lambda a=1: |1|)()
conditionals|1 if 1 else |1|
conditions||1| if 1 else 1
comparisons|1 < |2|
walruses|(a := |1|)
stars|[*|[1]|]
joins|os.path.join('a', |'b'|)
f-strings|f'{|1|}'
comprehensions|[x for x in |[1]|]
unpackings|{**|{}|}
"""

FAR = 10**30
MOUNT = "tao_configs['Mounts'].append({'source': §, 'destination': f'/{x}'})"
FILLS = "\n".join(f"os.environ['K{x}'] = os.environ.get('K{x - 1}', '/path/to')" for x in range(1500))
LAYOUT = """import os, json
for a in ('LOCAL', 'HOST'):
    for b in ('PROJECT', 'DATA', 'SPECS', 'EXPERIMENT', 'RESULTS', 'MODEL'):
        os.environ[f'{a}_{b}_DIR'] = f'/p/{b.lower()}'"""


def _loop(times: int, body: str) -> str:
    """Write a loop that is followed: over a list that stands there."""
    return f"for x in {[*range(times)]}:\n    {body}"


def _many(source: str, before: str) -> bytes:
    return _code(
        f"import os, json\n{before}",
        f"tao_configs = {{'Mounts': []}}\n{_loop(1500, MOUNT.replace('§', source))}\n{WRITE}",
    )


SPECIAL: dict[str, Callable[[], bytes]] = {
    **{
        f"{name}, {times} within each other": lambda o=opening, m=middle, c=closing, t=times: _mounts(o * t + m + c * t)
        for name, opening, middle, closing in (line.split("|") for line in NESTED.strip().splitlines())
        for times in (40, 58, 200, 1500, 20000)
    },
    **{
        f"a mapping that is {value}": lambda value=value: _code(f"import json, os\ntao_configs = {value}\n{WRITE}")
        for value in (
            *("[]", "'x'", "7", "None", "{}", "{'Mounts': {}}", "{'Mounts': [1, None, 'x', []]}", "{1: 2, None: 3}"),
            "{'Mounts': [{'source': 1, 'destination': []}], 'DockerOptions': 'x', 'Envs': {}}",
            "{'Mounts': [], 'Envs': [{'variable': 1, 'value': None}, {'variable': 'A=B', 'value': '\\0'}]}",
            "{'Mounts': [], 'DockerOptions': {'user': 7, 'ulimits': [], 'shm_size': -1, 'ports': {'x': 'y'}, 'no': 1}}",
            "{'Mounts': [{'source': '\\ud800', 'destination': '\\0'}]}",
            "{'Mounts': [{'source': '', 'destination': ''}]}",
            "{'Mounts': [{'source': '/x\\n', 'destination': 'rel'}]}",
            "{'Mounts': [{'source': '~root/x', 'destination': '/x'}]}",
            "{'Mounts': [{'source': '/x', 'destination': '/x'}], 'x': [1e999, -1e999, 1e999 - 1e999]}",
        )
    },
    # Nested statements
    "ifs": lambda: _code(_stairs("if 1:", 95, "a = 1")),
    "too many ifs": lambda: _code(_stairs("if 1:", 300, "a = 1")),
    "else-ifs": lambda: _code("if 0: a = 1\n" + "elif 0: a = 2\n" * 900),
    "many else-ifs": lambda: _code("if 0: a = 1\n" + "elif 0: a = 2\n" * 9000),
    "functions": lambda: _code(_stairs("def f():", 60, "return 1") + "\nf()"),
    "loops": lambda: _code(_stairs("for a§ in range(10):", 19, "x = 1")),
    "tries": lambda: _code(
        _stairs("try:", 19, "1/0\n") + "\n".join(" " * n + "finally:\n" + " " * n + " while 1: pass" for n in range(18, -1, -1))
    ),
    "a long function": lambda: _code("def f():\n" + " while g():\n  a = 1\n" * 5000 + "for x in range(9999): f()"),
    "loops that are not followed": lambda: _code(*["while input():\n" + " x = 1\n" * 9000] * 8),
    # Lines and magics
    "a line of blanks": lambda: _code("a" + " " * 130_000, "a" + " " * 100_000 + "; b", "x" + "\t" * 100_000 + "!"),
    "points": lambda: _code("a" + " ." * 60_000 + " = 1", " " * 100_000 + "%env A=b", "a." * 60_000 + "?"),
    "long names": lambda: _code("%env " + "A" * 100_000 + "=b", "a" * 100_000 + " = 1", "%env A=" + "b" * 100_000),
    "blanks in a name": lambda: _code("%env " + "A " * 60_000 + "=b"),
    "dollars": lambda: _code("a = 1", "%env A=" + "$" * 100_000, "%env A=" + "$a" * 50_000, "%env A=" + "$a'" * 40_000),
    "braces": lambda: _code("a = 1\n%env A=" + "{" * 99_999, "%env A=" + "{a}" * 40_000, "%env A=" + "{" * 900 + "}" * 900),
    "continued lines": lambda: _code("%env A=b\\\n" * 20_000, "a = 1 + \\\n" * 20_000, "!x \\\n" * 30_000),
    "odd line ends": lambda: _code("a = 1\x0b%env A=b\x0c\n\x1c%env B=c\u2028%env C=d\x85\n%env D=e\r%env E=f"),
    "a NUL": lambda: _code("a = 1\0", "%env A=\0", "os = '\0'"),
    "surrogates": lambda: _mounts(
        "'/x'", "%env A=\ud800\n%env \udcff=x\nb = '\\ud800'\nos.environ['\\udcff'] = b\nos.environ['B'] = b"
    ),
    "an endless text": lambda: _code("'''" + "x" * 100_000, "'" + "\\" * 99_999, '"""' * 30_000),
    "a long line": lambda: _code("a = [" + "1," * 60_000 + "]", "a = '" + "x" * 120_000 + "'", "a = 1;" * 20_000),
    # Placeholders and formats
    "FIXMEs": lambda: _mounts(f"'{'FIXME_' * 15_000}'", f"a = '{'path/to' * 9000}'\nb = '{'<' * 60_000}'"),
    "placeholders": lambda: _mounts(f"'{'/YOUR_/path/to<REPLACE' * 2800}'", "%env A=" + "FIX_" * 20_000),
    "percents": lambda: _mounts(f"'{'%(' * 30_000}' % {{}}", f"x = '{'%(a' * 20_000}' % {{}}\ny = '%s' * 30000 % 1"),
    "formats": lambda: _mounts(f"'{'{0}' * 20_000}'.format('abcdefgh')"),
    "formats of digits": lambda: _mounts("'{" + "0" * 5000 + "1}'.format('a')", "a = '{0000000001}'.format('a')"),
    "digits that are none": lambda: _mounts("'{²}{³}'.format('a')"),
    # Numbers
    "a number of 5,000 digits": lambda: _mounts(f"str({'9' * 5000})"),
    "far": lambda: _mounts(f"'a b'.rsplit(' ', {FAR})[0]", f"x = 'a'.find('a', -{FAR})\ny = [1][{FAR}]"),
    # Texts of many pieces, and chains of variables
    "pieces": lambda: _mounts("a", f"%env A=x\na = os.environ['A'] + ','\n{_loop(15, 'a = a + a')}\nb = a.split(',')"),
    "pieces cut again and again": lambda: _code(
        "import os\nos.environ['A'] = 'x'\na = ''\n" + _loop(400, "a = a + os.environ['A'] + ','"),
        *[_loop(999, "c = a.split(','); d = a.replace(',', 'y'); e = os.path.dirname(a)")] * 20,
    ),
    "a chain": lambda: _mounts(
        "b", "os.environ['A'] = '/x'\n" + _loop(2000, "os.environ['A'] = os.environ['A'] + 'y'") + "\nb = os.environ['A']\n%env A=/y"
    ),
    "a chain of variables": lambda: _many("os.environ['K1499']", FILLS),
    "many mounts": lambda: _many("f'/d/{x}'", FILLS),
    "many unknown mounts": lambda: _many("input()", FILLS),
    "a layout of many": lambda: _many("os.environ['LOCAL_PROJECT_DIR']", LAYOUT + "\n" + FILLS),
    # JSON in the mounts file
    "deep JSON": lambda: _text("[" * 900 + "]" * 900),
    "deep JSON in a mapping": lambda: _text('{"Mounts": [], "X": ' + "[" * 700 + "]" * 700 + "}"),
    "long JSON": lambda: _text('{"Mounts": [' + ",".join('{"source": "/%d", "destination": "/x"}' % n for n in range(2000)) + "]}"),
    # Much of everything
    "a cell that is too long": lambda: _code("a = 1\n" * 30_000),
    "long cells": lambda: _code(*["a = [" + "'/x'," * 20_000 + "]"] * 5),
    "code of 3 MB": lambda: _code(*["#" * 100_000] * 30),
    "100,000 cells": lambda: _code(*["a = 1"] * 100_000),
    "2,000 cells": lambda: _code(*["a = 1"] * 2000),
    "2,000 endless cells": lambda: _code("a = [0] * 9999", *["while 1: a = a + [0]\na"] * 1999),
    "2,000 cells of bash": lambda: _code(*["%%bash\nA=$A$A$A$A\n" + "export B=.tao_mounts.json\n" * 30] * 1999),
    "a giant output": lambda: json.dumps(
        {"cells": [{"cell_type": "code", "source": "a = 1", "outputs": ["x" * 30_000_000]}]}
    ).encode(),
    "more than 64 MB": lambda: b'{"cells": [' + b" " * (1 << 26) + b"]}",
    "a list that is spoilt": lambda: _code(f"a = {[0] * 9999}", *[_loop(2000, "input(a)")] * 30),
    "a list that grows": lambda: _code("a = [0]\n" + _loop(40, "a = a + a"), "b = {}\n" + _loop(9999, "b.update({x: a})")),
    "shared": lambda: _code(f"import json\na = ['x']\n{_loop(55, 'a = [a, a]')}\nb = json.dumps(a)", "a == a\nc = str(a)"),
    "shared dictionaries": lambda: _mounts("'/x'", "a = {}\n" + _loop(50, "a = {'a': a, 'b': a}") + "\n", ", 'x': a"),
    "a long text bound again and again": lambda: _code(f"a = '{'x' * 60000}'", *[_loop(9999, "b = a; c = a; d = f(a)")] * 20),
    # Files that are no notebooks
    "no JSON": lambda: b'{"cells": [',
    "not UTF-8": lambda: b'{"cells": ["\xff\xfe"]}',
    "UTF-16": lambda: json.dumps({"cells": []}).encode("utf-16"),
    "nested JSON": lambda: b'{"cells": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    "nested JSON within bounds": lambda: b'{"cells": ' + b"[" * 900 + b"]" * 900 + b"}",
    "a huge number": lambda: b'{"cells": [], "a": ' + b"9" * 10_000 + b"}",
    "cells of wrong kinds": lambda: json.dumps(
        {"cells": [None, 1, "x", [], {}, {"cell_type": []}, {"cell_type": "code"}, {"cell_type": "code", "source": 7},
                   {"cell_type": "code", "source": [1, None, ["x"], "a = 1"]}]}
    ).encode(),
    "cells that are none": lambda: json.dumps({"cells": {"a": 1}}).encode(),
    "the same key twice": lambda: b'{"cells": 1, "cells": [{"cell_type": "code", "source": "a", "source": "b"}]}',
}  # fmt: skip


# The process in which they are read


def _main() -> None:
    from taoprofiles.errors import TaoprofError
    from taoprofiles.importer import build, state
    from taoprofiles.masking import printable
    from taoprofiles.profiles.model import parse, to_toml
    from taoprofiles.storage.paths import Context

    folder = sys.argv[1]
    for bound in ("STEPS_LIMIT", "SIZE_LIMIT"):
        setattr(state, bound, int(getattr(state, bound) * float(sys.argv[2])))
    context = Context({"HOME": folder, "USER": "ana", "NGC_API_KEY": "secret"})

    def read(content: bytes) -> str:
        source = build.SourceFile(context, content, where="file", path=f"{folder}/file")
        result = source.evaluate({})
        if result.questions:
            result = source.evaluate({question.name: "/answer" for question in result.questions if question.name})
        profile, notes = build.build(result, name="net", where="file")
        for text in [*result.notes, *notes]:
            printable(text)
        parse(to_toml(profile).encode(), name="net", path="net.toml")
        return "imported"

    read(_mounts("'~root/warm/up'", "ä = 1\n"))  # expanduser imports pwd at its first '~user'
    printable("\x1b")  # imports a codec
    events: list[str] = []
    watching = False

    def hook(event: str, details: tuple[Any, ...]) -> None:
        if watching and event != "builtins.id" and "<unknown>" not in details:
            events.append(f"{event} {details!r}"[:200])

    sys.addaudithook(hook)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for line in sys.stdin:
        what = json.loads(line)
        content = SPECIAL[what]() if isinstance(what, str) else Writer(what).notebook()
        faulthandler.dump_traceback_later(4 * SECONDS, exit=True)
        events.clear()
        watching, start, problem = True, time.process_time(), ""
        try:
            outcome = read(content)
        except TaoprofError as error:
            outcome = str(error)[:100]
        except BaseException:
            watching = False
            outcome, problem = "raised", traceback.format_exc()[-1500:]
        watching = False
        taken = time.process_time() - start
        print(json.dumps([what, outcome, round(taken, 3), peak(), problem, events]), flush=True)


def peak() -> int:
    """Return the most memory that this process has had, in MB; ru_maxrss has the parent's too, from before exec."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM:")) >> 10


if __name__ == "__main__":
    _main()
