"""A data set to DICOM JSON (PS3.18 annex F) in one pass that reads no bulk value.

Most elements of an instance are those of the one before it, whole sequences too: each is looked up by its very bytes among
the ones rendered lately, and only what is new and not plain takes the long way.

Specific Character Set (0008,0005) says ISO_IR 192 wherever it stood, and is added where undeclared text was beyond
ASCII, since all text is UTF-8 here. Elements of UN that the dictionaries know get their VR (PS3.5 6.2.2).
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct

from pacslite.dicom import charset as charsets
from pacslite.dicom import vr as vrs
from pacslite.dicom.charset import Charset
from pacslite.dicom.header import (
    ITEM_END,
    Element,
    Encoding,
    Head,
    Header,
    check_depth,
    check_end,
    check_not_delimiter,
    is_context,
    is_sequence,
    item_encoding,
    read_head,
    read_item,
    sequence_end,
    settled_sequence,
    skip_fragments,
)
from pacslite.dicom.source import Source
from pacslite.dicom.values import RENDERERS
from pacslite.dicom.vr import UNDEFINED, VrContext
from pacslite.errors import DataSetTooLarge, TruncatedDataSet

UTF_8 = '"00080005":{"vr":"CS","Value":["ISO_IR 192"]}'

# Elements longer than this are not remembered; when there are more than so many, all are forgotten.
_MEMO_BYTES, _MEMO_ELEMENTS = 256, 8192
# The same of whole sequences; many are the same in all instances of a series.
_SEQUENCE_BYTES, _MEMO_SEQUENCES = 1024, 512
# Combinations of encoding and character sets seen by one process; hostile files could make more.
_MAX_MEMOS = 16

_VR_AND_LENGTH = {True: Struct("<2sH").unpack_from, False: Struct(">2sH").unpack_from}
_TAG = {True: Struct("<HH").unpack_from, False: Struct(">HH").unpack_from}
_LENGTH = {True: Struct("<I").unpack_from, False: Struct(">I").unpack_from}
# The longest value of the VRs that are never bulk; only implicit VR can say more.
_MAX_INLINE = 0xFFFF
_META_GROUP, _DELIMITER_GROUP = 0x0002, 0xFFFE
# Stands for the URL of the instance; no value has it, JSON escapes it.
_LINK = "\0"
_CHARACTER_SET_TAG = {True: b"\x08\x00\x05\x00", False: b"\x00\x08\x00\x05"}
_NOT_REMEMBERED = frozenset({vrs.SPECIFIC_CHARACTER_SET, vrs.PIXEL_REPRESENTATION})


class _Memo:
    """What was rendered lately under the same circumstances, by its bytes: elements, and sequences with how many elements they have."""

    __slots__ = ("elements", "sequences")

    def __init__(self) -> None:
        self.elements: dict[bytes, Element] = {}
        self.sequences: dict[bytes, tuple[Element, int]] = {}


_memos: dict[tuple[Encoding, tuple[str, ...], int | None], _Memo] = {}

# Told of top-level pixels with what was found before them; gives where their value ends.
OnPixels = Callable[[Head, Header, Encoding], int]


class _Level:
    """A data set or item while it is read."""

    __slots__ = ("charset", "context", "depth", "encoding", "end", "found", "keep", "memo", "path")

    def __init__(self, encoding: Encoding, end: int, charset: Charset, context: VrContext, depth: int, path: str, keep: bool) -> None:
        self.encoding = encoding
        self.end = end
        self.charset = charset
        self.context = context
        self.depth = depth
        self.path = path
        self.keep = keep
        self.found: dict[int, Element] = {}
        self.memo = self.shared_memo()

    def shared_memo(self) -> _Memo:
        """What was rendered lately under the same circumstances."""
        key = (self.encoding, self.charset.terms, None if self.encoding.explicit else self.context.pixel_representation)
        memo = _memos.get(key)
        if memo is None:
            if len(_memos) >= _MAX_MEMOS:
                _memos.clear()
            memo = _memos[key] = _Memo()
        return memo

    def remember(self, encoded: bytes, element: Element) -> None:
        """Keep an element for those that are written alike."""
        elements = self.memo.elements
        if len(elements) >= _MEMO_ELEMENTS:
            elements.clear()
        elements[encoded] = element

    def remember_sequence(self, encoded: bytes, element: Element, count: int) -> None:
        """Keep a sequence for those that are written alike."""
        sequences = self.memo.sequences
        if len(sequences) >= _MEMO_SEQUENCES:
            sequences.clear()
        sequences[encoded] = element, count

    def json(self) -> str:
        """The object of this data set or item, keys ascending."""
        found = self.found
        return f"{{{','.join([found[tag].fragment for tag in sorted(found) if found[tag].fragment])}}}"


class JsonReader:
    """Reads one data set; `wanted` sequences keep their items in the header."""

    def __init__(self, source: Source, wanted: frozenset[int], on_pixels: OnPixels) -> None:
        self._source = source
        self._wanted = wanted
        self._on_pixels = on_pixels
        self._threshold = source.limits.bulk_threshold_bytes
        self._room = source.limits.max_elements
        self.warnings: dict[str, None] = {}

    def read(self, position: int, encoding: Encoding) -> tuple[Header, bytes]:
        """The elements of the data set, and its JSON object as UTF-8."""
        context = VrContext()
        level = _Level(encoding, self._source.size, charsets.DEFAULT, context, 0, "", False)
        self._elements(level, position, False)
        if context.assumed and context.pixel_representation:
            self._source.left = 0
            # Items that came before Pixel Representation were taken as unsigned; now it is known.
            level = _Level(encoding, self._source.size, charsets.DEFAULT, VrContext(None, 1), 0, "", False)
            self._elements(level, position, False)
        text = level.json()
        if not level.charset.declared and not text.isascii():
            self.warnings["text beyond ASCII without Specific Character Set (0008,0005)"] = None
            level.found[vrs.SPECIFIC_CHARACTER_SET] = Element(vrs.SPECIFIC_CHARACTER_SET, "CS", b"", (), UTF_8)
            text = level.json()
        return Header(level.found), text.encode("utf_8")

    def _elements(self, level: _Level, position: int, delimited: bool) -> int:
        """Read the elements of a level; gives where it ends, before its delimiter."""
        run = self._explicit_run if level.encoding.explicit else self._implicit_run
        while position < level.end:
            position = run(level, position)
            head = read_head(self._source, position, level.end, level.encoding, level.context) if position < level.end else None
            if head is None:
                break
            if head.tag == ITEM_END and delimited:
                self._count(level)
                return position
            check_not_delimiter(head)
            position = self._element(level, head)
        if delimited:
            raise TruncatedDataSet("ends inside an item")
        self._count(level)
        return level.end

    def _count(self, level: _Level) -> None:
        """Bound what a data set of countless small elements may cost."""
        self._room -= len(level.found) + 1
        if self._room < 0:
            raise DataSetTooLarge(f"more than {self._source.limits.max_elements} elements and items")

    def _explicit_run(self, level: _Level, position: int) -> int:
        """Pass over elements that were seen before, and new ones that are plain; gives the position of the first other one."""
        source, little, get, found = self._source, level.encoding.little, level.memo.elements.get, level.found
        buffer, base, short, long = source.buffer, source.base, vrs.SHORT, vrs.LONG
        vr_and_length, long_length = _VR_AND_LENGTH[little], _LENGTH[little]
        at, end = position - base, min(len(buffer), level.end - base)
        while at + 12 <= end:
            vr, length = vr_and_length(buffer, at + 4)
            if vr in short:
                after = at + 8 + length
            elif vr in long:
                after = at + 12 + long_length(buffer, at + 8)[0]
            else:
                break
            if after > end or after - at > _MEMO_BYTES:
                break
            element = get(buffer[at:after]) or self._plain(level, vr, buffer[at:after])
            if element is None:
                break
            found[element[0]] = element
            at = after
        return base + at

    def _plain(self, level: _Level, vr: bytes, encoded: bytes) -> Element | None:
        """A new element that has a short head and tells of no other; None for one that takes the long way."""
        group, number = _TAG[level.encoding.little](encoded)
        if vr not in vrs.SHORT or len(encoded) - 8 > self._threshold or not number or group <= _META_GROUP or group == _DELIMITER_GROUP:
            return None
        tag = group << 16 | number
        if tag in _NOT_REMEMBERED or tag in vrs.PIXELS or is_context(tag):
            return None
        name, raw = vr.decode("ascii"), encoded[8:]
        rendered, texts = RENDERERS[name](raw, level.encoding.little, level.charset)
        element = Element(tag, name, raw, texts, f'"{tag:08X}":{{"vr":"{name}"{rendered}}}')
        level.remember(encoded, element)
        return element

    def _implicit_run(self, level: _Level, position: int) -> int:
        """As `_explicit_run`, for elements without VR."""
        source, get, found = self._source, level.memo.elements.get, level.found
        buffer, base, length = source.buffer, source.base, _LENGTH[level.encoding.little]
        at, end = position - base, min(len(buffer), level.end - base)
        while at + 8 <= end:
            after = at + 8 + length(buffer, at + 4)[0]
            if after > end or after - at > _MEMO_BYTES:
                break
            element = get(buffer[at:after])
            if element is None:
                break
            found[element[0]] = element
            at = after
        return base + at

    def _element(self, level: _Level, head: Head) -> int:
        """Take in one element the long way; gives where it ends."""
        source, tag = self._source, head.tag
        if not level.depth and tag in vrs.PIXELS:
            after = self._on_pixels(head, Header(level.found), level.encoding)
            self._leave(level, head, after)
            return after
        if is_sequence(head) or (head.vr == "UN" and settled_sequence(source, head, level.context)):
            return self._sequence(level, head) if level.depth or not level.encoding.explicit else self._outer_sequence(level, head)
        if head.length == UNDEFINED:
            after = skip_fragments(source, head, level.end, level.encoding.little)
            self._leave(level, head, after)
            return after
        after = check_end(head, level.end, source)
        if head.length > self._threshold and (head.vr in vrs.BULK or head.length > _MAX_INLINE):
            self._leave(level, head, after)
            return after
        source.load(head.offset, after - head.offset)
        self._inline(level, head, source.read(head.start, head.length), after)
        return after

    def _leave(self, level: _Level, head: Head, after: int) -> None:
        """Note an element whose value stays in the file (PS3.18 F.2.2)."""
        self._source.left += after - head.start
        vr = "OB" if head.length == UNDEFINED else self._known_vr(level, head)
        if vr not in vrs.BULK:
            vr = "UN"  # too long for its own VR (PS3.5 6.2.2, note 5)
        link = f',"BulkDataURI":"{_LINK}/{level.path}{head.tag:08X}"' if head.length else ""
        fragment = f'"{head.tag:08X}":{{"vr":"{vr}"{link}}}'
        level.found[head.tag] = Element(head.tag, vr, None, (), fragment, head.start, after - head.start)

    def _known_vr(self, level: _Level, head: Head) -> str:
        """The VR of an element; of UN what the dictionaries say."""
        if head.vr != "UN" or not level.encoding.little:
            return head.vr
        vr = level.context.vr_of(head.tag, head.length)
        return vr if vr != "SQ" else "UN"

    def _inline(self, level: _Level, head: Head, raw: bytes, after: int) -> None:
        tag = head.tag
        vr = head.vr if head.vr != "UN" else self._known_vr(level, head)
        if is_context(tag):
            level.context.note(tag, raw, level.encoding.little)
        rendered, texts = RENDERERS[vr](raw, level.encoding.little, level.charset)
        fragment = f'"{tag:08X}":{{"vr":"{vr}"{rendered}}}' if tag & 0xFFFF and tag >> 16 != _META_GROUP else ""
        if tag == vrs.SPECIFIC_CHARACTER_SET:
            level.charset = charsets.of_value(raw)
            level.memo = level.shared_memo()
            if not level.charset.known:
                self.warnings[f"unknown Specific Character Set {'/'.join(texts)[:64]!r}"] = None
            fragment = UTF_8 if texts else fragment
        elif tag == vrs.PIXEL_REPRESENTATION:
            level.memo = level.shared_memo()
        element = level.found[tag] = Element(tag, vr, raw, texts, fragment)
        if after - head.offset <= _MEMO_BYTES and head.vr != "UN" and self._may_remember(level, head):
            level.remember(self._source.read(head.offset, after - head.offset), element)

    def _may_remember(self, level: _Level, head: Head) -> bool:
        """Whether the bytes alone, under this memo, tell all of an element."""
        private = head.tag >> 16 & 1
        # A creator tells of other elements, and without VRs a private element means what its creator says.
        if head.tag in _NOT_REMEMBERED or head.implicit or (private and not level.encoding.explicit):
            return False
        if not level.encoding.explicit and level.context.pixel_representation is None and " or " in vrs.dictionary_vr(head.tag):
            return False  # taken as unsigned, which may have to be taken back
        return not (private and is_context(head.tag))

    def _outer_sequence(self, level: _Level, head: Head) -> int:
        """A sequence of the data set itself, with VRs: by its bytes when it was seen before; gives where it ends."""
        source, after = self._source, head.start + head.length
        if head.vr != "SQ" or head.length > _SEQUENCE_BYTES or after > level.end:
            return self._sequence(level, head)
        encoded = source.read(head.offset, after - head.offset)
        known = level.memo.sequences.get(encoded)
        if known is not None and (known[0].items or head.tag not in self._wanted):
            element, count = known
            self._room -= count
            level.found[head.tag] = Element(head.tag, "SQ", None, (), element.fragment, head.start, head.length, element.items)
            return after
        room = self._room
        self._sequence(level, head)
        element = level.found[head.tag]
        # What is left in the file is counted, UN and warnings of a character set hang on what is around.
        if _LINK not in element.fragment and b"UN" not in encoded and _CHARACTER_SET_TAG[level.encoding.little] not in encoded:
            level.remember_sequence(encoded, element, room - self._room)
        return after

    def _sequence(self, level: _Level, head: Head) -> int:
        source, tag = self._source, head.tag
        check_depth(level.depth, source)
        end = level.end if head.length == UNDEFINED else check_end(head, level.end, source)
        encoding = item_encoding(source, head, level.encoding)
        keep = level.keep or (not level.depth and tag in self._wanted)
        objects: list[str] = []
        kept: list[Header] = []
        position = head.start
        while True:
            item = read_item(source, head, position, end, encoding)
            if item is None:
                break
            path = f"{level.path}{tag:08X}/{len(objects) + 1}/"
            bound = end if item.length == UNDEFINED else item.start + item.length
            inner = _Level(encoding, bound, level.charset, VrContext(level.context), level.depth + 1, path, keep)
            position = self._elements(inner, item.start, item.length == UNDEFINED)
            if item.length == UNDEFINED:
                position += 8
            objects.append(inner.json())
            if keep:
                kept.append(Header(inner.found))
        position = sequence_end(source, head, position, end)
        value = f',"Value":[{",".join(objects)}]' if objects else ""
        fragment = f'"{tag:08X}":{{"vr":"SQ"{value}}}'
        level.found[tag] = Element(tag, "SQ", None, (), fragment, head.start, position - head.start, tuple(kept))
        return position
