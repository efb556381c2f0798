"""Where the paths of this host are in the container: a profile's path map, and the translation of one path.

The path map is data and an SVG drawing. The drawing has no links, scripts or fonts of its own. It is readable from 400
px on, follows the theme of the page that shows it, and still has plain colours in programs that know no CSS variables.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from taoprofiles import current_cache
from taoprofiles.errors import NotFoundError, UsageError
from taoprofiles.launcher.behaviour import Host, ResolvedMount, find_mounts_file, resolve_mounts
from taoprofiles.launcher.quoting import VARIABLE, expand_variables
from taoprofiles.masking import is_secret, printable, shorten, text_width
from taoprofiles.mounts import mapping, paths
from taoprofiles.mounts.mapping import mounted
from taoprofiles.mounts.paths import HostFiles, PathResolver, Resolution
from taoprofiles.profiles.store import Store
from taoprofiles.rules import container
from taoprofiles.rules.finding import ERROR, INFO, SEVERITIES, WARNING, Finding, Locator, in_profile
from taoprofiles.storage import files
from taoprofiles.storage.paths import Context, is_inside
from taoprofiles.switching.status import get_status
from taoprofiles.system.filesystem import answers, no_answer, real_paths, unanswered

HOST, CONTAINER = "host", "container"
MISSING = "missing"
"""The label of a folder that does not exist on this host."""
SILENT = "does not answer"
"""The label of a source whose file server may be down."""
_SIDES = {"source": HOST, "destination": CONTAINER}


class Label(NamedTuple):
    """What is wrong with one side of a place: ``text`` in a word or two, ``severity`` of the finding."""

    side: str
    text: str
    severity: str


class MountedFolder(NamedTuple):
    """A folder of a mount, ``path`` below its source and its destination, or "" for the mount itself.

    ``host`` and ``container`` are the variables whose value is the folder's path on that side.
    """

    path: str
    host: list[str]
    container: list[str]
    labels: list[Label]


class MappedMount(NamedTuple):
    """A mount and what is in it; the first of its ``places`` is the mount itself."""

    source: str
    destination: str
    places: list[MountedFolder]

    @property
    def is_missing(self) -> bool:
        """Check whether the source does not exist."""
        return any(label.text == MISSING for label in self.places[0].labels)


class PathMap(NamedTuple):
    """The mounts of a profile, the path variables that are in none (name, value, why), and the findings."""

    name: str
    mounts: list[MappedMount]
    unmounted: list[tuple[str, str, str]]
    findings: list[Finding]

    def lines(self) -> Iterator[str]:
        """Yield the map as text, for those who cannot see the drawing."""
        for mount in self.mounts:
            for place in mount.places:
                sides = [_side(side, names, place.labels) for side, names in ((HOST, place[1]), (CONTAINER, place[2]))]
                paths = (os.path.normpath(os.path.join(folder, place.path)) for folder in mount[:2])
                yield " → ".join(f"{_plain(path)}{side}" for path, side in zip(paths, sides, strict=True))
        for name, value, why in self.unmounted:
            yield f"{name} {_plain(value)} ({why})"


def _side(side: str, names: Sequence[str], labels: Iterable[Label]) -> str:
    words = [*names, *(label.text for label in labels if label.side == side)]
    return f" ({', '.join(words)})" if words else ""


def get_path_map(context: Context, name: str, summary: Mapping[str, Any]) -> PathMap:
    """Return the map of a profile from its summary (``Renderer.summary``), with the findings of ``check``.

    If a source does not answer, no file is looked at, and there are no findings.
    """
    mapping = {"Mounts": [{key: mount[key] for key in ("source", "destination")} for mount in summary["mounts"]]}
    drawn = [
        MappedMount(context.short(mount["source"]), mount["destination"], [MountedFolder("", [], [], [])])
        for mount in mapping["Mounts"]
    ]
    silent = [drawn[number] for number, mount in enumerate(summary["mounts"]) if mount["exists"] is None]
    findings: list[Finding] = []
    if silent:
        folders = [(next(real_paths([mount["source"]])), mount["destination"]) for mount in mapping["Mounts"]]
        for mount in silent:
            mount.places[0].labels.append(Label(HOST, SILENT, WARNING))
    else:
        host, locate = Host(context.environ, context.folder), in_profile(mapping)
        resolved = resolve_mounts(mapping, host)
        folders = [(mount.source, mount.destination) for mount in resolved]
        findings = list(container.check_mounts(resolved, locate, host))
        _add_findings(drawn, resolved, findings, locate)
    values = {name: value for name, value in summary["variables"].items() if value.startswith("/")}
    resolver = PathResolver(mounted(mapping), _Unseen() if silent else None)
    resolutions = answers(resolver.resolve, values.values())
    exists = answers(os.path.exists, (resolution.host for resolution in resolutions.values() if resolution.host))
    unmounted = []
    for variable, value in values.items():
        resolution = resolutions.get(value)
        why = SILENT if resolution is None else _UNMOUNTED.get(resolution.kind, "")
        if why:
            unmounted.append((variable, context.short(value), why))
        elif resolution is not None:
            _add_variable(drawn, folders, variable, resolution, is_missing=exists.get(resolution.host) is False)
    for mount in drawn:
        mount.places[1:] = sorted(mount.places[1:], key=lambda place: place.path.split("/"))
    return PathMap(name, drawn, unmounted, findings)


class _Unseen(HostFiles):
    """Files that are not looked at, since a look may not end."""

    def exists(self, path: str) -> bool:
        """Return True."""
        return True

    def link(self, path: str) -> str | None:
        """Return None."""
        return None


def _add_findings(
    drawn: Sequence[MappedMount], resolved: Sequence[ResolvedMount], findings: Sequence[Finding], locate: Locator
) -> None:
    missing = {finding.where for finding in findings if finding.id == "src-missing"}
    existing = container.by_destination(
        [mount for mount in resolved if locate(mount.location._replace(key="source")) not in missing]
    )
    by_location: dict[str, list[Finding]] = {}
    for finding in findings:
        by_location.setdefault(finding.where, []).append(finding)
    for number, mount in enumerate(resolved):
        sides = {locate(mount.location._replace(key=key)): side for key, side in _SIDES.items()}
        outer = container.find_outer(mount, existing)
        for finding in (finding for where in sides for finding in by_location.get(where, ())):
            if finding.id == "dst-shadow" and outer is not None:
                path = os.path.relpath(mount.destination, outer.destination)
                place = _place(drawn[resolved.index(outer)], path)
                place.labels.append(Label(CONTAINER, f"hidden by mount {number + 1}", INFO))
            else:
                text = MISSING if finding.id == "src-missing" else finding.severity
                drawn[number].places[0].labels.append(Label(sides[finding.where], text, finding.severity))


def _place(mount: MappedMount, path: str) -> MountedFolder:
    path = "" if path == "." else path
    for place in mount.places:
        if place.path == path:
            return place
    mount.places.append(MountedFolder(path, [], [], []))
    return mount.places[-1]


_IN_IMAGE = "in the image"
_UNMOUNTED = {
    "host-only": "in no mount",
    "unmapped": "in no mount",
    "link-out": "a link leads out of its mount",
    "image": _IN_IMAGE,
}
"""By kind of ``Resolution``: why a path is not drawn in a mount."""


def _add_variable(
    drawn: Sequence[MappedMount],
    folders: Sequence[tuple[str, str]],
    variable: str,
    resolution: Resolution,
    *,
    is_missing: bool,
) -> None:
    is_covered = resolution.kind == "covered"
    is_host = is_covered or resolution.kind == "host"
    column, path = (0, next(real_paths([resolution.host]))) if is_covered else (1, resolution.container)
    number = _deepest(path, folders, column)
    place = _place(drawn[number], os.path.relpath(path, folders[number][column]))
    (place.host if is_host else place.container).append(variable)
    if is_covered:
        covered = os.path.normpath(os.path.join(folders[number][1], place.path))
        label = Label(CONTAINER, f"hidden by mount {_deepest(covered, folders, 1) + 1}", WARNING)
    else:
        label = Label(HOST, MISSING, ERROR if is_host else WARNING)
    is_known = any(known[:2] == label[:2] for known in place.labels)
    if (is_covered or is_missing) and not is_known:
        place.labels.append(label)


def _deepest(path: str, folders: Sequence[tuple[str, str]], column: int) -> int:
    """Return the number of the mount that has a path: of the source (column 0) or destination (1) nearest to it."""
    around = (number for number, folder in enumerate(folders) if is_inside(path, folder[column]))
    return max(around, key=lambda number: len(folders[number][column]))


# The drawing. All lengths are units of the view box, whose width is WIDTH.

WIDTH, SHOWN_WIDTH = 440, 540
BOX, PAD, LINE, GAP = 196, 9, 15, 10
RIGHT = WIDTH - BOX
MIDDLE = WIDTH / 2
SIZE = 11.5
ADVANCE = SIZE * 0.6
"""The width of a character. Fonts differ, so each line of text is drawn with the length that it has by this."""
LINE_LIMIT = 5
"""Lines of the longest path; of a longer one the middle is left out."""
SHOWN_FINDINGS = 12

_LIGHT = {
    "back": "#ffffff", "box": "#f5f7fa", "edge": "#c3ccd6", "text": "#1f2328", "muted": "#56606b",
    "host": "#0b5cad", "container": "#6a3fb5", ERROR: "#b3261e", WARNING: "#805000", INFO: "#805000",
}  # fmt: skip
_DARK = {
    "back": "#0f1318", "box": "#191f27", "edge": "#46505b", "text": "#e6edf3", "muted": "#a3adb8",
    "host": "#7cbaff", "container": "#c7abff", ERROR: "#ff938b", WARNING: "#e8b84d", INFO: "#e8b84d",
}  # fmt: skip
_CLASS = "taoprof-map"
_JUPYTER, _CODE = "[data-jp-theme-light={}]", ".vscode-{}"


def _style() -> str:
    """Return the rules that replace the colours of the attributes: those of the reader's theme."""

    def colours(palette: Mapping[str, str]) -> str:
        return "".join(f"--{name}:{colour};" for name, colour in palette.items())

    rules = [
        f".{_CLASS}{{{colours(_LIGHT)}color-scheme:light dark;max-width:100%;height:auto}}",
        f"@media(prefers-color-scheme:dark){{.{_CLASS}{{{colours(_DARK)}}}}}",
    ]
    for palette, is_light, name in ((_LIGHT, '"true"', "light"), (_DARK, '"false"', "dark")):
        pages = ",".join(f"{page} .{_CLASS}" for page in (_JUPYTER.format(is_light), _CODE.format(name)))
        rules.append(f"{pages}{{{colours(palette)}}}")
    for name in _LIGHT:
        rules.append(f".{_CLASS} .f-{name}{{fill:var(--{name})}}.{_CLASS} .s-{name}{{stroke:var(--{name})}}")
    rules.append(f".{_CLASS} text{{direction:ltr;unicode-bidi:isolate}}")
    return "".join(rules)


