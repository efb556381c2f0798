"""What a check's answer does: exit statuses, --strict, refusals and --force."""

from __future__ import annotations

import json
import shlex

import pytest

from taoprofiles.launcher.behaviour import Location
from taoprofiles.launcher.simulation import Refusal
from taoprofiles.rules.command_paths import CommandContext, check_command
from taoprofiles.rules.start import explain_task
from tests.support.commands import call, one_clear_error
from tests.support.home import Home, write_program

CUSTOM = """
layout = "custom"
[container.env]
HOME = "/tmp"
USER = "tao"
[docker]
user = "auto"
{docker}
[[mounts]]
source = "{source}"
destination = "/data"
"""


def profile(home: Home, name: str, *, source: str = "", docker: str = 'shm_size = "1G"') -> None:
    home.profile(name, CUSTOM.format(source=source or home.root, docker=docker))


def check(home: Home, *words: str, environ: dict[str, str] | None = None) -> list[dict]:
    """Return the findings of ``check``."""
    return call(home, "--json", "check", *words, environ=environ).envelope["data"]["findings"]


def test_errors_are_3_and_warnings_0_unless_strict(home: Home) -> None:
    profile(home, "sound")
    profile(home, "warned", docker="")
    profile(home, "wrong", source=f"{home.root}/nowhere")
    statuses = {
        (name, *strict): call(home, "check", name, *strict).status
        for name in ("sound", "warned", "wrong")
        for strict in ([], ["--strict"])
    }
    assert statuses == {
        ("sound",): 0, ("sound", "--strict"): 0, ("warned",): 0, ("warned", "--strict"): 3, ("wrong",): 3,
        ("wrong", "--strict"): 3,
    }  # fmt: skip


def test_a_file_in_the_place_of_a_name(home: Home) -> None:
    (home.root / "x.json").write_text('{"Mounts": []}')
    one_clear_error(
        call(home, "check", str(home.root / "x.json")),
        2,
        f"hint: to check it as a mounts file: LAUNCHER_MOUNTS={home.root}/x.json taoprof check",
    )


def test_errors_are_refused_unless_forced(home: Home) -> None:
    (home.root / "real").mkdir()
    (home.root / "link").symlink_to("real")
    text = CUSTOM.format(source=home.root, docker="").replace('"/data"', f'"{home.root}/link"')
    home.profile("moved", text)
    before = home.tree()
    for verb in (["use", "moved"], ["run", "moved", "--", "true"], ["shell", "moved"]):
        one_clear_error(call(home, *verb), 3, "resolves symlinks", "--force")
    assert home.tree() == before
    assert home.run("run", "moved", "--force", "--", "sh", "-c", 'test -s "$LAUNCHER_MOUNTS"').returncode == 0
    assert call(home, "use", "moved", "--force").status == 0
    assert home.mapping()["Mounts"] == [{"source": str(home.root), "destination": f"{home.root}/link"}]


def test_a_run_is_refused_for_a_path_that_its_task_cannot_find(home: Home) -> None:
    profile(home, "p")
    (home.root / "train.yaml").write_text("image_dir: /nowhere/at/all\n")
    for words in (["-e", "/data/trian.yaml"], ["-e", f"{home.root}/train.yaml"], ["-e", "/data/train.yaml"]):
        one_clear_error(call(home, "run", "p", "--", "tao", "model", "dino", "train", *words), 3)
    fake = write_program(home.root / "bin/tao", 'echo "$@"')
    words = ["--force", "--", str(fake), "model", "dino", "train", "-e", "/data/trian.yaml"]
    assert "-e /data/trian.yaml" in home.run("run", "p", *words).stdout


def test_launcher_option(home: Home) -> None:
    profile(home, "p", docker='shm_size = "1G"\ntty = true')
    assert call(home, "check", "p", "--launcher", "5.0.0").status == 0
    data = call(home, "check", "p", "--launcher", "4.0.1", "--json").envelope["data"]
    assert [finding["id"] for finding in data["findings"]] == ["opt-unknown-for-version"]
    assert data["refusal"]["kind"] == "AssertionError"
    one_clear_error(call(home, "check", "p", "--launcher", "7.0.0"), 2)


def test_secrets_are_masked_unless_revealed(home: Home) -> None:
    home.profile("p", 'layout = "custom"\nmounts = []\n[container.env]\nWANDB_API_KEY = "0123secret"\n')
    for words in (["check", "p"], ["check", "p", "--json"]):
        assert "0123secret" not in call(home, *words).out
    assert "0123secret" in call(home, "check", "p", "--reveal").out


