"""``taoprof kernel``: what it writes is a kernel to Jupyter, and runs in the profile."""

from __future__ import annotations

import sys

import pytest

from taoprofiles.profiles.kernels import folder_name
from tests.support.home import Home

pytestmark = pytest.mark.jupyter


def test_a_notebook_runs_in_the_profile(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import KernelManager

    home.profile("A.b")
    home.run("kernel", "install", "A.b", "--python", sys.executable, check=True)
    for name, value in home.environ.items():
        monkeypatch.setenv(name, value)
    manager = KernelSpecManager(kernel_dirs=[str(home.root / ".local/share/jupyter/kernels")])
    name = folder_name("A.b")
    assert manager.get_kernel_spec(name).display_name == "TAO: A.b"
    kernel = KernelManager(kernel_name=name, kernel_spec_manager=manager)
    kernel.start_kernel(cwd=str(home.root))
    client = kernel.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=30)
        said: list[dict] = []
        client.execute_interactive(
            "import os; print(os.environ['LAUNCHER_MOUNTS'])", output_hook=said.append, timeout=30
        )
        assert str(home.state) in "".join(m["content"].get("text", "") for m in said)
        assert [hold["profile"] for hold in home.holds()] == ["A.b"]
    finally:
        client.stop_channels()
        kernel.shutdown_kernel()
    assert home.holds() == []


def test_list_and_remove(home: Home) -> None:
    for name in ("a", "A"):
        home.profile(name)
        home.run("kernel", "install", name, "--python", sys.executable, check=True)
    listed = home.json("kernel", "list")["data"]["kernels"]
    assert {kernel["profile"] for kernel in listed} == {"a", "A"}
    home.run("kernel", "remove", "a", check=True)
    assert home.run("kernel", "remove", "a").returncode == 4
    home.run("kernel", "remove", "--all", check=True)
    assert not list((home.root / ".local/share/jupyter/kernels").iterdir())


def test_refusals(home: Home) -> None:
    home.profile("a")
    assert home.run("kernel", "install", "b", "--python", sys.executable).returncode == 4
    assert home.run("kernel", "install").returncode == 2
    assert home.run("kernel", "install", "a", "--python", "/bin/false").returncode == 2