class _Drawing:
    """The elements of a drawing, from top to bottom; ``y`` is where the next one begins."""

    def __init__(self) -> None:
        self.elements: list[str] = []
        self.y = 0.0

    def text(self, x: float, y: float, text: str, colour: str, **more: str) -> None:
        attributes = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in more.items())
        length = f' textLength="{text_width(text) * ADVANCE:.1f}" lengthAdjust="spacingAndGlyphs"'
        self.elements.append(f'<text x="{x:g}" y="{y:g}"{length} {_fill(colour)}{attributes}>{escape(text)}</text>')

    def line(self, x1: float, x2: float, y: float, colour: str, more: str = "") -> None:
        self.elements.append(f'<line x1="{x1:g}" x2="{x2:g}" y1="{y:g}" y2="{y:g}" {_stroke(colour)}{more}/>')

    def label(self, x: float, y: float, label: Label) -> None:
        """Draw a label: its text in a frame."""
        wide = round(text_width(label.text) * ADVANCE + 12, 1)
        self.elements.append(_rect((x, y - 11), (wide, 14), 7, _outline(label.severity)))
        self.text(x + 6, y, label.text, label.severity, font_weight="600")


def _fill(name: str) -> str:
    return f'class="f-{name}" fill="{_LIGHT[name]}"'


