"""Frames as they are sent: little endian and whole bytes when native (PS3.18 8.7.3.3), the code stream when compressed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pacslite.codec.transfer_syntax import frame_bytes
from pacslite.core.content import StreamBody, pieces_of
from pacslite.core.retrieve import SMALL_BYTES, Frames, Piece, extent, local_copy, read_extent, swapped_extent
from pacslite.dicom.data_set import open_data_set
from pacslite.dicom.limits import Limits
from pacslite.storage.stores import Stores


def packed(stores: Stores, image: Frames, numbers: Sequence[int], limits: Limits) -> StreamBody:
    """Native frames one behind the other without padding between them, single bits too (PS3.18 8.7.3.3.1); raises FrameNotFound."""
    bits = image.index.frame_bits
    for number in numbers:
        image.index.segments(number)

    def pieces() -> Iterator[bytes]:
        rest, rest_bits = 0, 0
        for number in numbers:
            if not rest_bits and bits % 8 == 0:
                for piece in frame(stores, image, number, limits):
                    yield from pieces_of(piece)
                continue
            data = b"".join(b"".join(pieces_of(piece)) for piece in frame(stores, image, number, limits))
            rest |= int.from_bytes(data, "little") << rest_bits
            whole, rest_bits = divmod(rest_bits + bits, 8)
            yield (rest & (1 << whole * 8) - 1).to_bytes(whole, "little")
            rest >>= whole * 8
        if rest_bits:
            yield rest.to_bytes(1, "little")

    return StreamBody(-(-bits * len(numbers) // 8), pieces)


def frame(stores: Stores, image: Frames, number: int, limits: Limits) -> tuple[Piece, ...]:
    """The bytes of one frame (from 1) in pieces; raises FrameNotFound.

    Large frames that are stored as they are sent stay files; the others are read, which is bounded by one frame.
    """
    index, item = image.index, image.item
    segments = index.segments(number)
    if index.inflated:
        # A deflated data set has to be inflated from its beginning (PS3.5 A.5).
        with local_copy(stores, item, limits.scratch) as path, open_data_set(path, limits) as opened:
            return (frame_bytes(opened.source.read, index, number),)
    size = sum(length for _, length in segments)
    whole_bytes = not index.frame_bits or (index.frame_bits % 8 == 0 and index.bit_offset(number) == 0)
    if size <= SMALL_BYTES or not whole_bytes:
        return (frame_bytes(lambda offset, length: read_extent(stores, item, offset, length), index, number),)
    if index.swap_bytes and size * 8 == index.frame_bits:
        return (swapped_extent(stores, item, *segments[0], index.swap_bytes),)
    if index.swap_bytes:
        return (frame_bytes(lambda offset, length: read_extent(stores, item, offset, length), index, number),)
    return tuple(extent(stores, item, offset, length) for offset, length in segments)
