# SPDX-License-Identifier: Apache-2.0
"""The coding of compressed int8 weights in numpy: what kernels and files must equal.

A weight W int8 [N, K] is cut into tiles of 128 outputs x 256 inputs. Each has eight bytes in the
index, and its bytes in the stream: none where it is zero, the codes themselves, or one bit per code
and the codes that are not zero. docs/sparse_quant_format.md has it bit by bit.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Int8s = npt.NDArray[np.int8]
_Bytes = npt.NDArray[np.uint8]

NAME, VERSION = "tile-bitmap", 1
TILE_OUTPUTS, TILE_INPUTS = 128, 256
UNIT = 64
"""Bytes that lengths and offsets count, and that everything is padded to."""
GUARD = 64
"""Zero bytes behind the last tile, so that a kernel may load a whole vector at any value."""
ENTRY = 8
"""Bytes of a tile in the index."""

_WORD = 64  # codes of one word of a bitmap
_LENGTH_BITS, _ENCODING_BITS = 13, 3


class Encoding(enum.IntEnum):
    """How a tile is coded."""

    ZERO = 0
    DENSE = 1
    BITMAP = 2


@dataclass(frozen=True)
class Tile:
    """A place of W.

    Attributes:
        number: of its entry; n-tile major.
        n: first output.
        k: first input.
        rows: outputs.
        columns: inputs.
    """

    number: int
    n: int
    k: int
    rows: int
    columns: int

    @property
    def words(self) -> int:
        """Words of 64 codes in a row."""
        return -(-self.columns // _WORD)

    @property
    def dense_bytes(self) -> int:
        """Of a dense tile."""
        return self.rows * self.words * _WORD

    @property
    def bitmap_bytes(self) -> int:
        """Of the masks of a bitmap tile, padding included."""
        return _padded(self.rows * self.words * _WORD // 8)

    def __str__(self) -> str:
        return f"tile {self.number} (outputs from {self.n}, inputs from {self.k})"


@dataclass(frozen=True)
class Compressed:
    """A coded weight.

    Attributes:
        stream: int8 [C].
        index: int8 [8 * tiles].
    """

    stream: Int8s
    index: Int8s


def tiles(outputs: int, inputs: int) -> Iterator[Tile]:
    """Those of W [outputs, inputs], in the order of the index."""
    number = 0
    for n in range(0, outputs, TILE_OUTPUTS):
        for k in range(0, inputs, TILE_INPUTS):
            rows, columns = min(TILE_OUTPUTS, outputs - n), min(TILE_INPUTS, inputs - k)
            yield Tile(number, n, k, rows, columns)
            number += 1


def index_bytes(outputs: int, inputs: int) -> int:
    """Of the index of W [outputs, inputs]; NPU coding has the same."""
    return ENTRY * -(-outputs // TILE_OUTPUTS) * -(-inputs // TILE_INPUTS)


def encode(weight: Int8s) -> Compressed:
    """The coded W [N, K]: every tile in the shortest way."""
    entries, parts, offset = [], [], 0
    for tile in tiles(*weight.shape):
        encoding, part = _encode_tile(weight, tile)
        length = part.size // UNIT
        entries.append(length | encoding << _LENGTH_BITS | offset << _LENGTH_BITS + _ENCODING_BITS)
        parts.append(part)
        offset += length
    parts.append(np.zeros(GUARD, np.uint8))
    index = np.array(entries, "<u8").view(np.int8)
    return Compressed(np.concatenate(parts).view(np.int8), index)


def decode(found: Compressed, outputs: int, inputs: int) -> Int8s:
    """W [outputs, inputs].

    Raises:
        ValueError: the coding is broken; names the tile, what was expected and found.
    """
    stream = found.stream.view(np.uint8)
    weight = np.zeros((outputs, inputs), np.uint8)
    for tile, encoding, part in _parts(found, outputs, inputs):
        place = weight[tile.n : tile.n + tile.rows, tile.k : tile.k + tile.columns]
        place[:] = _decode_tile(stream[part], tile, encoding)[:, : tile.columns]
    return weight.view(np.int8)


def validate(found: Compressed, outputs: int, inputs: int) -> None:
    """Checks everything that `decode` relies on, and that no byte is left over.

    Raises:
        ValueError: names the tile, what was expected and found.
    """
    decode(found, outputs, inputs)


def _encode_tile(weight: Int8s, tile: Tile) -> tuple[Encoding, _Bytes]:
    """How, and bytes padded to units."""
    codes = np.zeros((tile.rows, tile.words * _WORD), np.uint8)
    place = weight[tile.n : tile.n + tile.rows, tile.k : tile.k + tile.columns]
    codes[:, : tile.columns] = place.view(np.uint8)
    set_ = codes != 0
    count = int(np.count_nonzero(set_))
    if not count:
        return Encoding.ZERO, codes[:0].reshape(-1)
    if tile.dense_bytes <= tile.bitmap_bytes + _padded(count):
        return Encoding.DENSE, codes.reshape(-1)
    part = np.zeros(tile.bitmap_bytes + _padded(count), np.uint8)
    masks = np.packbits(set_, axis=1, bitorder="little").reshape(-1)
    part[: masks.size] = masks
    part[tile.bitmap_bytes : tile.bitmap_bytes + count] = codes[set_]
    return Encoding.BITMAP, part


def _parts(found: Compressed, outputs: int, inputs: int) -> Iterator[tuple[Tile, Encoding, slice]]:
    """Every tile with its bytes of the stream; checks the index, and the stream's end."""
    size = found.stream.size
    if found.index.size != index_bytes(outputs, inputs):
        raise ValueError(
            f"expected an index of {index_bytes(outputs, inputs)} bytes for {outputs} outputs and "
            f"{inputs} inputs, found {found.index.size}"
        )
    position = 0
    entries = np.ascontiguousarray(found.index).view("<u8").tolist()
    for tile, entry in zip(tiles(outputs, inputs), entries, strict=True):
        length, encoding, offset = _fields(entry)
        if offset != position:
            raise _wrong(tile, f"offset {position} in units of {UNIT} bytes", offset)
        if encoding not in tuple(Encoding):
            raise _wrong(tile, "encoding 0 (zero), 1 (dense) or 2 (bitmap)", encoding)
        begin, position = UNIT * position, position + length
        if UNIT * position + GUARD > size:
            raise _wrong(tile, f"bytes up to {size - GUARD} at most", UNIT * position)
        yield tile, Encoding(encoding), slice(begin, UNIT * position)
    if size != UNIT * position + GUARD:
        raise ValueError(
            f"expected a stream of {UNIT * position + GUARD} bytes, the lengths of all tiles and "
            f"{GUARD}; found {size}"
        )
    _check_zeros(found.stream[-GUARD:].view(np.uint8), "the bytes behind the last tile")


