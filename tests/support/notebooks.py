"""Notebook files made of a few cells."""

from __future__ import annotations

import json
from typing import Any


def notebook(cells: list[Any], **metadata: Any) -> bytes:
    """Return a notebook of format 4 with the sources of its code cells; a dictionary is a whole cell."""
    code = {"cell_type": "code", "metadata": {}, "execution_count": None, "outputs": []}
    whole = [
        cell if isinstance(cell, dict) else {**code, "id": f"cell-{number}", "source": cell}
        for number, cell in enumerate(cells)
    ]
    return json.dumps({"cells": whole, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}).encode()
