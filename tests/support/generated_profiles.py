"""Hypothesis strategies for profiles: any that ``parse`` should take, and those whose folders are there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from taoprofiles.profiles.layouts import variables as layout_variables
from taoprofiles.profiles.model import Profile
from taoprofiles.profiles.rendering import escape_dollars
from tests.support.home import ALL, OtherUser


def fixed_context(environ: dict[str, str]) -> OtherUser:
    """Return a context that is the same on every machine."""
    context = OtherUser({"HOME": "/home/ana"})
    context.environ, context.uid, context.gid = environ, 1000, 1001
    return context


AROUND = fixed_context({"NGC_KEY": "from the environment", "DATA": "/mnt/data"})


def moderate(examples: int) -> settings:
    """Return settings for so many examples in CI, and a quarter of them elsewhere; no deadline, no database.

    In CI they are the same each time, so that a failure is one of the change.
    """
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    slow.append(HealthCheck.function_scoped_fixture)
    return settings(
        max_examples=examples if ALL else max(examples // 4, 10),
        derandomize=ALL,
        deadline=None,
        database=None,
        suppress_health_check=slow,
    )


any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
"""All that UTF-8 can carry."""

value_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
"""All that an environment variable can carry."""

names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,11}", fullmatch=True)
networks = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,15}", fullmatch=True)
images = st.from_regex(r"[a-z0-9][a-z0-9./:-]{0,20}", fullmatch=True)
sizes = st.one_of(st.integers(0, 1 << 60), st.from_regex(r"[1-9][0-9]{0,3}(\.[0-9])?[bkmgBKMG]?[bB]?", fullmatch=True))


@st.composite
def expressions(draw: st.DrawFn, known: list[str]) -> str:
    """Text, dollars, references to ``known`` variables and to the environment, perhaps with a leading tilde."""
    parts = [value_text.map(escape_dollars), st.sampled_from(["${env:NGC_KEY}", "${env:DATA}", "$$"])]
    if known:
        parts.append(st.sampled_from(known).map(lambda name: f"${{{name}}}"))
    lead = draw(st.sampled_from(["", "", "~", "~/", "/"]))
    return lead + "".join(draw(st.lists(st.one_of(parts), max_size=3)))


@st.composite
def dockers(draw: st.DrawFn, user: st.SearchStrategy[str]) -> dict[str, Any]:
    port = st.integers(0, 65535)
    keys = st.from_regex(r"[0-9]{1,5}(/(tcp|udp|sctp))?", fullmatch=True)
    return draw(
        st.fixed_dictionaries(
            {},
            optional={
                "user": st.one_of(st.just("auto"), user),
                "shm_size": sizes,
                "ulimits": st.dictionaries(st.sampled_from(["memlock", "stack", "nofile"]), st.integers(-1, 1 << 62)),
                "ports": st.dictionaries(keys, st.one_of(port, st.lists(port, max_size=3)), max_size=3),
                "network": st.sampled_from(["host", "bridge", "my-net"]),
                "privileged": st.booleans(),
                "tty": st.booleans(),
            },
        )
    )


def folders(known: list[str]) -> st.SearchStrategy[str]:
    """What a profile's folders may be: anything with a name in it."""
    return expressions(known).filter(lambda text: text.strip("/") != "")


@st.composite
def valid_profiles(draw: st.DrawFn) -> Profile:
    """Any profile that ``parse`` should take: each optional key may be there, references go in any order."""
    layout = draw(st.sampled_from(["local", "host", "custom"]))
    own = draw(st.lists(names, max_size=4, unique=True))
    derived = list(layout_variables(layout, project_dir="", notebook_dir="", network=""))
    own = [name for name in own if name not in derived]
    variables = {name: draw(expressions(own[:number])) for number, name in enumerate(own)}
    if derived:
        # What the layout derives may be overridden by what does not come back to it.
        variables |= {name: draw(expressions(own)) for name in draw(st.lists(st.sampled_from(derived), max_size=2))}
    shuffled = draw(st.permutations(list(variables.items())))
    known = own + derived
    data: dict[str, Any] = {"layout": layout, "variables": dict(shuffled)}
    if layout != "custom" or draw(st.booleans()):
        data["project_dir"] = draw(folders(own))
    if draw(st.booleans()):
        data["notebook_dir"] = draw(folders(own))
    if draw(st.booleans()):
        data["network"] = draw(networks)
    data["description"] = draw(any_text)
    if draw(st.booleans()):
        sides = st.tuples(expressions(known), expressions(known))
        data["mounts"] = [
            {"source": a, "destination": b, "read_only": draw(st.booleans())}
            for a, b in draw(st.lists(sides, max_size=3))
        ]
    data["container"] = {"env": draw(st.dictionaries(names, expressions(known), max_size=3))}
    data["docker"] = draw(dockers(expressions(known)))
    if draw(st.booleans()):
        data["gpus"] = draw(st.sampled_from(["all", "none", 2, "2", "0,1", "1,", "GPU-1a-2b,"]))
        data["images"] = draw(st.dictionaries(st.sampled_from(["dino", "dino gen_trt_engine"]), images, max_size=2))
        data["image"] = draw(images)
    return Profile.model_validate(data)


_segment = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0/:"), min_size=1, max_size=12).filter(
    lambda text: text not in (".", "..")
)


@st.composite
def usable_profiles(draw: st.DrawFn, root: Path) -> Profile:
    """Custom profiles that can be used as they are: their sources are folders made below ``root``."""
    # The number tells folders apart that a file system may take for one, and hides a lone dot.
    folders = [f"{root}/{number}{draw(_segment)}" for number in range(draw(st.integers(0, 4)))]
    for folder in folders:
        Path(folder).mkdir(exist_ok=True)
    own = draw(st.lists(names, max_size=3, unique=True))
    data: dict[str, Any] = {
        "layout": "custom",
        "variables": {name: draw(expressions(own[:number])) for number, name in enumerate(own)},
        "mounts": [
            {
                "source": escape_dollars(folder),
                "destination": escape_dollars(f"/no-such-folder/{number}/{draw(_segment)}"),
            }
            for number, folder in enumerate(folders)
        ],
        "container": {"env": draw(st.dictionaries(names, expressions(own), max_size=4))},
        "docker": draw(dockers(st.from_regex(r"[0-9]{1,5}(:[0-9]{1,5})?", fullmatch=True))),
    }
    return Profile.model_validate(data)