def _stroke(name: str) -> str:
    return f'class="s-{name}" stroke="{_LIGHT[name]}"'


def _outline(name: str) -> str:
    return f'fill="none" {_stroke(name)}'


def _rect(at: tuple[float, float], size: tuple[float, float], radius: int, paint: str) -> str:
    return f'<rect x="{at[0]:g}" y="{at[1]:g}" width="{size[0]}" height="{size[1]:g}" rx="{radius}" {paint}/>'


def to_svg(path_map: PathMap) -> str:
    """Return the drawing of a map, an SVG document that can also stand in an HTML page."""
    drawing = _Drawing()
    drawing.y = 34
    drawing.text(0, 13, _plain(f"profile '{path_map.name}'"), "text", font_weight="700")
    for x, text, name in ((PAD, "on this host", "host"), (RIGHT + PAD, "in the container", "container")):
        drawing.text(x, drawing.y, text, name, font_weight="600")
    drawing.y += 8
    for number, mount in enumerate(path_map.mounts, 1):
        _draw_mount(drawing, number, mount)
    if not path_map.mounts:
        _draw_lines(drawing, ["no mounts: the container sees nothing of this host"], "muted")
    if path_map.unmounted:
        _draw_lines(drawing, ["variables with a path that is in none of these mounts"], "muted")
        for name, value, why in path_map.unmounted:
            drawing.y -= GAP - 4
            _draw_lines(drawing, _wrapped(f"{name} = {value}", WIDTH - 3 * PAD), "text", indent=PAD)
            drawing.y -= GAP - 2
            drawing.label(2 * PAD, drawing.y + 11, Label(CONTAINER, why, "muted" if why == _IN_IMAGE else WARNING))
            drawing.y += LINE + GAP
    for finding in path_map.findings[:SHOWN_FINDINGS]:
        lines = _wrapped(f"{finding.severity}: {finding.where}: {finding.what}", WIDTH - PAD)
        _draw_lines(drawing, lines, finding.severity)
        drawing.y -= GAP - 4
    if len(path_map.findings) > SHOWN_FINDINGS:
        _draw_lines(drawing, [f"and {len(path_map.findings) - SHOWN_FINDINGS} more: see 'taoprof check'"], "muted")
    return _document(path_map, drawing)


