"""Transfer syntaxes by name (PS3.5 section 10, PS3.6 annex A). Light on purpose: codec processes load it at their start."""

from __future__ import annotations

IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
# GE's own: an implicit little endian data set whose native pixels are big endian.
GE_PRIVATE = "1.2.840.113619.5.2"
NATIVE = frozenset({IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN, GE_PRIVATE})

RLE = "1.2.840.10008.1.2.5"
DEFLATED_FRAMES = "1.2.840.10008.1.2.8.1"
_JPEG = "1.2.840.10008.1.2.4."
JPEG_BASELINE, JPEG_EXTENDED, JPEG_LOSSLESS, JPEG_LOSSLESS_SV1 = (_JPEG + n for n in ("50", "51", "57", "70"))
JPEG_LS, JPEG_LS_NEAR = _JPEG + "80", _JPEG + "81"
JPEG_2000_REVERSIBLE, JPEG_2000 = _JPEG + "90", _JPEG + "91"
HTJ2K_REVERSIBLE, HTJ2K_RPCL, HTJ2K = _JPEG + "201", _JPEG + "202", _JPEG + "203"

DCT = frozenset({JPEG_BASELINE, JPEG_EXTENDED})
ALL_JPEG = DCT | {JPEG_LOSSLESS, JPEG_LOSSLESS_SV1}
ALL_JPEG_LS = frozenset({JPEG_LS, JPEG_LS_NEAR})
ALL_JPEG_2000 = frozenset({JPEG_2000_REVERSIBLE, JPEG_2000})
ALL_HTJ2K = frozenset({HTJ2K_REVERSIBLE, HTJ2K_RPCL, HTJ2K})
# What gives back the very pixels that went in (PS3.5 8.2); the others may, but need not.
REVERSIBLE = frozenset(
    {RLE, JPEG_LOSSLESS, JPEG_LOSSLESS_SV1, JPEG_LS, JPEG_2000_REVERSIBLE, HTJ2K_REVERSIBLE, HTJ2K_RPCL, DEFLATED_FRAMES}
)
IRREVERSIBLE = DCT | {JPEG_LS_NEAR, JPEG_2000, HTJ2K}
# Whose frames can be decoded here.
DECODABLE = NATIVE | REVERSIBLE | IRREVERSIBLE
