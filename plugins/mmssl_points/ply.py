"""Vertices of PLY files (Turk 1994), ASCII and binary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8",
}  # fmt: skip
ORDERS = {"ascii": "=", "binary_little_endian": "<", "binary_big_endian": ">"}
LONGEST = 1 << 16  # bytes of a header


@dataclass(frozen=True)
class Element:
    """A part of a PLY file: so many rows, each of these properties (name, type of numpy; None: a list)."""

    name: str
    count: int
    properties: list[tuple[str, str | None]]


def read_ply(data: bytes) -> NDArray[np.floating[Any]]:
    """Return x, y, z and then all other properties of the vertices, colours of 8 bits in [0, 1] [N, 3 + C].

    They are float64 in text and where float32 does not hold every value of their types. Faces, which come
    after the vertices, are not read. Raises ValueError if the file is broken.
    """
    kind, elements, start = _read_header(data)
    for element in elements:
        if lists := [name for name, of in element.properties if of is None]:
            raise ValueError(f"the PLY file has lists ({lists[0]}) in or before its vertices, which are not read")
    *before, vertices = elements
    if kind == "ascii":
        found = _read_text(data[start:], sum(one.count for one in before), vertices)
    else:
        rows = [np.dtype([(name, ORDERS[kind] + str(of)) for name, of in one.properties]) for one in elements]
        start += sum(one.count * row.itemsize for one, row in zip(before, rows[:-1], strict=True))
        whole = max(0, len(data) - start) // rows[-1].itemsize
        if whole < vertices.count:
            raise ValueError(f"the PLY file is cut off: it has {whole:,} of {vertices.count:,} vertices")
        table = np.frombuffer(data, rows[-1], vertices.count, start)
        columns = [table[name] for name, _ in vertices.properties]
        found = np.stack(columns, axis=1, dtype=np.result_type(np.float32, *columns))
    names = [name for name, _ in vertices.properties]
    for place, (name, of) in enumerate(vertices.properties):
        if of == "u1" and name in ("red", "green", "blue", "alpha", "r", "g", "b"):
            found[:, place] /= 255
    order = [names.index(axis) for axis in "xyz"]
    return found[:, [*order, *(place for place in range(len(names)) if place not in order)]]


def _read_header(data: bytes) -> tuple[str, list[Element], int]:
    """Return the format, the elements up to the vertices, and where what comes after the header begins."""
    end = data.find(b"end_header", 0, LONGEST)
    if not data.startswith(b"ply") or end < 0:
        raise ValueError(f"no PLY file: its header does not end; it begins with {data[:20]!r}")
    start = data.find(b"\n", end) + 1 or len(data)
    kind, elements = "", list[Element]()
    for line in data[:end].decode("latin-1").splitlines():
        match line.split():
            case ["format", one, _]:
                kind = one
            case ["element", name, count] if count.isdecimal():
                if elements and elements[-1].name == "vertex":
                    break
                elements.append(Element(name, int(count), []))
            case ["property", "list", _, _, name] if elements:
                elements[-1].properties.append((name, None))
            case ["property", of, name] if elements and of in TYPES:
                elements[-1].properties.append((name, TYPES[of]))
            case [] | ["ply"] | ["comment" | "obj_info", *_]:
                pass
            case _:
                raise ValueError(f"the header of the PLY file has a line {line[:60]!r}, which can't be understood")
    if kind not in ORDERS:
        raise ValueError(f"the format of the PLY file is {kind!r}, not {', '.join(ORDERS)}")
    names = [name for name, _ in elements[-1].properties] if elements else []
    if not elements or elements[-1].name != "vertex" or not {"x", "y", "z"} <= set(names):
        raise ValueError("the PLY file has no vertices of x, y and z")
    if len(set(names)) < len(names):
        raise ValueError(f"the PLY file has two properties of one name: {', '.join(names)}")
    return kind, elements, start


def _read_text(data: bytes, skip: int, vertices: Element) -> NDArray[np.float64]:
    lines = data.splitlines()[skip : skip + vertices.count]
    if len(lines) < vertices.count:
        raise ValueError(f"the PLY file is cut off: it has {len(lines):,} of {vertices.count:,} vertices")
    width = len(vertices.properties)
    try:
        numbers = np.array(b" ".join(lines).split(), np.float64)
    except ValueError as error:
        raise ValueError(f"the vertices of the PLY file are no numbers: {error}") from error
    if numbers.size != vertices.count * width:
        raise ValueError(f"the PLY file has {numbers.size:,} numbers in {len(lines):,} lines of {width} properties")
    return numbers.reshape(-1, width)
