"""Which names hold secrets, and that their values never come out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taoprofiles.errors import TaoprofError
from taoprofiles.masking import is_secret, mask_command, mask_text
from taoprofiles.profiles.model import Profile, parse, template
from taoprofiles.profiles.rendering import Renderer
from tests.support.commands import call
from tests.support.generated_profiles import fixed_context, moderate, names
from tests.support.home import Home

SECRET = "S3CR3T"


@pytest.mark.parametrize(
    "name",
    ["KEY", "key", "NGC_KEY", "NGC_API_KEY", "ngc_api_key", "WANDB_API_KEY", "KEY2", "HF_TOKEN", "TOKENS", "AWS_SECRET",
     "CLEARML_API_SECRET_KEY", "PASS", "PASSWORD", "DB_PASSWD", "MYSQL_PWD", "PASSPHRASE", "CREDENTIALS", "AUTH",
     "PUBLIC_KEYPOINT_KEY"],
)  # fmt: skip
def test_secret(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize("name", ["NUM_GPUS", "LOCAL_PROJECT_DIR", "SPECS_DIR", "KEYPOINT_DIR", "WANDB_PROJECT", "_"])
def test_no_secret(name: str) -> None:
    assert not is_secret(name)


@moderate(50)
@given(names, st.sampled_from(["KEY", "TOKEN", "SECRET", "PASS"]), names, st.data())
def test_word_anywhere_in_the_name(before: str, word: str, after: str, data: st.DataObject) -> None:
    written = "".join(data.draw(st.sampled_from([c.lower(), c])) for c in word)
    name = f"{before}_{written}_{after}"
    assert is_secret(name)


FAULTS = ("nosuch = 1", "network = 1", "network = ", "", "[nosuch]\na = 1")
"""Faults elsewhere in the profile, the last but one being that it has no layout."""

FAULTY = [
    *(f'"${SECRET}"', f'"{SECRET}$"', f'"a${{{SECRET}-b}}"', f'"a${{{SECRET}"', f'"a${{env:{SECRET}!}}"'),
    *(f'"{SECRET}\\u0000"', f'"{SECRET}" trailing', f'"{SECRET}\\q"', f'"{SECRET}', f"{SECRET}", f'["{SECRET}"]'),
    *(f'{{ a = "{SECRET}" }}', f'"{SECRET * 1000}"', f"'''{SECRET}\n", f'"{SECRET}\x01"'),
    *(f'"{SECRET}\udcff"', f'"{SECRET}\udced\udca0\udc80"'),
]
"""Faults in the secret itself; the last ones are not UTF-8."""


@pytest.mark.parametrize("table", ["variables", "container.env"])
@pytest.mark.parametrize(
    "text",
    [
        *(f'{fault}\n[TABLE]\nNGC_KEY = "{SECRET}"\nWANDB_API_KEY = "x{SECRET}"\n' for fault in FAULTS),
        *(f'layout = "custom"\n[TABLE]\nNGC_KEY = {value}\n' for value in FAULTY),
    ],
)
def test_an_invalid_profile_is_refused_without_its_secrets(text: str, table: str) -> None:
    content = text.replace("TABLE", table).encode("utf-8", "surrogateescape")
    with pytest.raises(TaoprofError) as caught:
        parse(content, name="a", path="a.toml")
    assert SECRET not in str(caught.value)
    assert caught.value.problems


@pytest.mark.parametrize("value", [f"{SECRET}\0", f"{SECRET}\udcff", SECRET * 20_000])
@pytest.mark.parametrize("where", ["variables", "env"])
def test_secret_of_the_environment_that_cannot_be_used(value: str, where: str) -> None:
    keys = {"variables": {"KEY": "${env:NGC_KEY}", "MORE": "x${KEY}"}}
    keys |= {"container": {"env": {"KEY": "${env:NGC_KEY}"}}} if where == "env" else {}
    profile_template = template(Profile.model_validate({"layout": "custom", **keys}), name="a")
    renderer = Renderer(profile_template, fixed_context({"NGC_KEY": value}), name="a", path="")
    with pytest.raises(TaoprofError) as caught:
        renderer.mapping() if where == "env" else renderer.variables()
    assert SECRET not in str(caught.value)


ALL = (
    "use a --dry-run; use a; list; status; show a; diff a; diff a b; diff b a; env a; env a --format json; "
    "show a --toml; render a --to docker --image x --gpus none -- true; render a --to compose --image x -- true; "
    "check a; check; render a --to kubernetes --image x -- true; render a --to slurm --image x -- true; history; "
    "set a NUM_GPUS=2; new c --from a; diff; use b --dry-run; use b; diff a; status"
)


def check_hidden(home: Home, lines: str, secret: str = SECRET, **environ: str) -> list[str]:
    """Check that no command prints the secret, as text or as JSON; return what they print."""
    printed = []
    for line in lines.split("; "):
        words, dashes, command = line.partition(" -- ")
        for flag in ([], ["--json"]):
            done = call(home, *words.split(), *flag, *([dashes.strip(), command] if command else []), environ=environ)
            assert secret not in done.out + done.err, line
            assert done.status in (0, 2, 3, 6), (line, done)
            printed.append(done.out)
    return printed


PROFILES = {
    "by its name": f'''
        [variables]
        KEY = "{SECRET}"
        [container.env]
        WANDB_API_KEY = "{SECRET}"
        ''',
    "part of another value": f'''
        [variables]
        REMOTE = "${{AT}}"
        AT = "https://ana:${{HF_TOKEN}}@example.org"
        HF_TOKEN = "{SECRET}"
        PLAIN = "plain"
        [container.env]
        REMOTE = "${{REMOTE}}"
        OUTSIDE = "x${{env:NGC_KEY}}"
        PLAIN = "${{PLAIN}}"
        ''',
    "in a URL": f"""
        [container.env]
        HTTP_PROXY = "http://ana:{SECRET}@x@proxy:3128"
        NO_PROXY = "http://ana:${{env:NGC_KEY}}@x@proxy:3128"
        PLAIN = "http://proxy:3128"
        """,
    "a copy of a secret": f'''
        [variables]
        API_KEY = "{SECRET}"
        NAME = "{SECRET}"
        TOKENIZER_DIR = "/data/shared"
        DATA = "/data/shared"
        [container.env]
        COPY = "{SECRET}"
        ''',
}


@pytest.mark.parametrize("name", PROFILES)
def test_no_command_shows_it_unless_asked(home: Home, name: str) -> None:
    """Also in the mapping file, while another profile replaces what this one made, and when this one has changed."""
    secret = SECRET * 2
    text = f'layout = "custom"\nmounts = []\n{PROFILES[name]}'.replace(SECRET, secret)
    home.profile("a", text)
    home.profile("b", text.replace(secret, "another"))
    check_hidden(home, ALL, secret, NGC_KEY=secret)
    assert secret in call(home, "show", "a", "--reveal", environ={"NGC_KEY": secret}).out
    call(home, "use", "a", environ={"NGC_KEY": secret})
    for damage in (lambda path: path.write_text("["), Path.unlink):  # what is secret in the mapping is not known now
        damage(home.profiles / "a.toml")
        check_hidden(home, "status; check; diff b; use b --dry-run", secret, NGC_KEY=secret)
    home.profile("a", text)
    written = {"A_URL": f"http://ana:{secret}@x@proxy:3128"}
    if name == "a copy of a secret":  # without the secret beside it, nothing tells that it is one
        written["OTHER"] = f"with {secret}"
    else:
        home.profile("a", text.replace(secret, "another"))
        check_hidden(home, "status; check; diff a; use a --dry-run; show b; env b", secret, NGC_KEY=secret)
    envs = [{"variable": variable, "value": value} for variable, value in written.items()]
    home.mapping_file.write_text(json.dumps({"Mounts": [], "Envs": envs}))
    check_hidden(home, "status; check; diff a; use a --dry-run", secret, NGC_KEY=secret)


def test_what_is_hidden_is_named_and_what_holds_none_is_shown(home: Home) -> None:
    home.environ["NGC_KEY"] = SECRET
    for name in PROFILES:
        home.profile(name.replace(" ", "-"), f'layout = "custom"\nmounts = []\n{PROFILES[name]}')
    hidden = call(home, "env", "part-of-another-value", "--json").envelope["data"]["hidden"]
    assert hidden == ["REMOTE", "AT", "HF_TOKEN"]
    assert call(home, "show", "part-of-another-value").out.count("plain") == 2
    assert "http://proxy:3128" in call(home, "show", "in-a-URL").out
    assert "DATA='/data/shared'" in call(home, "env", "a-copy-of-a-secret").out, "a folder that two variables name"
    assert call(home, "use", "part-of-another-value").status == 0
    home.mapping_file.chmod(0o644)
    assert "REMOTE, OUTSIDE, and is readable by other users" in call(home, "status").err


def test_export_leaves_no_literal_piece_of_a_secret(home: Home) -> None:
    home.profile("a", f'layout = "custom"\n[variables]\nA = "x"\nKEY = "${{A}}{SECRET}"\nNGC_KEY = "${{env:K}}"\n')
    done = call(home, "show", "a", "--toml")
    assert SECRET not in done.out
    assert 'KEY = "${env:KEY}"' in done.out
    assert 'NGC_KEY = "${env:K}"' in done.out


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("tao unet train -k s3cret -e x", "tao unet train -k *** -e x"),
        ("tao x --key s3cret --keypoints 3", "tao x --key *** --keypoints 3"),
        ("x encryption_key=s3cret results_dir=/r", "x encryption_key=*** results_dir=/r"),
        ("x model.encryption_key=s3cret", "x model.encryption_key=***"),
        ("x https://u:kn0wn@h -e kn0wn", "x https://u:***@h -e ***"),
        ("x -e a.txt --gpus 2", "x -e a.txt --gpus 2"),
        ("x Bearer S3CR3T y", "x Bearer *** y"),
        ("x -kS3CR3T -k=S3CR3T", "x -k*** -k=***"),
        ("x wandb={api_key:S3CR3T,dir:/x}", "x wandb={api_key:***,dir:/x}"),
        ("x url=https://ana:S3CR3T@host/x", "x url=https://ana:***@host/x"),
        ("x x={a:b,url:https://host/y}", "x x={a:b,url:https://host/y}"),
    ],
)
def test_commands_without_secrets(words: str, shown: str) -> None:
    assert " ".join(mask_command(words.split(), ["kn0wn", "abc"])) == shown


def test_a_secret_inside_of_a_word_with_blanks() -> None:
    word = "wandb={'api_key': 'S3CR3T', x: {token: S3CR3T}}"
    assert mask_command(["tao", word]) == ["tao", "wandb={'api_key': ***, x: {token: ***}}"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://S3CR3T@github.com/x", "https://***@github.com/x"),
        ("git+https://S3CR3T:x-oauth-basic@h/x.git@v1", "git+https://***:x-oauth-basic@h/x.git@v1"),
        ("postgres://u:S3C/R3T@h/db", "postgres://u:***@h/db"),
        ("https://me@corp.com:S3CR3T@h/x", "https://me@corp.com:***@h/x"),
        ("http://h:80,http://u:S3CR3T@h", "http://h:80,http://u:***@h"),
        ("'/a/http:/u:S3CR3T@h/x'", "'/a/http:/u:***@h/x'"),
        ("/a/https:/S3CR3T@h/x", "/a/https:/***@h/x"),
        ("https://h/?a=1&token=S3CR3T#b", "https://h/?a=1&token=***#b"),
        ("s3://b/k?X-Amz-Signature=S3CR3T&x=1", "s3://b/k?X-Amz-Signature=***&x=1"),
        ("https://h/?key=S3CR3T", "https://h/?key=***"),
        ("https://h/?sv=1&sig=S3CR3T", "https://h/?sv=1&sig=***"),
        ("Server=h;Password=S3CR3T;Timeout=3", "Server=h;Password=***;Timeout=3"),
        ("Server=h;Pwd=S3CR3T", "Server=h;Pwd=***"),
        ("host=h password='S3 CR3T' user=u", "host=h password=*** user=u"),
        ("Authorization: Bearer S3CR3T", "Authorization: Bearer ***"),
        ("Bearer S3CR3T", "Bearer ***"),
        ("header=bearer S3CR3T", "header=bearer ***"),
        ('{"api_key": "S3CR3T"}', '{"api_key": ***}'),
    ],
)
def test_secrets_inside_of_a_text(text: str, shown: str) -> None:
    assert mask_text(text) == shown
    assert mask_command(["curl", text])[1] == shown
    assert is_secret("HARMLESS", text)


@pytest.mark.parametrize(
    "text",
    [
        "/data/a@b/c:d", "/home/me@corp:/x:ro", "/data:/out:z,/home/a@b", "/data/key=1/x", "me@corp.com",
        "git@github.com:x/y", "ssh://git@github.com/x", "git+ssh://git@github.com:o/r.git@v1", "https://git@github.com/x",
        "nvcr.io/nvidia/tao:5.5@sha256:0a1b", "docker://tao:5.5@sha256:0a1b", "docker://r:5000/tao:5.5@sha256:0a1b",
        "http://h:8080/a@b", "http://h:80?mail=a@b", "http://[::1]:80/a@b", "https://medium.com/@me/x",
        "http://auth-proxy:3128/x", "https://keys.example.org/x?a=b", "https://h/?design=5&assign=3", "PWD=/x",
        "-p8888:8888", "unauthorized: authentication required", "expandable_segments:True,max_split_size_mb:128",
        "8888:8888", "two words, a 'quoted one' and \\ \"more\"; it's (plain) & simple",
    ],
)  # fmt: skip
def test_ordinary_text_is_not_masked(text: str) -> None:
    assert mask_text(text) == text
    assert mask_command(["docker", "run", "-p", text]) == ["docker", "run", "-p", text]
    assert not is_secret("HARMLESS", text)


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("true -k S3CR3T", "true -k ***"),
        ("true --key S3CR3T -e /x", "true --key *** -e /x"),
        ("cd /x;tao x -kS3CR3T&&ls", "cd /x;tao x -k***&&ls"),
        ('cd /x; KEY=S3CR3T tao -k "S3 CR3T" -e "/a b"', 'cd /x; KEY=*** tao -k "***" -e "/a b"'),
        ("sh -c 'tao -k \"S3 CR3T\"'", "sh -c 'tao -k \"***\"'"),
        ("curl -H 'X-Api-Key: S3CR3T' -u me:S3CR3T https://h", "curl -H 'X-Api-Key: ***' -u *** https://h"),
        (
            'curl -H "Authorization: Bearer S3CR3T" https://h -k "S3 CR3T"',
            'curl -H "Authorization: Bearer ***" https://h -k "***"',
        ),
        ("mysql -pS3CR3T x", "mysql -p*** x"),
        ("x Bearer S3CR3T y", "x Bearer *** y"),
    ],
)
def test_command_line_in_a_word(word: str, shown: str) -> None:
    assert mask_command(["sh", "-c", word]) == ["sh", "-c", shown]


@pytest.mark.parametrize("text", ["http://a:" * 9_000 + "@", "-key" * 20_000 + "= x", "' \"\\" * 20_000 + " ="])
def test_masking_a_long_text_takes_linear_time(text: str) -> None:
    mask_command([text, f"{text} x"])


def test_check_and_history_mask_secrets_of_a_command(home: Home) -> None:
    home.profile("a", f'layout = "custom"\n[[mounts]]\nsource = "{home.root}"\ndestination = "/a"\n')
    for words in (["-e", f"http://u:{SECRET}@h/x"], ["-e", f"https://{SECRET}@h/x"], [f"-k {SECRET}"]):
        for flag in ([], ["--json"]):
            done = call(home, "check", "a", *flag, "--", "tao", "model", "detectnet_v2", "train", *words)
            assert done.out
            assert SECRET not in done.out + done.err, words
    for word in (f"true -k {SECRET}", f"true 'Authorization: Bearer {SECRET}' https://{SECRET}@h"):
        assert call(home, "run", "a", "--", "sh", "-c", word).status == 0
    assert all("sh" in printed for printed in check_hidden(home, "history"))


def test_check_masks_secrets_of_mounts_files_and_docker(home: Home) -> None:
    envs = {"A_TOKEN": 5318008, f"MY_KEY={SECRET}": "x", "URI": f"https://ana:{SECRET}@host/x"}
    written = {"Mounts": [], "Envs": [{"variable": name, "value": value} for name, value in envs.items()]}
    home.mapping_file.write_text(json.dumps(written))
    home.mapping_file.chmod(0o644)
    proxies = {"default": {"httpProxy": f"http://ana:{SECRET}@proxy:3128"}}
    (home.root / ".docker").mkdir()
    (home.root / ".docker/config.json").write_text(json.dumps({"auths": {"nvcr.io": {}}, "proxies": proxies}))
    for secret in (SECRET, "5318008"):
        check_hidden(home, "check", secret)
    assert SECRET in call(home, "check", "--reveal").out
