"""Where each frame of an instance lies in its file, so that a frame is one ranged read.

Built once when an instance is taken, kept beside its metadata as bytes. Knows nothing of pixels: a native frame is a
run of bits (PS3.5 8.2), an encapsulated one a run of fragments (PS3.5 A.4).
"""

from __future__ import annotations

import struct
import sys
from array import array
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

from pacslite.dicom.code_stream import JP2_SIGNATURE, code_stream_of_box
from pacslite.errors import FrameNotFound, InvalidMetadata, NotDicom, TruncatedDataSet

Read = Callable[[int, int], bytes]
Segment = tuple[int, int]

# version, flags, swap unit, length of the UID, frames, fragments, offset, length, bits per frame
_HEAD = struct.Struct("<BBBBIIQQQ")
_VERSION = 1
_INFLATED, _VIDEO, _GROUPED, _WIDE = 1, 2, 4, 8

_ITEM, _SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_ITEM_HEAD = struct.Struct("<4sI")
_UNDEFINED = 0xFFFFFFFF
# More than any slide has; empty fragments cost eight bytes each to send and far more to keep.
_MAX_FRAGMENTS = 1 << 21
_MAX_FRAMES = 0xFFFFFFFF

# First bytes of a codestream: JPEG and JPEG-LS (SOI), JPEG 2000 (SOC SIZ, JP2 file), JPEG XL (codestream, container).
_STARTS = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51", JP2_SIGNATURE[:8], b"\xff\x0a", b"\x00\x00\x00\x0cJXL ")
_RLE = "1.2.840.10008.1.2.5"
_VIDEO_PREFIXES = ("1.2.840.10008.1.2.4.10",)


def is_video(transfer_syntax_uid: str) -> bool:
    """Whether frames are parts of one stream of MPEG-2, MPEG-4 or HEVC (PS3.5 8.2.5, 8.2.6, 8.2.8)."""
    return transfer_syntax_uid.startswith(_VIDEO_PREFIXES)