def test_the_launcher_is_named(home: Home) -> None:
    profile(home, "p")
    assert "no tao on PATH" in call(home, "check", "p", environ={"PATH": "/nowhere"}).out
    assert "no tao on PATH" not in call(home, "check", "p", "--launcher", "5.5.1", environ={"PATH": "/nowhere"}).out


OPTIONS, CHOICE = "takes no options before the task", "the launcher stops: invalid choice"
REFUSALS = [
    ("4.0.1", "tao --nosuch model detectnet_v2 train", f"{OPTIONS}: '--nosuch'", "tao detectnet_v2 train --nosuch"),
    ("4.0.1", "tao --gpus=2 detectnet_v2 train", f"{OPTIONS}: '--gpus=2'", "tao detectnet_v2 train --gpus=2"),
    ("6.26.3", "tao --nosuch detectnet_v2 train", f"{OPTIONS}: '--nosuch'", "tao model detectnet_v2 train --nosuch"),
    ("6.26.3", "tao model --gpus=2 dino train", f"{OPTIONS}: '--gpus=2'", "tao model dino train --gpus=2"),
    ("5.0.0", "tao -k secret-value model dino train", f"{OPTIONS}: '-k ***'", "tao model dino train …"),
    ("5.5.1", "tao yolo_v4 train -r /x", f"{CHOICE}: 'yolo_v4'", "tao model yolo_v4 train -r /x"),
    ("5.5.1", "tao nosuch", f"{CHOICE}: 'nosuch'", "tao model nosuch"),
    ("5.5.1", "tao modle yolo_v4 train", f"{CHOICE}: 'modle'", "tao model yolo_v4 train"),
    ("4.0.1", "tao model yolo_v4 train", f"{CHOICE}: 'model'", "tao yolo_v4 train"),
    ("4.0.1", "tao deploy yolo_v4 gen_trt_engine", f"{CHOICE}: 'deploy'", "tao-deploy yolo_v4 gen_trt_engine"),
    ("6.26.3", "tlt model dino train -r /x", "has no program 'tlt', only tao", "tao model dino train -r /x"),
    ("5.0.0", "tao-deploy dino gen", "has no program 'tao-deploy', only tao", "tao deploy dino gen"),
    ("4.0.1", "tlt detectnet_v2 train", "has no program 'tlt', only tao and tao-deploy", "tao detectnet_v2 train"),
    ("4.0.1", "tlt unet train -e /x -k s3cret", "has no program 'tlt', only tao and tao-deploy", "tao unet train …"),
    ("5.5.1", "tlt list", "has no program 'tlt', only tao", "tao list"),
    ("4.0.1", "tao-deploy dino gen_trt_engine", None, None),
    ("0.1.21", "tlt detectnet_v2 train", None, None),
]
"""Options before the task, which the launcher takes for none; forms of another version; console scripts of others."""


@pytest.mark.parametrize(("version", "words", "text", "corrected"), REFUSALS)
def test_what_the_launcher_refuses_is_corrected(
    home: Home, version: str, words: str, text: str | None, corrected: str | None
) -> None:
    home.mapping_file.write_text('{"Mounts": []}')
    findings = check(home, "--launcher", version, "--", *words.split())
    refusals = [finding for finding in findings if finding["id"] == "launcher-refuses"]
    assert [refusal["hint"] for refusal in refusals] == ([corrected] if corrected else [])
    for refusal in refusals:
        assert text == refusal["why"] or f"launcher {version} {text}" == refusal["what"]


def test_a_renamed_task_and_one_with_a_secret(home: Home) -> None:
    images = {
        ("model", "classification_tf1"): ("", ""),
        ("model", "classification_pyt"): ("", ""),
        ("deploy", "dino"): ("", ""),
    }
    refusal = Refusal("SystemExit", "invalid choice: 'x'", Location("command"))
    context = CommandContext({}, {})
    words = ["tao", "classification", "train"]
    hint = "one of: tao model classification_pyt train | tao model classification_tf1 train"
    assert explain_task(refusal, ["tlt", "classification", "train"], images, context).hint == hint
    assert explain_task(refusal, words, images, context).hint == hint
    assert explain_task(refusal, ["tao", "model", "dimo", "-k", "s3cret"], images, context).hint == "tao deploy dino …"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("-e /path/to/spec.txt", ("placeholder", "-e", "it still contains '/path/to'")),
        ("-e <experiment_spec>", ("placeholder", "-e", "it still contains '<experiment_spec>'")),
        ("-k your_key", ("placeholder", "-k", "it still contains 'your_'")),
        ("-k $NO_KEY", ("arg-empty-variable", "-k", "$NO_KEY is not set")),
        ("-e $spec", ("arg-empty-variable", "-e", "$spec is not set")),
    ],
)
def test_a_value_of_an_example_that_was_never_filled_in(words: str, expected: tuple[str, str, str]) -> None:
    findings = check_command(["tao", "model", "detectnet_v2", "train", *words.split()], CommandContext({}, {}))
    assert [(finding.id, finding.where, finding.what) for finding in findings] == [expected]
    assert ("path" in findings[0].hint) is not words.startswith("-k")


