"""The kinds of files that are taken: how each is called, what its names end in, and under which types it may be filed."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pacslite.core.file_types import MedicalFileType


class Family(StrEnum):
    """What kinds have in common."""

    PICTURE = "picture"
    VIDEO = "video"
    DICOM = "dicom"
    MODEL = "model"
    DOCUMENT = "document"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of file. `extensions` are those its names may have; the first is given to a name that has none."""

    name: str
    media_type: str
    extensions: tuple[str, ...]
    family: Family


# Cameras and phones name one container after another: all of these are read alike (ISO/IEC 14496-12).
_MOVIE = (".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3gpp", ".3g2")
_MPEG = (".mpg", ".mpeg", ".mpe", ".m1v", ".m2v", ".vob", ".ts", ".mts", ".m2ts", ".m2t")

JPEG = Kind("JPEG", "image/jpeg", (".jpg", ".jpeg", ".jpe", ".jfif"), Family.PICTURE)
PNG = Kind("PNG", "image/png", (".png",), Family.PICTURE)
WEBP = Kind("WebP", "image/webp", (".webp",), Family.PICTURE)
TIFF = Kind("TIFF", "image/tiff", (".tif", ".tiff"), Family.PICTURE)
HEIC = Kind("HEIC", "image/heic", (".heic", ".heif", ".hif"), Family.PICTURE)
AVIF = Kind("AVIF", "image/avif", (".avif",), Family.PICTURE)
GIF = Kind("GIF", "image/gif", (".gif",), Family.PICTURE)
BMP = Kind("BMP", "image/bmp", (".bmp", ".dib"), Family.PICTURE)

MP4 = Kind("MP4", "video/mp4", _MOVIE, Family.VIDEO)
MOV = Kind("QuickTime", "video/quicktime", (".mov", *(e for e in _MOVIE if e != ".mov")), Family.VIDEO)
THREE_GP = Kind("3GP", "video/3gpp", (".3gp", *(e for e in _MOVIE if e != ".3gp")), Family.VIDEO)
AVI = Kind("AVI", "video/x-msvideo", (".avi",), Family.VIDEO)
MKV = Kind("Matroska", "video/x-matroska", (".mkv",), Family.VIDEO)
WEBM = Kind("WebM", "video/webm", (".webm", ".mkv"), Family.VIDEO)
MPEG = Kind("MPEG", "video/mpeg", _MPEG, Family.VIDEO)
MPEG_TS = Kind("MPEG transport stream", "video/mp2t", (".ts", *(e for e in _MPEG if e != ".ts")), Family.VIDEO)

DICOM = Kind("DICOM", "application/dicom", (".dcm", ".dicom", ".dic", ".ima"), Family.DICOM)

STL = Kind("STL", "model/stl", (".stl",), Family.MODEL)
OBJ = Kind("OBJ", "model/obj", (".obj",), Family.MODEL)
PLY = Kind("PLY", "model/ply", (".ply",), Family.MODEL)

