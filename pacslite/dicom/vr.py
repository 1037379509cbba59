"""Value representations: their tables, and which one an element has whose file does not say (PS3.5 6.2, PS3.6)."""

from __future__ import annotations

from functools import lru_cache

from pydicom.datadict import dictionary_VR, private_dictionary_VR

# PS3.5 7.1.2: two reserved bytes and a length of four, or a length of two.
LONG = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
SHORT = frozenset(
    {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FL", b"FD", b"IS", b"LO"}
    | {b"LT", b"PN", b"SH", b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US"}
)
KNOWN = LONG | SHORT
LONG_NAMES = frozenset(vr.decode() for vr in LONG)

# Size of the words whose byte order a transfer syntax decides (PS3.5 7.3).
WORD_BYTES = {
    "AT": 2,
    "FD": 8,
    "FL": 4,
    "OD": 8,
    "OF": 4,
    "OL": 4,
    "OV": 8,
    "OW": 2,
    "SL": 4,
    "SS": 2,
    "SV": 8,
    "UL": 4,
    "US": 2,
    "UV": 8,
}

_VALUE_BYTES = WORD_BYTES | {"AT": 4}

# PS3.18 10.4.3.3.2: the only ones whose values may be replaced by a reference.
BULK = frozenset(
    {"DS", "FL", "FD", "IS", "LT", "OB", "OD", "OF", "OL", "OV", "OW", "SL", "SS", "ST", "SV", "UC", "UL", "UN", "US", "UT", "UV"}
)

# Those that Specific Character Set (0008,0005) governs (PS3.5 6.1.2.3).
CHARSET_TEXT = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})

PIXEL_DATA = 0x7FE00010
# Pixel Data, Float and Double Float Pixel Data (PS3.3 C.7.6.3, C.7.6.24, C.7.6.25).
PIXELS = frozenset({PIXEL_DATA, 0x7FE00008, 0x7FE00009})
PIXEL_REPRESENTATION = 0x00280103
SPECIFIC_CHARACTER_SET = 0x00080005

UNDEFINED = 0xFFFFFFFF


@lru_cache(maxsize=16384)
def dictionary_vr(tag: int) -> str:
    """The VR of a public tag in PS3.6, `US or SS` and the like as they stand there; empty when it is not there."""
    try:
        return dictionary_VR(tag)
    except KeyError:
        return ""


@lru_cache(maxsize=16384)
def private_vr(tag: int, creator: str) -> str:
    """The VR of a private tag under its creator as pydicom's private dictionary has it; empty when it is not there."""
    try:
        return private_dictionary_VR(tag, creator)
    except KeyError:
        return ""


class VrContext:
    """What a data set or item tells of the elements that do not carry their VR; items ask their enclosing data set.

    `assumed` becomes true on the root when an element was taken as unsigned for want of Pixel Representation.
    """

    __slots__ = ("assumed", "creators", "parent", "pixel_representation")

    def __init__(self, parent: VrContext | None = None, pixel_representation: int | None = None) -> None:
        self.parent = parent
        self.pixel_representation: int | None = parent.pixel_representation if parent else pixel_representation
        self.creators: dict[int, str] = {}
        self.assumed = False

    def note(self, tag: int, raw: bytes, little: bool) -> None:
        """Learn from a private creator or Pixel Representation."""
        if tag == PIXEL_REPRESENTATION:
            self.pixel_representation = int.from_bytes(raw[:2], "little" if little else "big") & 1
        elif tag >> 16 & 1 and 0x10 <= tag & 0xFFFF <= 0xFF:
            self.creators[(tag & 0xFFFF0000) | ((tag & 0xFF) << 8)] = raw.decode("ascii", "replace").strip(" \0")

    def vr_of(self, tag: int, length: int) -> str:
        """The VR of an element in implicit VR (PS3.5 A.1, 7.8); UN when nobody knows."""
        if not tag & 0xFFFF:
            return "UL"
        vr = self._private(tag) if tag >> 16 & 1 else dictionary_vr(tag)
        if " or " in vr:
            return self._settled(tag, vr, length)
        # A length that is no multiple of the words tells that the dictionary does not know this element.
        return vr if len(vr) == 2 and (length == UNDEFINED or vr[0] == "O" or length % _VALUE_BYTES.get(vr, 1) == 0) else "UN"

    def _private(self, tag: int) -> str:
        element = tag & 0xFFFF
        if 0x10 <= element <= 0xFF:
            return "LO"
        creator = self.creators.get(tag & 0xFFFFFF00)
        return private_vr(tag, creator) if creator else ""

    def _settled(self, tag: int, vr: str, length: int) -> str:
        if tag == PIXEL_DATA and length == UNDEFINED:
            return "OB"
        if vr == "US or SS":
            return self._signed()
        # LUT Data with one entry is a number (PS3.3 C.11.1.1.1); pixels, overlays, waveforms are words (PS3.5 A.1).
        return "US" if "US" in vr and length == 2 else "OW"

    def _signed(self) -> str:
        if self.pixel_representation is None:
            root = self
            while root.parent:
                root = root.parent
            root.assumed = True
        return "SS" if self.pixel_representation else "US"
