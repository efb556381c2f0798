"""The drawings of ``show --svg`` and of the panel."""

from __future__ import annotations

from xml.etree import ElementTree

ELEMENTS = {"svg", "title", "desc", "style", "rect", "line", "polygon", "text"}
ATTRIBUTES = {
    *"class fill stroke x y x1 x2 y1 y2 width height rx points viewBox role textLength lengthAdjust".split(),
    *"font-size font-family font-weight stroke-width stroke-dasharray".split(),
    "{http://www.w3.org/XML/1998/namespace}space",
}


def texts(drawing: str) -> list[str]:
    """Parse a drawing, check that it has nothing but known elements, and return its texts."""
    root = ElementTree.fromstring(drawing)
    assert {element.tag.rpartition("}")[2] for element in root.iter()} <= ELEMENTS
    assert {name for element in root.iter() for name in element.attrib} <= ATTRIBUTES
    assert root.get("role") == "img"
    return [element.text or "" for element in root.iter() if element.tag.endswith(("}text", "}title", "}desc"))]