_FONTS = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"
MARGIN = 10


def _document(path_map: PathMap, drawing: _Drawing) -> str:
    title = f"Path map of profile '{_plain(path_map.name)}'"
    description = shorten("\n".join(path_map.lines()), 20_000)
    wide, high = WIDTH + 2 * MARGIN, drawing.y + 2 * MARGIN - GAP
    size = f'width="{SHOWN_WIDTH}" height="{high * SHOWN_WIDTH / wide:.0f}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="{_CLASS}" role="img" {size} '
        f'viewBox="{-MARGIN} {-MARGIN} {wide} {high:g}" font-size="{SIZE}" font-family="{_FONTS}" xml:space="preserve">'
        f"<title>{escape(title)}</title><desc>{escape(description)}</desc><style>{_style()}</style>"
        f"{_rect((-MARGIN, -MARGIN), (wide, high), 8, _fill('back'))}"
        f"{''.join(drawing.elements)}</svg>\n"
    )


def _draw_lines(drawing: _Drawing, lines: Sequence[str], colour: str, *, indent: float = 0) -> None:
    for line in lines:
        drawing.text(PAD + indent, drawing.y + 11, line, colour)
        drawing.y += LINE
    drawing.y += GAP


def _draw_mount(drawing: _Drawing, number: int, mount: MappedMount) -> None:
    top, at = drawing.y, len(drawing.elements)
    drawing.y += 2
    for place in mount.places:
        start = drawing.y
        if place.path:
            for x in (0, RIGHT):
                drawing.line(x + PAD, x + BOX - PAD, start, "edge", ' stroke-dasharray="1 3"')
            start += 1
        sides = ((0, HOST, mount.source, place.host), (RIGHT, CONTAINER, mount.destination, place.container))
        ends = [_draw_side(drawing, x, start, place, side, folder, names) for x, side, folder, names in sides]
        drawing.y = max(ends) + 8
        _draw_connection(drawing, start + 13, place, "" if place.path else str(number), is_broken=mount.is_missing)
    high = drawing.y - top
    drawing.elements[at:at] = [
        _rect((x, top), (BOX, high), 6, _fill("box"))
        + _rect((x + 0.5, top + 0.5), (BOX - 1, high - 1), 6, _outline("edge"))
        for x in (0, RIGHT)
    ]
    drawing.y += GAP