def _fields(entry: int) -> tuple[int, int, int]:
    """Length, encoding and offset."""
    encoding = entry >> _LENGTH_BITS & (1 << _ENCODING_BITS) - 1
    return entry & (1 << _LENGTH_BITS) - 1, encoding, entry >> _LENGTH_BITS + _ENCODING_BITS


def _decode_tile(part: _Bytes, tile: Tile, encoding: Encoding) -> _Bytes:
    """Codes [rows, 64 * words]."""
    shape = tile.rows, tile.words * _WORD
    if encoding is Encoding.ZERO:
        if part.size:
            raise _wrong(tile, "no bytes of a zero tile", part.size)
        return np.zeros(shape, np.uint8)
    if encoding is Encoding.DENSE:
        if part.size != tile.dense_bytes:
            raise _wrong(tile, f"{tile.dense_bytes} bytes of a dense tile", part.size)
        codes = part.reshape(shape)
        _check_zeros(codes[:, tile.columns :], f"{tile}: codes behind the last input")
        return codes
    if part.size < tile.bitmap_bytes:
        raise _wrong(tile, f"{tile.bitmap_bytes} bytes of masks at least", part.size)
    return _decode_bitmap(part, tile)


def _decode_bitmap(part: _Bytes, tile: Tile) -> _Bytes:
    shape = tile.rows, tile.words * _WORD
    masks, values = part[: tile.bitmap_bytes], part[tile.bitmap_bytes :]
    used = tile.rows * tile.words * _WORD // 8
    _check_zeros(masks[used:], f"{tile}: padding of the masks")
    set_ = np.unpackbits(masks[:used], bitorder="little").astype(bool).reshape(shape)
    _check_zeros(set_[:, tile.columns :], f"{tile}: bits behind the last input")
    count = int(np.count_nonzero(set_))
    if values.size != _padded(count):
        raise _wrong(tile, f"{_padded(count)} bytes for {count} codes that are set", values.size)
    if not values[:count].all():
        raise ValueError(f"{tile}: a code is zero that the masks say is not")
    _check_zeros(values[count:], f"{tile}: padding of the codes")
    codes = np.zeros(shape, np.uint8)
    codes[set_] = values[:count]
    return codes


def _check_zeros(values: npt.NDArray[np.uint8] | npt.NDArray[np.bool_], what: str) -> None:
    if values.any():
        raise ValueError(f"{what}: expected zeros, found {int(np.count_nonzero(values))} others")


def _wrong(tile: Tile, expected: str, found: int) -> ValueError:
    return ValueError(f"{tile}: expected {expected}, found {found}")


def _padded(count: int) -> int:
    return -(-count // UNIT) * UNIT
