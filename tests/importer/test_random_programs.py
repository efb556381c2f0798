"""Random programs, run and read: a value that is read and is not the one that is there when they have run is an error.

``TAOPROF_TEST_PROGRAMS=1000`` is the long version, ``TAOPROF_TEST_SEED`` its seed.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

from tests.importer.notebook_execution import execute
from tests.importer.notebooks import read
from tests.importer.test_evaluator import START, differs
from tests.support.home import ALL
from tests.support.notebooks import notebook

PROGRAMS = int(os.environ.get("TAOPROF_TEST_PROGRAMS", 250 if ALL else 50))
SEED = int(os.environ.get("TAOPROF_TEST_SEED", "0"))

VALUES = """
'a'|x|y|l[0]|l[-1]|d['k']|d.get('q','z')|os.environ['A']|os.environ.get('B','n')|str(len(l))|'/'.join(l)|f()|g(x)|max(l)
os.getcwd()|(x if YES else y)|(x if 1 < 2 else y)|','.join(d)|[i for i in l][0]|(lambda: x)()|os.path.join(x,y)
f'{x}/{y}'|'%s-%s' % (x, y)|'{}+{}'.format(x,y)|x.upper()|x.replace('a','c')|x.split('/')[0]|str('A' in os.environ)
str(x == y)|str(NO or x)|str(Path(x) / y)|str(k().v)|x[:1]
"""
STATEMENTS = """
x = §|y = §|l.append(§)|l[0] = §|d['k'] = §|d['q'] = §|os.environ['A'] = §|os.environ['B'] = §|x += §|l = [§, §]
d = {'k': §}|m = l|m.append('m')|m[0] = 'mm'|h = d|h['k'] = 'h'|e = os.environ|e['A'] = §|os.environ.update(A=§)
os.environ.pop('B', None)|os.environ.setdefault('B', §)|f()|put(x)|list(map(put, ['p']))|k().go()|k().go2()|print(l)
%env A={x}|%env B={l[0]}|%env A=$x|!echo {l.append('sh')}|cb.append(put)|[q() for q in [f]]|(lambda: l.append('lam'))()
l += ['aug']|x, y = y, x|d.update(k=§)|del d['k']; d['k'] = 'del'|sorted(l)|l.sort()|(w := §); x = w|os.chdir('sub')
%cd sub|os.chdir('..')|L = l.append|L('bound')|s = sorted([l])[0]; s.append('s')|add = (lambda v: d.update(q=v))|add(§)
NO or l.append('or')|YES and os.environ.update(A='and')|import os|globals().update(x='glb')
def f(): os.environ['A'] = 'new f'|def put(p): l.append(p)|f = put|json.dump(d, open(M, 'w'))
open(M, 'w').write('{"a": 1}')|Path(M).write_text(json.dumps({'w': x}))|os.remove(M)|put(open(M, 'w'))
fh = open(M, 'a'); fh.write(' '); fh.close()|with open(M, 'w') as fh: json.dump({'x': x, 'l': l}, fh)|k().save(M)
(lambda: open(M, 'w'))()|!rm -f {M}|%cd {M}/..
"""
OUTSIDE = "from string import *|%cd sub/sub"
INSIDE = "global x; x = 'gl'|return §"
BLOCKS = """
if YES:|if NO:|if 1 < 2:|if x == 'a':|if 'B' in os.environ:|for v in l:|for v in ['p','q']:|for a, b in d.items():|try:
while YES:|with open(os.devnull) as fh:|for v in open('/etc/hostname'):
"""


def split(table: str) -> list[str]:
    return table.strip().replace("\n", "|").split("|")


BEFORE = """os.makedirs('sub/sub', exist_ok=True)
x, y, w, cb, add = 'a', 'b/c', 'w', [], print
l, d, e = ['l0', 'l1'], {'k': 'dk'}, os.environ
m, h, s, L = l, d, l, l.append
os.environ['A'] = '1'
M = os.path.expanduser('~/.tao_mounts.json')"""
AFTER = [
    "os.environ['R1'] = x; os.environ['R2'] = y; os.environ['R3'] = ','.join(l); os.environ['R4'] = os.getcwd()",
    "os.environ['R5'] = d['k']\nos.environ['R6'] = os.environ['A'] + os.environ.get('B', '-')",
]
LAST = "json.dump({'Mounts': [{'source': x, 'destination': y}], 'L': l, 'D': d}, open(M, 'w'))"


class Writer:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def expression(self, depth: int = 2) -> str:
        if depth == 0 or self.random.random() < 0.5:
            return self.random.choice(split(VALUES))
        return f"({self.expression(depth - 1)} + {self.expression(depth - 1)})"

    def statement(self, indent: str = "", depth: int = 2, *, in_function: bool = False) -> str:
        if depth and self.random.random() < 0.4:
            head = self.random.choice(split(BLOCKS))
            body = [self.statement(indent + "    ", depth - 1, in_function=in_function) for _ in range(2)]
            ends = {"try:": f"{indent}except (KeyError, IndexError, OSError): pass", "while YES:": f"{indent}    break"}
            if head == "for v in l:":  # what adds to the list would never end
                body = [f"{indent}    y = v"]
            return "\n".join([indent + head, *body, ends.get(head, "")])
        forms = [form for form in split(STATEMENTS) if not (in_function and form[0] in "%!")]
        form = self.random.choice(forms + split(INSIDE if in_function else OUTSIDE))
        while "§" in form:
            form = form.replace("§", self.expression(), 1)
        return indent + form

    def function(self, name: str, parameters: str, indent: str = "") -> str:
        body = [self.statement(indent + "    ", 1, in_function=True) for _ in range(self.random.randint(1, 2))]
        lines = [f"{indent}def {name}({parameters}):", *body, f"{indent}    return 'r'"]
        return "\n".join(lines)

    def program(self) -> list[str]:
        methods = [self.function("go", "self", "    "), self.function("go2", "self, *a", "    ")]
        functions = [self.function("f", ""), self.function("g", "p='dflt'"), self.function("put", "p")]
        cells = ["\n".join(self.statement() for _ in range(3)) for _ in range(self.random.randint(1, 3))]
        return [
            START + BEFORE,
            *functions,
            "\n".join(["class k:", "    v = 'kv'", "    def save(self, p): open(M, 'w').write('[]')", *methods]),
            *cells,
            *AFTER,
            *self.random.choice([[], [LAST]]),
        ]


def test_static_evaluation_equals_execution_or_is_unknown(tmp_path: Path) -> None:
    compared = 0
    programs = {str(number): Writer(SEED + number).program() for number in range(PROGRAMS)}
    for home, folder, cells, real in execute(tmp_path, programs).values():
        result = read(home, notebook(cells), folder=folder)
        if len(real.errors) != sum("the cell ends" in note or "not Python" in note for note in result.notes):
            continue  # something that is not followed raised, and is taken not to
        compared += 1
        assert {name: real.environ.get(name) for name in result.variables} == result.variables, "\n---\n".join(cells)
        assert result.mapping is None or not differs(result.mapping, real.mapping), cells
    assert compared > PROGRAMS / 3
