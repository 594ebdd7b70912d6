"""Draws the packages and who imports whom: `python docs/packages.py` writes docs/packages.svg.

All of it is read from the imports: a package stands above everything that it imports from, as low
as that lets it. An arrow is left out where others lead the same way. tests/test_packages.py holds
that the committed picture is of today's imports.
"""

import ast
import dataclasses
import itertools
import pathlib
from collections.abc import Iterator, Mapping

REPO = pathlib.Path(__file__).resolve().parents[1]
LIBRARY = "glscl_jax"
GROUND = "ground"  # one box for the single files that import no package

BLUE, ORANGE, GREEN, GREY = "#dbe9f6", "#fde5cc", "#dcf0dc", "#eeeeee"
# Nothing is behind the boxes but the page, white or dark: what stands there can be read on both.
ON_PAGE, IN_BOX = "#767c85", "#16191f"
# Pixels.
BOX_HEIGHT, GAP, ROW, MARGIN = 46, 34, 84, 12
LETTER = {13: 7.6, 11: 6.4}  # by the size of the font

Graph = Mapping[str, frozenset[str]]


# ---- What is there ----


@dataclasses.dataclass(frozen=True)
class House:
    """The packages, as the imports tell.

    Attributes:
      graph: each box -> the boxes that it imports from.
      inner: each box -> what is in it: subpackages, or for `GROUND` files.
      files: boxes that are a single file.
      tensorflow: boxes that import it.
    """

    graph: Graph
    inner: Mapping[str, tuple[str, ...]]
    files: frozenset[str]
    tensorflow: frozenset[str]


def house() -> House:
    """Reads the imports of the library and of conversion."""
    paths = [path for part in (LIBRARY, "convert") for path in sorted((REPO / part).rglob("*.py"))]
    found = {".".join(path.relative_to(REPO).with_suffix("").parts): path for path in paths}
    # `load` alone, which looks up when it is asked for.
    del found[f"{LIBRARY}.__init__"]
    members = {module: _imports(path) for module, path in found.items()}
    of = {module: module.removeprefix(f"{LIBRARY}.").split(".")[0] for module in members}
    names = set(of.values())
    plain = {name: set() for name in names}
    for module, others in members.items():
        plain[of[module]] |= {of[other] for other in others if other in of} - {of[module]}
    files = {name for name in names if f"{LIBRARY}.{name}" in found}
    ground = {name for name in files if plain[name] <= files and _only(files, plain, name)}
    graph = {
        name: frozenset(GROUND if other in ground else other for other in others)
        for name, others in plain.items()
        if name not in ground
    }
    rooms = {
        name: tuple(sorted({m.split(".")[-2] for m in of if of[m] == name} - {name, LIBRARY}))
        for name in graph
    }
    return House(
        graph | {GROUND: frozenset()},
        rooms | {GROUND: tuple(sorted(ground))},
        frozenset(files - ground),
        frozenset(of[module] for module, others in members.items() if "tensorflow" in others),
    )


def _only(files: set[str], plain: Mapping[str, set[str]], name: str) -> bool:
    """Whether a file imports nothing but files of which the same is true."""
    return all(other in files and _only(files, plain, other) for other in plain[name])


def _imports(path: pathlib.Path) -> set[str]:
    """What a file imports, wherever it does; of `from A import b` both A and A.b."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
    return found


def beyond(graph: Graph, name: str) -> frozenset[str]:
    """All that a box leads to."""
    return graph[name].union(*(beyond(graph, other) for other in graph[name]))


def reduce(graph: Graph) -> Graph:
    """The graph without what follows from the rest of it."""
    return {
        name: others - frozenset().union(*(beyond(graph, other) for other in others))
        for name, others in graph.items()
    }


def floor(graph: Graph, name: str) -> int:
    """0 for what imports nothing, else one above the highest that is imported."""
    return 1 + max((floor(graph, other) for other in graph[name]), default=-1)


# ---- Where it stands ----

# A point of a floor: a box by its name, or where the arrow (from, to) passes through.
Point = str | tuple[str, str]


def rows(graph: Graph) -> list[list[Point]]:
    """The points of each floor from the ground up, in an order in which few arrows cross."""
    floors = {name: floor(graph, name) for name in graph}
    found: list[list[Point]] = [[] for _ in range(1 + max(floors.values()))]
    for name in sorted(graph):
        found[floors[name]].append(name)
    for way in _ways(graph):
        for number in range(floors[way[1]] + 1, floors[way[0]]):
            found[number].append(way)
    beside = _neighbours(graph, floors)
    for _ in range(8):
        for number in (*range(1, len(found)), *range(len(found) - 2, -1, -1)):
            place = {point: x for row in found for point, x in zip(row, _spread(row), strict=True)}
            found[number].sort(key=lambda point, at=place: _middle(point, at, beside))
    return found


def _ways(graph: Graph) -> list[tuple[str, str]]:
    return [(name, other) for name in sorted(graph) for other in sorted(graph[name])]


def _chain(way: tuple[str, str], floors: Mapping[str, int]) -> list[Point]:
    """What an arrow touches, from its start to its end."""
    between = max(0, floors[way[0]] - floors[way[1]] - 1)
    return [way[0], *[way] * between, way[1]]


def _neighbours(graph: Graph, floors: Mapping[str, int]) -> dict[Point, list[Point]]:
    found: dict[Point, list[Point]] = {name: [] for name in graph}
    for way in _ways(graph):
        for one, other in itertools.pairwise(_chain(way, floors)):
            found.setdefault(one, []).append(other)
            found.setdefault(other, []).append(one)
    return found


def _spread(row: list[Point]) -> list[float]:
    """Places of a row's points about 0, as far apart as they are many."""
    return [number - (len(row) - 1) / 2 for number in range(len(row))]