@pytest.mark.parametrize("word", ["train.x=${a.b}", "x=${results}", "for f in *; do echo $f; done"])
def test_a_name_in_lower_case_that_the_task_sets_itself(word: str) -> None:
    context = CommandContext({}, {}, is_quoted=True)
    assert check_command(["tao", "model", "dino", "train", word], context) == []


def test_a_command_that_is_not_the_launchers_is_named_as_not_checked(home: Home) -> None:
    profile(home, "p")
    done = call(home, "check", "p", "--", "sh", "train.sh", "-e", "/nowhere/x.yaml")
    assert (
        "'sh' is no launcher, no 'docker run' and no task of TAO: this command is not checked, only the mounts are "
        "[command-not-checked]" in done.out
    )
    assert "no problems" not in done.out
    assert "not-checked" not in call(home, "check", "p", "--", "nohup", "tao", "model", "dino", "train").out


def test_without_docker_host_paths_are_right(home: Home) -> None:
    profile(home, "p")
    (home.root / "t.yaml").write_text("image_dir: /data/nowhere\n")
    words, environ = f"tao model dino train -e {home.root}/t.yaml", {"TAO_DOCKER_DISABLE": "1"}
    findings = check(home, "p", "--", *words.split(), environ=environ)
    assert [finding["id"] for finding in findings] == ["tao-docker-disabled"]
    assert home.run("run", "p", "--", "sh", "-c", "exit 0", environ=environ).returncode == 0


@pytest.mark.parametrize(
    "mounts", ['[{"source": "~", "destination": "/w"}]', '[{}, {"source": "~", "destination": "/w"}]']
)
def test_without_docker_container_paths_are_wrong(home: Home, mounts: str) -> None:
    home.mapping_file.write_text(f'{{"Mounts": {mounts}}}')
    (home.root / "t.yaml").touch()
    findings = check(home, "--", *"tao model dino train -e /w/t.yaml".split(), environ={"TAO_DOCKER_DISABLE": "1"})
    what = "'/w/t.yaml' is a path of the container, but TAO_DOCKER_DISABLE makes the task run on this host"
    assert [finding["what"] for finding in findings if finding["id"] == "missing-file"] == [what]


TRAIN = ["p", "--", "tao", "model", "dino", "train"]


@pytest.mark.parametrize(
    ("volume", "id", "hint"),
    [
        ("~/no:/x", "volume-argument", "--volume {root}/no:/x"),
        ("nocolon", "launcher-refuses", "--volume SOURCE:DESTINATION"),
        ("/:data", "dst-relative", "write the path in the container"),
        ("/:/", "dst-relative", ""),
    ],
)
def test_volumes_that_do_not_do_what_they_say(home: Home, volume: str, id: str, hint: str) -> None:
    profile(home, "p")
    (finding,) = (finding for finding in check(home, *TRAIN, "--volume", volume) if finding["id"] == id)
    assert finding["where"].startswith("--volume")
    assert finding["hint"].startswith(hint.format(root=home.root))


def test_with_ci_no_value_of_a_profile_acts_on_this_host(home: Home) -> None:
    text = CUSTOM.format(source=home.root, docker='shm_size = "1G"')
    home.profile("p", text.replace('HOME = "/tmp"', 'HOME = "/tmp"\nA = "x;touch PWNED"\nB = "plain value"'))
    ci = {"CI_PROJECT_DIR": "/builds"}
    findings = [finding for finding in check(home, *TRAIN, environ=ci) if finding["severity"] == "error"]
    assert [finding["where"] for finding in findings if finding["id"] == "ci-project-dir-set"] == ["container.env.A"]
    assert "container.env.A" in call(home, "run", *TRAIN, environ=ci).err
    assert call(home, "use", "p", environ=ci).status == 0


