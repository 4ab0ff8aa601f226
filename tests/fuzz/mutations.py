"""Hypothesis strategies that change valid inputs: bytes of any file, chunks of a PNG, and nested values of JSON.

Strategies are built once and not while drawing, which would take longer than the tests.
"""

import copy
import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from hypothesis import strategies as st

_REST = 10**9  # a number of bytes that reaches the end of any file
# Values that parsers compare with limits, in the byte orders of PNG and of DICOM.
_EXTREMES = sorted(
    {
        value.to_bytes(size, order)
        for size in (1, 2, 4)
        for order in ("big", "little")
        for value in (0, 1, 2 ** (8 * size - 1) - 1, 2 ** (8 * size - 1), 2 ** (8 * size) - 1)
    }
)
# Values of the wrong type, or of a size that overflows, recurses or fills the memory.
HOSTILE: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**30, 10**400, 0.5, -0.5, 1e308, 1e-320, float("nan"), float("inf"),
    "", " ", "nan", "1e400", "-", "\0", "é", "٣", "../../etc/passwd", "hf-hub:a/b", "local-dir:/tmp", "x" * 10_000,
    "9" * 5_000, "2020-99-99", [], [[]], {}, {"": None}, [1] * 1_000, ["x", 1, None], {"a": {"a": {}}},
]  # fmt: skip
_PNG_NAMES = [b"", b"", b"", b"IHDR", b"IDAT", b"PLTE", b"tRNS", b"zTXt", b"eXIf", b"IEND"]


class Slice(NamedTuple):
    """Bytes of a file, from `start` on."""

    start: int
    length: int


class Edit(NamedTuple):
    """A replacement of the bytes `at` to `at + removed` by other bytes, or by a slice of a second file."""

    at: int  # modulo the length of the file
    removed: int
    inserted: bytes | Slice


_AT, _LENGTH = st.integers(0, 2**16), st.integers(1, 256) | st.just(_REST)
_VALUE = st.sampled_from(_EXTREMES) | st.binary(min_size=1, max_size=8)
_EDIT = st.one_of(
    st.builds(lambda at, value: Edit(at, len(value), value), _AT, _VALUE),
    st.builds(Edit, _AT, _LENGTH, st.just(b"")),
    st.builds(Edit, _AT, st.sampled_from([0, 4, 64, _REST]), _VALUE | st.builds(Slice, _AT, _LENGTH)),
)
# Edits that flip, overwrite, cut, remove, repeat and splice.
EDITS = st.lists(_EDIT, min_size=1, max_size=4)


def edited(file: bytes, changes: list[Edit], other: bytes = b"") -> bytes:
    """Return `file` after `changes`, whose slices are taken from `other`, or from `file` itself."""
    for at, removed, inserted in changes:
        position, source = at % (len(file) + 1), other or file
        if isinstance(inserted, Slice):
            start = inserted.start % (len(source) + 1)
            inserted = source[start : start + inserted.length]  # noqa: PLW2901
        file = file[:position] + inserted + file[position + removed :]
    return file


def mutated(files: Mapping[str, bytes]) -> st.SearchStrategy[bytes]:
    """Return one of `files` after edits, in which slices of another may be inserted."""
    one = st.sampled_from(list(files.values()))
    return st.builds(edited, one, EDITS, one)


class ChunkEdit(NamedTuple):
    """A change of one chunk of a PNG file."""

    place: int  # modulo the number of chunks
    name: bytes  # empty: the old name
    changes: list[Edit]  # of its content
    copies: int


_CHUNK_EDIT = st.builds(
    ChunkEdit, st.integers(0, 9), st.sampled_from(_PNG_NAMES), st.just([]) | EDITS, st.sampled_from([1, 1, 1, 2, 0])
)


def mutated_png(files: Mapping[str, bytes]) -> st.SearchStrategy[bytes]:
    """Return one of the PNG `files` with changed chunks and valid checksums, so that decoders go on.

    Pixels are changed before or after compression.
    """
    changes = st.lists(_CHUNK_EDIT, min_size=1, max_size=3)
    return st.builds(_with_chunks_edited, st.sampled_from(list(files.values())), changes, st.booleans())


def _with_chunks_edited(file: bytes, changes: list[ChunkEdit], inside: bool) -> bytes:
    chunks = list(_png_chunks(file))
    if inside:
        chunks = [(name, zlib.decompress(content) if name == b"IDAT" else content) for name, content in chunks]
    for place, name, edits, copies in changes:
        index = place % len(chunks)
        old, content = chunks[index]
        chunks[index : index + 1] = [(name or old, edited(content, edits))] * copies
        chunks = chunks or [(b"IEND", b"")]
    if inside:
        chunks = [(name, zlib.compress(content, 1) if name == b"IDAT" else content) for name, content in chunks]
    return file[:8] + b"".join(_png_chunk(name, content) for name, content in chunks)


def _png_chunks(file: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = 8
    while position < len(file):
        (length,) = struct.unpack_from(">I", file, position)
        yield file[position + 4 : position + 8], file[position + 8 : position + 8 + length]
        position += length + 12


def _png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def mutated_values(values: Any) -> st.SearchStrategy[Any]:
    """Return a copy of nested dicts and lists, in which entries are replaced, removed, added or renamed."""
    actions = st.sampled_from(["replace", "replace", "remove", "add"])
    change = st.tuples(st.sampled_from(list(_paths(values))), actions, st.sampled_from(HOSTILE))
    return st.lists(change, min_size=1, max_size=3).map(lambda changes: _changed(values, changes))


def _paths(values: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every entry, without those beyond the first three of a list."""
    items = values.items() if isinstance(values, dict) else enumerate(values[:3]) if isinstance(values, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from _paths(value, (*path, key))


def _changed(values: Any, changes: list[tuple[tuple[Any, ...], str, Any]]) -> Any:
    changed = copy.deepcopy(values)
    for (*outer, last), action, hostile in changes:
        entry, value = changed, copy.deepcopy(hostile)
        try:
            for key in outer:
                entry = entry[key]
            if action == "replace":
                entry[last] = value
            elif action == "remove":
                del entry[last]
            else:
                entry[str(hostile)[:20]] = value
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change removed the entry, or a list has no names
    return changed
