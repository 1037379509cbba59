"""What a file begins like: signatures first, then the structures of kinds that have none."""

from __future__ import annotations

from pacslite.core import file_kinds as kinds
from pacslite.core import inspection_boxes as boxes
from pacslite.core import inspection_foreign as foreign
from pacslite.core.file_kinds import Kind
from pacslite.core.inspection_source import Source
from pacslite.errors import RefusedContent


def sniffed(source: Source, extension: str) -> Kind:
    """The kind of a file; raises RefusedContent that says what else it is."""
    head = source.head
    # 128 bytes of anything may come before the mark of DICOM (PS3.10 7.1), so it is looked for first.
    if head[128:132] == b"DICM":
        return kinds.DICOM
    program = foreign.program_in(head)
    if program is not None:
        raise RefusedContent(f"the file is {program}")
    kind = _by_signature(source)
    if kind is not None:
        return kind
    from pacslite.core.inspection_models import model_kind

    model = model_kind(source, extension)
    if model is not None:
        return model
    page = foreign.page_in(head)
    if page is not None:
        raise RefusedContent(f"the file is {page}")
    from pacslite.core.inspection_text import is_text, text_kind

    if is_text(head):
        return text_kind(extension)
    name = _foreign_name(source)
    raise RefusedContent(f"the file is {name}, which is not taken" if name else "the content is of no kind that is taken")


def _by_signature(source: Source) -> Kind | None:
    head = source.head
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")):
        from pacslite.core.inspection_office import office_kind

        return office_kind(source)
    if head.startswith(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"):
        from pacslite.core.inspection_ole import ole_kind

        return ole_kind(source)
    box = boxes.kind_of(head)
    if isinstance(box, Kind):
        return box
    if box is not None:
        raise RefusedContent(f"the file is {box}, which is not taken")
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return _matroska(head)
    return next((kind for kind in _MARKS if _begins_as(kind, head)), None)


_MARKS: dict[Kind, tuple[bytes, ...]] = {
    kinds.JPEG: (b"\xff\xd8\xff",),
    kinds.PNG: (b"\x89PNG\r\n\x1a\n",),
    kinds.TIFF: (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    kinds.GIF: (b"GIF87a", b"GIF89a"),
    kinds.PDF: (b"%PDF-",),
    kinds.RTF: (b"{\\rtf",),
    kinds.PLY: (b"ply\n", b"ply\r"),
    kinds.WEBP: (b"RIFF",),
    kinds.AVI: (b"RIFF",),
    kinds.MPEG: (b"\0\0\1\xba", b"\0\0\1\xb3"),
    kinds.BMP: (b"BM",),
    kinds.MPEG_TS: (b"",),  # the first byte, or with time stamps (Blu-ray, AVCHD) the fifth, of each packet
}
_FORMS = {kinds.WEBP: b"WEBP", kinds.AVI: b"AVI "}


def _begins_as(kind: Kind, head: bytes) -> bool:
    if not head.startswith(_MARKS.get(kind, ())):
        return False
    if kind in _FORMS:
        return head[8:12] == _FORMS[kind]
    if kind is kinds.BMP:  # two letters: a header of a known length has to follow
        return int.from_bytes(head[14:18], "little") in (12, 40, 52, 56, 64, 108, 124)
    if kind is kinds.MPEG_TS:  # ISO/IEC 13818-1 2.4.3.2: a packet each 188 bytes
        return any(_is_synchronous(head, begin, step) for begin, step in ((0, 188), (4, 192)))
    return True


def _is_synchronous(head: bytes, begin: int, step: int) -> bool:
    return len(head) >= step * 4 and all(head[at] == 0x47 for at in range(begin, min(len(head), step * 16), step))


def _matroska(head: bytes) -> Kind:
    """WebM or Matroska, going by the DocType (RFC 8794 11.2.4)."""
    at = head.find(b"\x42\x82", 0, 1024)
    name = head[at + 3 : at + 3 + (head[at + 2] & 0x7F)].rstrip(b"\0") if 0 < at < len(head) - 3 else b""
    if name == b"webm":
        return kinds.WEBM
    if name == b"matroska":
        return kinds.MKV
    raise RefusedContent("the file is EBML, but neither Matroska nor WebM")


def _foreign_name(source: Source) -> str:
    """How the table calls a file of a kind that is not taken."""
    archive = foreign.archive_in(source.head)
    if archive:
        return archive
    from puremagic import magic_string  # reads its table

    data = source.head if source.size <= len(source.head) else source.head + source.tail[-1024:]
    try:
        found = magic_string(data)
    except LookupError:
        return ""
    return next((match.name for match in found if match.name and len(match.byte_match.strip(b"\0")) >= 3), "")