def test_a_volume_on_a_mounted_folder(home: Home) -> None:
    profile(home, "p")
    (home.root / "projects").mkdir(exist_ok=True)
    words = [*TRAIN, "--volume", f"{home.root}/projects:/data"]
    where = {finding["id"]: finding["where"] for finding in check(home, *words, "--volume", f"{home.root}:/x")}
    assert where["src-duplicate"] == "--volume[1].source"
    assert {f["id"]: f["where"] for f in check(home, *words)}["dst-duplicate"] == "--volume[0].destination"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("docker.shm_size=64", "warning: docker.shm_size: the shared memory is 64 bytes; "),
        ("docker.user=UID:GID", "warning: docker.user: 'UID:GID' is not a user; "),
        ("LOCAL_PROJECT_DIR=~/no", "4 folders do not exist:\n  ~/no\n  ~/no/data\n"),
        ("container.env.MY_TOKEN=abcdef", "warning: container.env.MY_TOKEN: the value of MY_TOKEN is stored"),
        ("NUM_GPUS=two", "warning: variables.NUM_GPUS: 'two' is not a number; "),
        ("NUM_GPUS=", "warning: variables.NUM_GPUS: it is empty; "),
        ("NUM_GPUS=2", None),
        ("docker.shm_size = 8G", None),
        ("docker.shm_size=8G", None),
        ("container.env.A=${env:NOT_YET}", None),
    ],
)
def test_set_warns_as_check_does(home: Home, setting: str, message: str | None) -> None:
    (home.root / "p").mkdir()
    home.run("new", "p", "--layout", "host", "--network", "segformer", cwd=home.root / "p", check=True)
    done = call(home, "set", "p", setting)
    assert (done.status, done.err == "") == (0, message is None), done
    assert message is None or f"taoprof: {message}" in done.err


@pytest.mark.parametrize(
    ("folder", "cause"),
    [("$USER/tao", "nothing expands"), ("${USER}", "nothing expands"), ("data # the folder", "ends with a comment")],
)
def test_mkdir_refuses_a_placeholder_or_a_comment(home: Home, folder: str, cause: str) -> None:
    profile(home, "p", source=f"{home.root}/{folder}".replace("$", "$$"))
    for words in (["check", "p", "--fix", "--yes"], ["use", "p", "--mkdir"], ["use", "p"]):
        done = call(home, *words)
        assert done.status == 3
        assert cause in done.out + done.err
        assert "mkdir -p" not in done.out + done.err
    assert list(home.root.glob("*USER*")) + list(home.root.glob("data*")) == []


NO_TABLE = "'docker' cannot be set: 'docker' is a table, which 'set' changes only key by key"
NO_MOUNTS = "cannot be set: 'set' does not change mounts\nhint: taoprof edit p"
NOT_VALID = "profile 'p' not changed: it would not be valid:\n  "


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        ("set NUM_GPUS=3 'A=b c'", 2, "no profile given\nhint: taoprof set NAME NUM_GPUS=3 'A=b c'; "),
        ("set p =1", 2, "a setting has no key"),
        ("set p ''", 2, "a setting has no key"),
        ("set p mounts.0=/x", 2, f"'mounts.0' {NO_MOUNTS}"),
        ("set p mounts[0].source=/x", 2, f"'mounts[0].source' {NO_MOUNTS}"),
        ("set p docker=x", 2, NO_TABLE),
        ("set p container.env=1", 2, "'container.env' cannot be set: 'container' is a table"),
        ("set p docker.shm_size=3x", 3, f"{NOT_VALID}docker.shm_size: must be a number with b, k, m or g, such as"),
        ("set p --unset project_dir", 3, NOT_VALID),
        ("set p 1A=2", 3, f"{NOT_VALID}variables.1A: may contain only letters, digits and '_', at most 256 of them"),
        ("set p network=", 3, f"{NOT_VALID}network: may contain only letters, digits, '.', '_' and '-', and must"),
        ("new rootp --network a/b", 3, "profile 'rootp' is not valid (not yet written), 1 problem:\n  "),
    ],
)
def test_a_refused_change_names_what_was_given(home: Home, words: str, status: int, message: str) -> None:
    home.run("new", "p", cwd=home.root, check=True)
    done = call(home, *shlex.split(words))
    one_clear_error(done, status, f"taoprof: error: {message}")
    assert ("taoprof edit" in done.err) == (NO_MOUNTS in message)


def test_set_says_when_nothing_has_changed(home: Home) -> None:
    profile(home, "p")
    for words in (("A=5",), ("--unset", "A")):
        assert call(home, "set", "p", *words).out == "profile 'p' changed: A\n"
        if words[0] == "A=5":
            assert call(home, "set", "p", *words).out == "profile 'p' not changed: it has these settings already\n"