def _draw_side(
    drawing: _Drawing, x: float, y: float, place: MountedFolder, side: str, folder: str, names: Sequence[str]
) -> float:
    """Draw one side of a place: its path, or ``folder``, its variables and its labels. Return where it ends."""
    indent, at, colour, weight = float(PAD), x + PAD, "text", "600"
    if place.path:
        indent, at, colour, weight = PAD + 2 * ADVANCE, x + PAD + ADVANCE, "muted", "400"
        drawing.text(x + PAD, y + LINE, "/", colour)
    for line in _wrapped(place.path or folder, BOX - PAD - indent):
        y += LINE
        drawing.text(at, y, line, colour, font_weight=weight)
    for name in names:
        for line in _wrapped(name, BOX - PAD - indent):
            y += LINE
            drawing.text(x + indent, y, line, side)
    for label in place.labels:
        if label.side == side:
            y += LINE + 3
            drawing.label(x + indent, y, label)
    return y


def _draw_connection(drawing: _Drawing, y: float, place: MountedFolder, number: str, *, is_broken: bool) -> None:
    severities = [label.severity for label in place.labels]
    colour = next((severity for severity in SEVERITIES if severity in severities), "muted" if number else "edge")
    is_broken = is_broken or ERROR in severities or any(label.text.startswith("hidden") for label in place.labels)
    dashes = ' stroke-dasharray="4 3"' if is_broken else ""
    drawing.line(BOX, RIGHT, y, colour, f' stroke-width="{1.6 if number else 1}"{dashes}')
    if not number:
        return
    tip = f"{RIGHT - 1} {y:g} {RIGHT - 8} {y - 4:g} {RIGHT - 8} {y + 4:g}"
    drawing.elements.append(f'<polygon points="{tip}" {_fill(colour)}/>')
    for paint in (_fill("back"), _outline(colour)):
        drawing.elements.append(_rect((MIDDLE - 13, y - 9), (18, 18), 9, paint))
    drawing.text(MIDDLE - 4 - len(number) * ADVANCE / 2, y + 4, number, "text", font_weight="600")


def _plain(text: str) -> str:
    """Return a text as it is drawn: without control characters, and not endless."""
    return printable(shorten(text, 1000, end=300))


def _wrapped(text: str, room: float) -> list[str]:
    """Return a text in lines that fit, broken after a '/' or a blank where there is one."""
    columns = int(room / ADVANCE)
    text = _plain(text)
    if text_width(text) > LINE_LIMIT * columns - 12:
        characters = columns * len(text) // text_width(text)
        text = shorten(text, LINE_LIMIT * characters - 12, end=2 * characters)
    lines = [""]
    for part in re.findall(r"[^/ ]*[/ ]|[^/ ]+", text):
        if columns - text_width(lines[-1]) < text_width(part.rstrip()) <= columns:
            lines.append("")
        for character in part:
            if text_width(lines[-1] + character) > columns and character != " ":
                lines.append("")
            lines[-1] += character
    return [line.rstrip() for line in lines if line.strip()] or [""]


class Translation(NamedTuple):
    """``path`` was taken for one of ``meant`` (host or container) and is ``answer`` on the other side.

    ``also`` are further places of a host path in the container; ``otherwise`` is what the path would be on the other
    side if it were meant the other way round, "" if it cannot be; ``note`` is a remark for the user, or "".
    """

    path: str
    meant: str
    answer: str
    also: list[str]
    otherwise: str
    note: str


