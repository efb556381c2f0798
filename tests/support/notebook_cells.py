"""What the notebooks of the tests have in their cells."""

from __future__ import annotations

import taoprofiles
from tests.support.home import Home

LOAD = "%load_ext taoprofiles"
THERE = hasattr(taoprofiles, "load_ipython_extension")
"""Whether the extension is there: TO GO, with all that is done where it is not, as soon as it is."""


def use(home: Home, profile: str) -> list[str]:
    """Cells that give a notebook a profile, and show tables.

    TO BE SWITCHED TO THE EXTENSION ALONE: until there is one, plain Python does what it is going to do, so that the
    rest of the test can be seen to work.
    """
    if THERE:
        return [LOAD, f"%taoprof use {profile}", "%taoprof status", "%taoprof list"]
    home.run("use", profile, check=True)
    mounts_file = home.root / f"{profile}.mounts.json"
    mounts_file.write_bytes(home.mapping_file.read_bytes())
    variables = f'subprocess.check_output(["taoprof", "env", "{profile}", "--format", "json"])'
    return [
        "import json, os, subprocess",
        f'os.environ.update(json.loads({variables}))\nos.environ["LAUNCHER_MOUNTS"] = "{mounts_file}"',
        'from IPython.display import HTML\nHTML(f"<table><tr><th>profile<td>' + profile + '</table>")',
        'listed = json.loads(subprocess.check_output(["taoprof", "list", "--json"]))["data"]["profiles"]\n'
        'HTML("<table><tr><th>name<th>project" + "".join(\n'
        """    f"<tr><td>{one['name']}<td>{one['project_dir']}" for one in listed) + "</table>")""",
    ]