PDF = Kind("PDF", "application/pdf", (".pdf",), Family.DOCUMENT)
DOCX = Kind("DOCX", "application/vnd.openxmlformats-officedocument.wordprocessingml.document", (".docx",), Family.DOCUMENT)
XLSX = Kind("XLSX", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", (".xlsx",), Family.DOCUMENT)
PPTX = Kind("PPTX", "application/vnd.openxmlformats-officedocument.presentationml.presentation", (".pptx",), Family.DOCUMENT)
ODT = Kind("ODT", "application/vnd.oasis.opendocument.text", (".odt",), Family.DOCUMENT)
ODS = Kind("ODS", "application/vnd.oasis.opendocument.spreadsheet", (".ods",), Family.DOCUMENT)
ODP = Kind("ODP", "application/vnd.oasis.opendocument.presentation", (".odp",), Family.DOCUMENT)
DOC = Kind("DOC", "application/msword", (".doc",), Family.DOCUMENT)
XLS = Kind("XLS", "application/vnd.ms-excel", (".xls",), Family.DOCUMENT)
RTF = Kind("RTF", "application/rtf", (".rtf", ".doc"), Family.DOCUMENT)
TEXT = Kind("text", "text/plain", (".txt", ".text", ".log"), Family.DOCUMENT)
CSV = Kind("CSV", "text/csv", (".csv", ".tsv"), Family.DOCUMENT)
MARKDOWN = Kind("Markdown", "text/markdown", (".md", ".markdown"), Family.DOCUMENT)
JSON = Kind("JSON", "application/json", (".json",), Family.DOCUMENT)

PICTURES = frozenset({JPEG, PNG, WEBP, TIFF, HEIC, AVIF, GIF, BMP})
VIDEOS = frozenset({MP4, MOV, THREE_GP, AVI, MKV, WEBM, MPEG, MPEG_TS})
TEXTS = (TEXT, CSV, MARKDOWN, JSON)
DOCUMENTS = frozenset({PDF, DOCX, XLSX, PPTX, ODT, ODS, ODP, DOC, XLS, RTF, *TEXTS})
KINDS = (*PICTURES, *VIDEOS, DICOM, STL, OBJ, PLY, *DOCUMENTS)

ALLOWED: dict[MedicalFileType, frozenset[Kind]] = {
    MedicalFileType.PHOTO: PICTURES,
    MedicalFileType.PHOTO_SERIES: PICTURES,
    MedicalFileType.XRAY: PICTURES | {DICOM},
    MedicalFileType.PANORAMIC: PICTURES | {DICOM},
    MedicalFileType.CT_SCAN: PICTURES | {DICOM},
    MedicalFileType.MRI: PICTURES | {DICOM},
    MedicalFileType.DICOM: frozenset({DICOM}),
    MedicalFileType.STL_MODEL: frozenset({STL}),
    MedicalFileType.OBJ_MODEL: frozenset({OBJ}),
    MedicalFileType.PLY_MODEL: frozenset({PLY}),
    MedicalFileType.PDF: frozenset({PDF}),
    MedicalFileType.DOCUMENT: DOCUMENTS,
    MedicalFileType.REPORT: DOCUMENTS,
    MedicalFileType.VIDEO: VIDEOS,
}

_OWN_TYPES = {DICOM: MedicalFileType.DICOM, STL: MedicalFileType.STL_MODEL, OBJ: MedicalFileType.OBJ_MODEL}
_OWN_TYPES |= {PLY: MedicalFileType.PLY_MODEL, PDF: MedicalFileType.PDF}
_FAMILY_TYPES = {Family.PICTURE: MedicalFileType.PHOTO, Family.VIDEO: MedicalFileType.VIDEO, Family.DOCUMENT: MedicalFileType.DOCUMENT}


def type_of(kind: Kind) -> MedicalFileType:
    """The type a file of this kind is filed under when nobody says another."""
    return _OWN_TYPES.get(kind) or _FAMILY_TYPES[kind.family]


KNOWN_EXTENSIONS = frozenset(extension for kind in KINDS for extension in kind.extensions)

# What systems run, or open with something that runs it, by its name alone: refused whatever the content looks like.
_RUNNABLE = """
action apk app appimage application appx asp aspx bash bat bin cgi chm class cmd com command cpl crx csh deb desktop dex dll dmg
docm dotm drv dylib elf exe fish gadget hlp hta htm html inf iso jar jnlp js jse jsp jspx ko ksh lnk lua mht mhtml mjs msc msh msi
msix msp mst osx out pas phar php php3 php4 php5 phtml pif pkg pl pm potm ppam ppsm pptm prg ps1 ps1xml psc1 psd1 psm1 py pyc pyo
pyw rb reg rpm run scpt scr sct sh shb shtml sldm so svg svgz swf sys url vb vbe vbs vbscript vxd wasm website workflow ws wsc wsf
wsh xht xhtml xlam xll xlsb xlsm xltm xsl xslt zsh
"""
RUNNABLE_EXTENSIONS = frozenset(f".{name}" for name in _RUNNABLE.split())
