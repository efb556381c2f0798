"""The logo of the kernels: a folder of the host and a container, and the mounts between them.

``python -m tests.support.logo`` draws the SVG and, from the same shapes, the PNGs: with the standard library alone, and
the same bytes on every machine.
"""

from __future__ import annotations

import math
import struct
import zlib
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "taoprofiles/profiles/logos"
SAMPLES = 4
"""Samples for each pixel, in each direction."""

BACKGROUND, HOST, CONTAINER, MOUNT = (31, 59, 77), (255, 255, 255), (118, 185, 71), (242, 183, 5)

BOXES = ((0, 0, 64, 64, 12, BACKGROUND), (8, 18, 12, 28, 3, HOST), (44, 12, 12, 40, 3, CONTAINER))
"""x, y, width, height, radius and colour, on a square of 64."""

LINES = ((20, 25, 44, 20), (20, 32, 44, 32), (20, 39, 44, 44))
"""The mounts: x and y of both ends."""
WIDTH = 3


def svg() -> str:
    shapes = [
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="{radius}" fill="#{bytes(colour).hex()}"/>'
        for x, y, width, height, radius, colour in BOXES
    ]
    stroke = f'stroke="#{bytes(MOUNT).hex()}" stroke-width="{WIDTH}"'
    shapes += [f'<path d="M{x1} {y1}L{x2} {y2}" {stroke} stroke-linecap="round"/>' for x1, y1, x2, y2 in LINES]
    return '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64">\n' + "\n".join(shapes) + "\n</svg>\n"


def colour_at(x: float, y: float) -> tuple[int, int, int] | None:
    """Return the colour of the topmost shape at a point, None outside of all."""
    for x1, y1, x2, y2 in LINES:
        along = ((x - x1) * (x2 - x1) + (y - y1) * (y2 - y1)) / ((x2 - x1) ** 2 + (y2 - y1) ** 2)
        along = min(1.0, max(0.0, along))
        if math.hypot(x - x1 - along * (x2 - x1), y - y1 - along * (y2 - y1)) <= WIDTH / 2:
            return MOUNT
    for left, top, width, height, radius, colour in reversed(BOXES):
        # The distance to the rectangle that the centres of the corners make.
        dx = max(left + radius - x, 0.0, x - (left + width - radius))
        dy = max(top + radius - y, 0.0, y - (top + height - radius))
        if math.hypot(dx, dy) <= radius:
            return colour
    return None


def pixels(size: int) -> bytes:
    """Return the rows of an RGBA picture, each with PNG's filter byte before it."""
    rows = bytearray()
    for row in range(size):
        rows.append(0)
        for column in range(size):
            points = [
                colour_at((column + (i + 0.5) / SAMPLES) * 64 / size, (row + (j + 0.5) / SAMPLES) * 64 / size)
                for j in range(SAMPLES)
                for i in range(SAMPLES)
            ]
            inside = [point for point in points if point is not None]
            mean = [sum(part) // len(inside) for part in zip(*inside, strict=True)] if inside else [0, 0, 0]
            rows += bytes([*mean, 255 * len(inside) // len(points)])
    return bytes(rows)


def png(size: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", size, size, 8, 6, 0, 0, 0)
    data = zlib.compress(pixels(size), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def unpacked(picture: bytes) -> bytes:
    """Return the rows of a picture of ``png``: how they are compressed depends on the version of zlib."""
    return zlib.decompress(picture[picture.index(b"IDAT") + 4 : -16])


if __name__ == "__main__":
    (FOLDER / "logo-svg.svg").write_text(svg())
    for size in (32, 64):
        (FOLDER / f"logo-{size}x{size}.png").write_bytes(png(size))
