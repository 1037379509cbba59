"""The file format: PS3.10 section 7."""

from __future__ import annotations

import io

import pydicom
import pytest

from pacslite.dicom.part10 import IMPLEMENTATION_CLASS_UID, encode_preamble_and_meta, parse_file_meta
from pacslite.errors import NotDicom
from tests.support.dicom_files import element, meta_of

HEAD = bytes(128) + b"DICM"


def test_written_meta_is_what_pydicom_reads() -> None:
    raw = encode_preamble_and_meta("1.2.840.10008.5.1.4.1.1.2", "1.2.3.4", "1.2.840.10008.1.2.1", "SENDER1")
    meta = pydicom.dcmread(io.BytesIO(raw)).file_meta
    assert meta.MediaStorageSOPClassUID == "1.2.840.10008.5.1.4.1.1.2"
    assert meta.MediaStorageSOPInstanceUID == "1.2.3.4"
    assert meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    assert meta.ImplementationClassUID == IMPLEMENTATION_CLASS_UID
    assert meta.SourceApplicationEntityTitle == "SENDER1"
    assert meta.FileMetaInformationGroupLength == len(raw) - 144
    assert meta.FileMetaInformationVersion == b"\0\1"


def test_read_meta_is_what_was_written() -> None:
    raw = encode_preamble_and_meta("1.2.3", "1.2.3.45", "1.2.840.10008.1.2")
    meta = meta_of(raw + element(0x00080005, "CS", b"ISO_IR 100"))
    assert (meta.sop_class_uid, meta.sop_instance_uid, meta.transfer_syntax_uid) == ("1.2.3", "1.2.3.45", "1.2.840.10008.1.2")
    assert (meta.data_set_offset, meta.source_aet) == (len(raw), "")


def test_wrong_group_length_is_not_trusted() -> None:
    raw = HEAD + element(0x00020000, "UL", b"\xff\xff\0\0") + element(0x00020010, "UI", b"1.2.840.10008.1.2\0")
    meta = meta_of(raw + element(0x00080005, "CS", b"ISO_IR 6"))
    assert (meta.transfer_syntax_uid, meta.data_set_offset) == ("1.2.840.10008.1.2", len(raw))


def test_private_information_longer_than_one_read_asks_for_more() -> None:
    raw = HEAD + element(0x00020010, "UI", b"1.2.840.10008.1.2\0") + element(0x00020102, "OB", bytes(100_000))
    assert parse_file_meta(raw[:4096]) is None
    assert meta_of(raw).data_set_offset == len(raw)


@pytest.mark.parametrize("raw", [b"", b"DICM", bytes(132), bytes(128) + b"DICN" + bytes(100), HEAD + b"\2\0\0\0\0\0\0\0\0\0"])
def test_other_files_are_not_dicom(raw: bytes) -> None:
    with pytest.raises(NotDicom):
        parse_file_meta(raw, whole=True)


@pytest.mark.parametrize("cut", range(133, 320, 11))
def test_meta_cut_short_asks_for_more(cut: int) -> None:
    raw = encode_preamble_and_meta("1.2.840.10008.5.1.4.1.1.2", "1.2.3.4", "1.2.840.10008.1.2.1", "SENDER1")
    assert len(raw) > 314
    meta = parse_file_meta(raw[:cut], whole=True)
    assert meta is None or meta.data_set_offset == cut  # cut between two elements: a shorter meta