def _mounts(context: Context, name: str | None) -> dict[str, str]:
    """Return destination by source of a profile, else of the file that a ``tao`` started here would read."""
    if name is not None:
        return mounted(Store(context).renderer(name).mapping())
    path = find_mounts_file({**context.environ, "HOME": context.home}, context.folder)
    content = files.read(path, files.MAPPING_LIMIT)
    if content is None:
        raise NotFoundError(f"there is no mapping file ('{path}')", hint="'taoprof path PATH NAME' asks a profile")
    return mounted(mapping.parse(content, path))


def translate(context: Context, path: str, name: str | None) -> Translation:
    """Translate a path, whichever side it is of; a relative one, and one with ``~``, is of this host.

    Where it may be of both, it is taken for the one that is there, and for this host's if both are.
    Variables of the profile and of the environment are expanded, except secrets.
    Raises UsageError for one that is not set, NotFoundError if no mount has it, InvalidProfileError, InvalidStateError.
    """
    mounts = _mounts(context, name)
    path = _expand(context, path, name)
    whole = "/" + os.path.normpath(context.absolute(path)).lstrip("/")
    outside = next(iter(paths.host_paths([whole], mounts)), "") if path.startswith("/") else ""
    exists = answers(os.path.exists, [whole, outside])
    silent = next((candidate for candidate in (whole, outside) if candidate not in exists), "")
    inside = paths.container_paths(whole, mounts)
    if outside and not silent:
        followed = paths.follow_links(whole, mounts, files.link_target)[1]
        # As the path names it, where its links lead there.
        is_same = bool(followed) and os.path.realpath(outside) == os.path.realpath(followed)
        outside = outside if is_same else followed
        exists[outside] = os.path.exists(outside)
    is_host = bool(inside) and (not outside or exists.get(whole, False) or not exists.get(outside, True))
    if not inside and not outside:
        raise _not_mounted(whole, mounts)
    note, other = "", outside if is_host else "".join(inside[:1])
    if inside and outside and inside[0] != outside:
        note = f"read as a host path; as a container path, '{whole}' would be '{other}' on this host"
        if not is_host:
            note = f"read as a container path; as a host path, '{whole}' would be '{other}' in the container"
    elif is_host and inside[1:]:
        note = f"also visible as {', '.join(inside[1:])}"
    elif not inside and not silent and exists[whole] and os.path.realpath(whole) != os.path.realpath(outside):
        note = f"'{whole}' also exists on this host, but it is not mounted"
    if silent:
        note = f"{no_answer(silent)}; links are not followed" + (f"; {note}" if note else "")
    if is_host:
        return Translation(whole, "host", inside[0], inside[1:], other, note)
    return Translation(whole, "container", outside, [], other, note)


def _expand(context: Context, path: str, name: str | None) -> str:
    """Return ``path`` with the values of the variables of the profile, by default the active one, and of the shell."""
    whole = context.absolute(path)
    if "$" not in path or answers(os.path.lexists, [whole]).get(whole):
        return path
    variables = {key: value for key, value in context.environ.items() if not is_secret(key, value)}
    name = name or current_cache.own_profile(context) or get_status(context).name
    if name is not None:
        renderer = Store(context).renderer(name)
        secrets = renderer.secrets()[0]
        variables |= {key: value for key, value in renderer.variables().items() if key not in secrets}
    expanded = expand_variables(path, variables)
    if VARIABLE.search(expanded):
        hint = f"'taoprof show {name}' lists the variables" if name else "taoprof path PATH NAME"
        raise UsageError(f"'{expanded}' refers to a variable that is not set, or that is a secret", hint=hint)
    return expanded


def _not_mounted(path: str, mounts: Mapping[str, str]) -> NotFoundError:
    if unanswered([path]):
        return NotFoundError(f"'{path}' is in no mount; {no_answer(path)}")
    resolver = PathResolver(mounts)
    resolution, real = resolver.resolve(path), os.path.realpath(path)
    if resolution.kind == "image" and resolution.container != path:
        resolution = resolution._replace(kind="link-out")
    what, _, hint = paths.explain(resolver, resolution)
    if paths.is_mounted(path, mounts) and resolution.kind != "covered":
        what = f"'{path}' is a link to '{real}', which is in no mount"
    return NotFoundError(what, hint=hint)