def test_set_says_that_the_mapping_file_does_not_have_the_change(home: Home) -> None:
    profile(home, "p")
    assert call(home, "set", "p", "docker.shm_size=2G").err == ""
    call(home, "use", "p")
    note = "taoprof: ~/.tao_mounts.json does not have this change yet. To apply it: taoprof use p\n"
    assert call(home, "set", "p", "docker.shm_size=4G").err == note
    assert call(home, "set", "p", "docker.shm_size=2G").err == ""


def test_an_empty_variable_in_front_of_a_path(home: Home) -> None:
    (home.root / "p/specs").mkdir(parents=True)
    home.run("new", "p", "--network", "segformer", cwd=home.root / "p", check=True)
    home.run("use", "p", "--mkdir", check=True)
    (home.root / "p/specs/train.yaml").touch()
    words = ["tao", "model", "segformer", "train", "-e", "/train.yaml"]
    done = call(home, "check", "p", "--", *words)
    assert "hint: taoprof run p -- tao model segformer train -e '$SPECS_DIR/train.yaml'\n" in done.out
    assert "expands it: -e '$SPECS_DIR/train.yaml'" in call(home, "run", "p", "--", *words).err


def test_a_duplicate_variable_is_reported_with_its_line(home: Home) -> None:
    entries = '{"variable": null, "value": "0"}' + "".join(
        f',\n{{"variable": "A", "value": "{value}"}}' for value in "xy"
    )
    home.mapping_file.write_text(f'{{"Mounts": [], "Envs": [\n{entries}\n]}}')
    where = {finding["id"]: finding["where"] for finding in check(home)}
    assert where["env-twice"] in ("~/.tao_mounts.json:3 (Envs[1])", "~/.tao_mounts.json:4 (Envs[2])")


def test_a_source_below_the_home_is_looked_at_too(home: Home) -> None:
    (home.root / "data").mkdir(mode=0o700)
    for source in ("~/data", str(home.root / "data")):
        mounts = [{"source": source, "destination": "/data"}]
        options = {"user": "4242:4242", "shm_size": "1G"}  # nobody who may look into it
        home.mapping_file.write_text(json.dumps({"Mounts": mounts, "DockerOptions": options}))
        assert "src-of-another-user" in {finding["id"] for finding in check(home)}


# Mounts that the launcher or Docker would drop, move or refuse


@pytest.mark.parametrize(
    ("mounts", "docker", "texts"),
    [
        ({"{home}/real/new": "/a", "{home}/link/new": "/b"}, "", ["mounts[1].source", "keeps only one mount"]),
        ({"{home}": "{home}/link"}, "", ["is '{home}/real' on this host"]),
        ({"~/a:b": "/a"}, "", ["mounts[0]."]),
        ({"~/a": "/a:ro"}, "", ["mounts[0]."]),
        ({"~/a": "/"}, "", ["mounts[0]."]),
        ({"~/a": "/x/.."}, "", ["mounts[0]."]),
        *(({"{home}": "/a"}, f'shm_size = "{size}"', ["docker.shm_size", "16G"])
          for size in ("16GiB", "lots", "", "G", "-1g")),
    ],
)  # fmt: skip
def test_use_refuses_mounts_and_sizes(home: Home, mounts: dict[str, str], docker: str, texts: list[str]) -> None:
    """One source by two names, a destination that is a symlink on this host, and what the launcher cannot pass on."""
    (home.root / "real").mkdir()
    (home.root / "link").symlink_to("real")
    tables = [f'[[mounts]]\nsource = "{source}"\ndestination = "{path}"' for source, path in mounts.items()]
    text = "\n".join(['schema = 1\nlayout = "custom"', *tables, f"[docker]\n{docker}\n"])
    home.profile("x", text.replace("{home}", str(home.root)))
    before = home.tree()
    one_clear_error(home.run("use", "x", "--mkdir"), 3, *(part.replace("{home}", str(home.root)) for part in texts))
    assert home.tree() == before


@pytest.mark.parametrize(
    "mounts",
    [
        "[" + ",".join(["{}"] * 340_000) + "]",
        json.dumps([{"source": "/", "destination": f"/{n}"} for n in range(5000)]),
    ],
    ids=["items that are none", "one folder"],
)
def test_a_mounts_file_with_very_many_problems(home: Home, mounts: str) -> None:
    """A thousand are shown: all of them took 8 s and half a gigabyte."""
    home.mapping_file.write_text(f'{{"Mounts": {mounts}}}')
    done = call(home, "check", "--json")
    assert (done.status, len(done.envelope["data"]["findings"])) == (3, 1000)
    assert done.envelope["messages"] == ["no more than 1000 problems are shown"]
