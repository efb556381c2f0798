"""Notebook files made of a few cells."""

from __future__ import annotations

import json
from typing import Any


def notebook(cells: list[Any]) -> bytes:
    """Return a notebook of format 4 with the sources of its code cells; a dictionary is a whole cell."""
    whole = [
        cell
        if isinstance(cell, dict)
        else {"cell_type": "code", "metadata": {}, "execution_count": None, "outputs": [], "source": cell}
        for cell in cells
    ]
    return json.dumps({"cells": whole, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}).encode()