@dataclass(frozen=True, slots=True)
class FrameIndex:
    """Offsets of the frames in the file, or in the inflated data set when `inflated`.

    Native: `frame_bits` per frame from `offset` on, `length` bytes in all; `swap_bytes` is the size of the words to be
    swapped for little endian (0: none). Encapsulated: `offsets` and `lengths` of fragments; `firsts` holds the first
    fragment of each frame and ends with the number of fragments; empty when each frame is one fragment. A video is one
    frame: its stream (`number_of_frames` counts what can be addressed here).
    """

    transfer_syntax_uid: str
    number_of_frames: int
    offset: int = 0
    length: int = 0
    frame_bits: int = 0
    swap_bytes: int = 0
    inflated: bool = False
    video: bool = False
    offsets: array[int] = field(default_factory=lambda: array("Q"))
    lengths: array[int] = field(default_factory=lambda: array("Q"))
    firsts: array[int] = field(default_factory=lambda: array("Q"))

    @property
    def encapsulated(self) -> bool:
        """Whether frames are fragments of an encapsulated syntax."""
        return self.frame_bits == 0

    def _check(self, frame_number: int) -> None:
        if not 1 <= frame_number <= self.number_of_frames:
            raise FrameNotFound(f"frame {frame_number}: the instance has {self.number_of_frames}")

    def segments(self, frame_number: int) -> list[Segment]:
        """Offset and length of the pieces of a frame (from 1), in order; raises FrameNotFound.

        Pieces of a native frame are widened to whole bytes and whole words: `bit_offset` tells what to skip.
        """
        self._check(frame_number)
        if self.frame_bits:
            unit = self.swap_bytes or 1
            start = (frame_number - 1) * self.frame_bits // 8 // unit * unit
            end = -(-frame_number * self.frame_bits // 8)
            end = min(-(-end // unit) * unit, self.length)
            return [(self.offset + start, end - start)]
        if not self.firsts:
            return [(self.offsets[frame_number - 1], self.lengths[frame_number - 1])]
        run = range(self.firsts[frame_number - 1], self.firsts[frame_number])
        return [(self.offsets[i], self.lengths[i]) for i in run]

    def bit_offset(self, frame_number: int) -> int:
        """Bits before the frame in its first segment: not 0 only for native frames that do not begin at a whole word."""
        self._check(frame_number)
        start = (frame_number - 1) * self.frame_bits
        return start - start // 8 // (self.swap_bytes or 1) * (self.swap_bytes or 1) * 8

    def encode(self) -> bytes:
        """The index as bytes, small enough to be kept beside the metadata of every instance."""
        wide = any(run and max(run) > 0xFFFFFFFF for run in (self.offsets, self.lengths))
        flags = self.inflated * _INFLATED | self.video * _VIDEO | bool(self.firsts) * _GROUPED | wide * _WIDE
        uid = self.transfer_syntax_uid.encode("ascii")
        head = _HEAD.pack(
            _VERSION, flags, self.swap_bytes, len(uid), self.number_of_frames, len(self.offsets), self.offset, self.length, self.frame_bits
        )
        code = "Q" if wide else "I"
        return b"".join((head, uid, *(_to_bytes(code, run) for run in (self.offsets, self.lengths, self.firsts))))


def _to_bytes(code: str, run: array[int]) -> bytes:
    numbers = array(code, run)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()


def decode(data: bytes) -> FrameIndex:
    """The index that `FrameIndex.encode` made; raises ValueError on anything else."""
    if len(data) < _HEAD.size or data[0] != _VERSION:
        raise ValueError("not a frame index of this version")
    _, flags, swap, uid_length, frames, fragments, offset, length, bits = _HEAD.unpack_from(data)
    at = _HEAD.size + uid_length
    uid = data[_HEAD.size : at].decode("ascii")
    code = "Q" if flags & _WIDE else "I"
    runs = []
    for count in (fragments, fragments, frames + 1 if flags & _GROUPED else 0):
        numbers = array(code)
        end = at + count * numbers.itemsize
        numbers.frombytes(data[at:end])
        if sys.byteorder == "big":
            numbers.byteswap()
        runs.append(numbers)
        at = end
    return FrameIndex(uid, frames, offset, length, bits, swap, bool(flags & _INFLATED), bool(flags & _VIDEO), *runs)


@dataclass(frozen=True, slots=True)
class PixelLayout:
    """What the image pixel module says of the frames (PS3.3 C.7.6.3), with the standard's defaults."""

    number_of_frames: int
    rows: int
    columns: int
    samples_per_pixel: int
    bits_allocated: int
    subsampled: bool = False

    @property
    def frame_bits(self) -> int:
        """Bits of one native frame; YBR_FULL_422 has two samples a pixel, not three (PS3.3 C.7.6.3.1.2)."""
        samples = 2 if self.subsampled and self.samples_per_pixel == 3 else self.samples_per_pixel
        return self.rows * self.columns * samples * self.bits_allocated


def native(uid: str, layout: PixelLayout, offset: int, length: int, swap_bytes: int = 0, inflated: bool = False) -> FrameIndex | None:
    """The index of native pixels; only frames that are wholly there are counted. None when there is no frame."""
    bits = layout.frame_bits
    if min(layout.rows, layout.columns, layout.samples_per_pixel, layout.bits_allocated, length) <= 0:
        return None
    frames = min(max(layout.number_of_frames, 1), length * 8 // bits, _MAX_FRAMES)
    return FrameIndex(uid, frames, offset, length, bits, swap_bytes, inflated) if frames else None


def encapsulated(
    uid: str, frames: int, read: Read, position: int, end: int, table: tuple[bytes, bytes] = (b"", b"")
) -> tuple[FrameIndex | None, int]:
    """The index of encapsulated pixels whose offset table item begins at `position`, and where the sequence ends.

    `table` is the Extended Offset Table and its lengths (PS3.3 C.7.6.3). Raises TruncatedDataSet and NotDicom.
    """
    basic, offsets, lengths, after = _fragments(read, position, end)
    if not offsets:
        return None, after
    first_item = offsets[0] - 8
    if is_video(uid):
        firsts = array("Q", (0, len(offsets)))
        return FrameIndex(uid, 1, video=True, offsets=offsets, lengths=lengths, firsts=firsts), after
    firsts = _group(uid, max(frames, 1), read, first_item, offsets, lengths, basic, table)
    _unbox(read, offsets, lengths, firsts)
    if len(firsts) - 1 == len(offsets):
        firsts = array("Q")
    count = len(firsts) - 1 if firsts else len(offsets)
    return FrameIndex(uid, count, offsets=offsets, lengths=lengths, firsts=firsts), after


def _fragments(read: Read, position: int, end: int) -> tuple[array[int], array[int], array[int], int]:
    """Basic offset table, offsets and lengths of the fragments, and the offset behind the delimiter."""
    basic: array[int] | None = None
    offsets, lengths = array("Q"), array("Q")
    while True:
        head = read(position, 8)
        if len(head) < 8 or position + 8 > end:
            raise TruncatedDataSet("Pixel Data (7FE0,0010) ends without its delimiter")
        tag, length = _ITEM_HEAD.unpack(head)
        position += 8
        if tag == _SEQUENCE_END:
            return basic or array("Q"), offsets, lengths, position
        if tag != _ITEM or length == _UNDEFINED:
            raise NotDicom("Pixel Data (7FE0,0010) is not a sequence of fragments")
        if position + length > end:
            raise TruncatedDataSet("the file ends inside a fragment of Pixel Data (7FE0,0010)")
        if basic is None:
            basic = _offset_table(read(position, length), "I") if length <= 4 * _MAX_FRAGMENTS else array("Q")
        else:
            offsets.append(position)
            lengths.append(length)
            if len(offsets) > _MAX_FRAGMENTS:
                raise NotDicom("Pixel Data (7FE0,0010) has too many fragments")
        position += length


def _offset_table(data: bytes, code: str) -> array[int]:
    numbers = array(code)
    numbers.frombytes(data[: len(data) // numbers.itemsize * numbers.itemsize])
    if sys.byteorder == "big":
        numbers.byteswap()
    return array("Q", numbers)


def _group(
    uid: str,
    frames: int,
    read: Read,
    first_item: int,
    offsets: array[int],
    lengths: array[int],
    basic: array[int],
    table: tuple[bytes, bytes],
) -> array[int]:
    """The first fragment of each frame, ended by the number of fragments."""
    count = len(offsets)
    if frames == 1:
        return array("Q", (0, count))
    extended = _offset_table(table[0], "Q")
    for entries, sizes in ((extended, _offset_table(table[1], "Q")), (basic, array("Q"))):
        firsts = _by_table(entries, first_item, offsets) if len(entries) == frames else None
        if firsts is not None:
            _trim(firsts, lengths, sizes)
            return firsts
    if count == frames or uid == _RLE:
        return array("Q", range(count + 1))
    return _by_start(read, offsets, frames)


def _by_table(entries: array[int], first_item: int, offsets: array[int]) -> array[int] | None:
    """Frames by offset table (PS3.5 A.4); None when an entry is not the begin of an item."""
    firsts = array("Q")
    for entry in entries:
        wanted = first_item + entry + 8
        at = bisect_left(offsets, wanted)
        if at == len(offsets) or offsets[at] != wanted or (firsts and at <= firsts[-1]):
            return None
        firsts.append(at)
    if firsts[0] != 0:
        return None
    firsts.append(len(offsets))
    return firsts


def _trim(firsts: array[int], lengths: array[int], sizes: array[int]) -> None:
    """Cut the padding off a frame of one fragment whose true length the extended table gives."""
    if len(sizes) != len(firsts) - 1:
        return
    for i, size in enumerate(sizes):
        if firsts[i + 1] - firsts[i] == 1 and 0 < size <= lengths[firsts[i]]:
            lengths[firsts[i]] = size


def _unbox(read: Read, offsets: array[int], lengths: array[int], firsts: array[int]) -> None:
    """Leave out what stands around the code streams of JP2 files, which some writers encapsulate against PS3.5 A.4.4."""
    if read(offsets[0], len(JP2_SIGNATURE)) != JP2_SIGNATURE:
        return
    for first, following in pairwise(firsts):
        begin, length = _code_stream_of(read, offsets[first], lengths[first])
        offsets[first] += begin
        lengths[first] -= begin
        if following == first + 1 and 0 < length < lengths[first]:
            lengths[first] = length


def _code_stream_of(read: Read, offset: int, size: int) -> tuple[int, int]:
    """Where the code stream begins in a fragment, and its length (0: all that follows) when that is told."""

    def of_fragment(position: int, length: int) -> bytes:
        return read(offset + position, max(0, min(length, size - position)))

    if of_fragment(0, len(JP2_SIGNATURE)) != JP2_SIGNATURE:
        return 0, 0
    try:
        begin, length = code_stream_of_box(of_fragment)
    except InvalidMetadata:
        return 0, 0
    return (begin, length) if begin < size else (0, 0)


def _by_start(read: Read, offsets: array[int], frames: int) -> array[int]:
    """Frames by the fragments that begin a codestream; all that is left over belongs to the last one."""
    starts = [i for i, offset in enumerate(offsets) if i == 0 or read(offset, 8).startswith(_STARTS)]
    if len(starts) < frames <= len(offsets) and len(offsets) % frames == 0:
        # No codestream we know begins there: evenly split frames are the only other thing seen in the field.
        starts = list(range(0, len(offsets), len(offsets) // frames))
    return array("Q", [*starts[:frames], len(offsets)])