def _middle(point: Point, place: Mapping[Point, float], beside) -> float:
    others = [place[other] for other in beside[point] if other != point]
    return sum(others) / len(others) if others else place[point]


# ---- How it looks ----


@dataclasses.dataclass(frozen=True)
class Box:
    """A point's middle and width, in pixels; a passing arrow's is narrow."""

    x: float
    y: float
    width: float


def boxes(home: House, graph: Graph) -> tuple[dict[tuple[int, Point], Box], float, float]:
    """(floor, point) -> where it stands; and the picture's width and height."""
    ordered = rows(graph)
    widths = [[_width(home, point) for point in row] for row in ordered]
    whole = max(sum(row) + GAP * (len(row) - 1) for row in widths) + 2 * MARGIN
    found, height = {}, ROW * (len(ordered) - 1) + BOX_HEIGHT + 2 * MARGIN
    for number, (row, wide) in enumerate(zip(ordered, widths, strict=True)):
        # What is left of the width is shared out between and beside the points.
        room = (whole - 2 * MARGIN - sum(wide)) / (len(row) + 1)
        left = MARGIN + room
        for point, width in zip(row, wide, strict=True):
            y = height - MARGIN - BOX_HEIGHT / 2 - ROW * number
            found[number, point] = Box(left + width / 2, y, width)
            left += width + room
    return found, whole, height


def _width(home: House, point: Point) -> float:
    if isinstance(point, tuple):
        return 10.0
    lines = [LETTER[13] * len(_title(home, point)), LETTER[11] * len(_inside(home, point))]
    return max(lines) + 24


def _title(home: House, name: str) -> str:
    return f"{name}.py" if name in home.files else name


def _inside(home: House, name: str) -> str:
    parts = (f"{part}.py" if name == GROUND else part for part in home.inner[name])
    return ", ".join(parts)


def svg() -> str:
    """The picture."""
    home = house()
    graph = reduce(home.graph)
    floors = {name: floor(graph, name) for name in graph}
    places, width, height = boxes(home, graph)
    parts = [*_arrows(graph, floors, places)]
    for name in sorted(graph):
        parts += _drawn(home, name, places[floors[name], name])
    note = f"an arrow: imports from; green: {_listed(home.tensorflow)} alone imports TensorFlow"
    parts.append(_text(width / 2, height + 8, 11, ON_PAGE, note))
    size = f"{width:.0f} {height + 16:.0f}"
    tip = f'<path d="M0,0 L8,4 L0,8 z" fill="{ON_PAGE}"/>'
    return "\n".join(
        [
            '<svg xmlns="http://www.w3.org/2000/svg" font-family="Helvetica, Arial, sans-serif"',
            ' width="{}" height="{}"'.format(*size.split()) + f' viewBox="0 0 {size}">',
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7"',
            f' markerHeight="7" orient="auto">{tip}</marker></defs>',
            *parts,
            "</svg>\n",
        ]
    )


def _listed(names) -> str:
    return " and ".join(sorted(names))


def _arrows(graph: Graph, floors, places) -> Iterator[str]:
    for way in _ways(graph):
        top, bottom = floors[way[0]], floors[way[1]]
        points = _chain(way, floors)
        stops = [places[top - number, point] for number, point in enumerate(points)]
        x, y = stops[0].x, stops[0].y + BOX_HEIGHT / 2
        path = f"M{x:.1f},{y:.1f}"
        for number, stop in enumerate(stops[1:], 1):
            last = top - number == bottom
            end = stop.y - BOX_HEIGHT / 2 - (2 if last else 0)
            path += f" C{x:.1f},{y + 24:.1f} {stop.x:.1f},{end - 24:.1f} {stop.x:.1f},{end:.1f}"
            x, y = stop.x, end
            if not last:
                y += BOX_HEIGHT
                path += f" L{x:.1f},{y:.1f}"
        yield f'<path d="{path}" fill="none" stroke="{ON_PAGE}" marker-end="url(#tip)"/>'


def _drawn(home: House, name: str, box: Box) -> list[str]:
    colour = ORANGE if name in home.files else BLUE
    colour = GREEN if name in home.tensorflow else GREY if name == GROUND else colour
    rectangle = (
        f'<rect x="{box.x - box.width / 2:.1f}" y="{box.y - BOX_HEIGHT / 2:.1f}"'
        f' width="{box.width:.1f}" height="{BOX_HEIGHT}" rx="7" fill="{colour}"'
        f' stroke="{ON_PAGE}" stroke-width="0.8"/>'
    )
    if inside := _inside(home, name):
        return [
            rectangle,
            _text(box.x, box.y - 4, 13, IN_BOX, _title(home, name)),
            _text(box.x, box.y + 13, 11, IN_BOX, inside),
        ]
    return [rectangle, _text(box.x, box.y + 4.5, 13, IN_BOX, _title(home, name))]


def _text(x: float, y: float, size: int, colour: str, text: str) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}"'
    return f'<text {place} text-anchor="middle">{text}</text>'


if __name__ == "__main__":
    target = pathlib.Path(__file__).with_name("packages.svg")
    target.write_text(svg(), encoding="utf-8")
    print(f"wrote {target.name}")
