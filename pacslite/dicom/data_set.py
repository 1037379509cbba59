"""A Part 10 file opened at its data set: which encoding it really has, inflated when it is deflated."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from pydicom.uid import UID

from pacslite.dicom import part10
from pacslite.dicom.header import EXPLICIT_BE, EXPLICIT_LE, IMPLICIT_LE, Encoding, looks_explicit
from pacslite.dicom.limits import Limits
from pacslite.dicom.part10 import FileMeta
from pacslite.dicom.source import Source, inflate
from pacslite.dicom.syntaxes import BIG_ENDIAN, DEFLATED, EXPLICIT, GE_PRIVATE, IMPLICIT, NATIVE
from pacslite.dicom.uids import is_uid
from pacslite.errors import NotDicom, TruncatedDataSet, UnsupportedTransferSyntax

__all__ = [
    "BIG_ENDIAN",
    "DEFLATED",
    "EXPLICIT",
    "GE_PRIVATE",
    "IMPLICIT",
    "NATIVE",
    "DataSetFile",
    "encoding_of",
    "is_deflated",
    "native_syntax",
    "open_data_set",
]

_PLAIN = frozenset({IMPLICIT, EXPLICIT, BIG_ENDIAN})
# Referenced pixels, one of them deflated (PS3.5 A.6, A.7).
_JPIP_DEFLATED = frozenset({"1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"})


def is_deflated(uid: str) -> bool:
    """Whether the whole data set is deflated (PS3.5 A.5)."""
    return uid == DEFLATED or uid in _JPIP_DEFLATED


def encoding_of(uid: str) -> Encoding:
    """The encoding of the data set; explicit little endian for all encapsulated ones, unknown ones included (PS3.5 10)."""
    if uid in (IMPLICIT, GE_PRIVATE):
        return IMPLICIT_LE
    return EXPLICIT_BE if uid == BIG_ENDIAN else EXPLICIT_LE


def native_syntax(head: bytes, said: str) -> str:
    """The transfer syntax of a data set by its first 16 bytes, where a native one is `said` to be and another is plainly there."""
    if said not in _PLAIN or len(head) < 8:
        return said
    return _uid_of(_seen(head, encoding_of(said)))


@dataclass(slots=True)
class DataSetFile:
    """An open file: its meta information, the bytes of the data set and where and how they begin."""

    meta: FileMeta
    source: Source
    position: int
    encoding: Encoding
    inflated: bool = False
    warnings: list[str] = field(default_factory=list)

    @property
    def big_endian_pixels(self) -> bool:
        """Whether native pixels are big endian though the data set is not."""
        return self.meta.transfer_syntax_uid == GE_PRIVATE

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.source.close()


def open_data_set(file: Path | BinaryIO | bytes, limits: Limits, lenient: bool = False) -> DataSetFile:
    """The data set of a Part 10 file, with `lenient` also a bare one or one without preamble; raises InstanceRefused leaves."""
    if isinstance(file, bytes):
        source = Source.of_bytes(file, limits)
    else:
        source = Source.open(file, limits) if isinstance(file, Path) else Source.of_stream(file, limits)
    with ExitStack() as on_error:
        on_error.callback(source.close)
        opened = _opened(source, lenient)
        on_error.pop_all()
        return opened


def _opened(source: Source, lenient: bool) -> DataSetFile:
    meta = _meta(source, lenient)
    uid = meta.transfer_syntax_uid
    position = meta.data_set_offset
    inflated = is_deflated(uid)
    if inflated:
        packed, source, position = source, inflate(source, position), 0
        packed.close()
    warnings: list[str] = []
    head = source.read(position, 16)
    encoding = encoding_of(uid)
    if not uid:
        encoding = _guess(head)
        meta = replace(meta, transfer_syntax_uid=_uid_of(encoding))
        warnings.append(f"no Transfer Syntax UID (0002,0010); read as {meta.transfer_syntax_uid}")
    elif len(head) >= 8 and encoding != (seen := _seen(head, encoding)):
        warnings.append(f"the data set is not in the transfer syntax {uid} it is said to be in")
        encoding = seen
    if uid and not _is_known(uid) and not (is_uid(uid) and looks_explicit(head)):
        source.close()
        raise UnsupportedTransferSyntax(f"transfer syntax {uid[:64]!r} is not known and its data set is not explicit little endian")
    return DataSetFile(meta, source, position, encoding, inflated, warnings)


def _is_known(uid: str) -> bool:
    return uid in NATIVE or (is_uid(uid) and UID(uid).type == "Transfer Syntax")


def _meta(source: Source, lenient: bool) -> FileMeta:
    head = source.buffer
    if head[128:132] == b"DICM":
        return _grown(source, part10.PREFIX_END)
    if not lenient:
        raise NotDicom("no DICM prefix at byte 128")
    if head[:2] == b"\x02\x00":
        return _grown(source, 0)
    if not _plausible(head[:16]):
        raise NotDicom("neither a DICOM file nor a data set")
    return FileMeta("", data_set_offset=0)


def _grown(source: Source, position: int) -> FileMeta:
    """The file meta information, read in one go and once more with a longer head when it does not fit."""
    for length in (len(source.buffer), part10.MAX_META_BYTES):
        head = source.read(0, length)
        meta = part10.parse_meta_elements(head, position, whole=len(head) == source.size)
        if meta is not None:
            return meta
    if source.size >= part10.MAX_META_BYTES:
        raise NotDicom(f"the file meta information is longer than {part10.MAX_META_BYTES} bytes")
    raise TruncatedDataSet("the file ends inside its file meta information")


def _plausible(head: bytes) -> bool:
    """Whether bytes look like the first element of a data set: a low group, and a VR or a small length."""
    if len(head) < 8:
        return False
    group, element = int.from_bytes(head[:2], "little"), int.from_bytes(head[2:4], "little")
    if looks_explicit(head):
        return True
    return group in (0x0008, 0x0010) and element < 0x2000 and int.from_bytes(head[4:8], "little") < 4096


def _guess(head: bytes) -> Encoding:
    if not looks_explicit(head):
        return IMPLICIT_LE
    return EXPLICIT_BE if head[0] == 0 and head[1] else EXPLICIT_LE


def _uid_of(encoding: Encoding) -> str:
    if not encoding.explicit:
        return IMPLICIT
    return EXPLICIT if encoding.little else BIG_ENDIAN


def _seen(head: bytes, said: Encoding) -> Encoding:
    """The encoding by the first element, when it plainly is not the one the file says."""
    explicit = looks_explicit(head)
    if said.explicit and not explicit:
        return IMPLICIT_LE if _plausible(head) else said
    if explicit:
        # Group 0008 comes first: its zero byte tells the byte order.
        return EXPLICIT_BE if head[0] == 0 and head[1] else EXPLICIT_LE
    return said
