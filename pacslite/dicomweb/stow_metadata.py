"""STOW-RS with metadata and bulk data apart (PS3.18 10.5.1.1): JSON or XML parts, and parts of bulk data by Content-Location.

All bulk data of a request lies in one spool file until its instances are made. Metadata is bounded by
`max_stow_metadata_bytes`; memory does not depend on the bulk data.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urljoin

from pacslite.core.assembly import assemble
from pacslite.core.encapsulation import BulkPart
from pacslite.core.ingest import read_limits
from pacslite.dicom.data_set import EXPLICIT
from pacslite.dicom.from_json import DataSet, Extent, first_text, has_meta, load
from pacslite.dicom.part10 import encode_preamble_and_meta
from pacslite.dicom.uids import is_uid
from pacslite.dicomweb import native_xml_reader
from pacslite.dicomweb.media_types import DEFAULT_SYNTAX, DICOM_JSON, DICOM_XML, OCTET_STREAM, parse_range
from pacslite.errors import InstanceRefused, InvalidMetadata, InvalidMultipart, TooLarge

if TYPE_CHECKING:
    from pacslite.app import Pacs
    from pacslite.dicomweb.multipart_related import Part
    from pacslite.storage.spool import SpoolFile, SpoolWriter

METADATA = frozenset({DICOM_JSON, DICOM_XML})
# Names under which models have gone before RFC 8081's family had them, and one that browsers make.
_DOCUMENT_NAMES = {
    "application/sla": "model/stl",
    "application/vnd.ms-pki.stl": "model/stl",
    "application/x-navistyle": "model/stl",
    "model/x.stl-binary": "model/stl",
    "model/x.stl-ascii": "model/stl",
    "application/x-tgif": "model/obj",
    "application/object": "model/obj",
    "text/cda+xml": "text/xml",
}
_VIDEO_NAMES = {"video/mpeg2": "video/mpeg", "video/mpeg4-generic": "video/mp4", "video/h264": "video/mp4", "video/hevc": "video/h265"}
_BINARY = frozenset({"binary", "8bit", "7bit"})
_PIXEL_DATA_RESOURCE = re.compile(r"/(?:bulkdata/7FE00010|pixeldata)/?$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Made:
    """One instance: its file in the spool or why there is none, its first bytes, and whether elements were left out."""

    made: SpoolFile | InstanceRefused
    head: bytes
    discarded: bool


@dataclass(slots=True)
class Body:
    """The metadata and bulk data of one request while its parts arrive; `refused` are parts that nothing was made of."""

    pacs: Pacs
    base_url: str
    data_sets: list[DataSet] = field(default_factory=list)
    refused: list[InstanceRefused] = field(default_factory=list)
    _metadata_bytes: int = 0
    _parts: dict[str, list[BulkPart]] = field(default_factory=dict)
    _used: set[str] = field(default_factory=set)

    def take(self, parts: Iterable[Part], bulk: SpoolWriter) -> None:
        """Receives all parts; raises BadRequest for metadata that cannot be read, TooLarge."""
        for part in parts:
            text = part.headers.get("content-type") or OCTET_STREAM
            media = parse_range(text)
            coding = part.headers.get("content-transfer-encoding", "binary").strip().lower()
            if coding not in _BINARY or part.headers.get("content-encoding", "identity").strip().lower() != "identity":
                self.refused.append(InvalidMetadata("a part is in a coding that is not taken here"))
            elif media is not None and media.name in METADATA and not (media.legacy and "content-location" in part.headers):
                self.read_metadata(media.name, part.data())
            else:
                # XML with a location is a document, not metadata by an older name.
                name = media.name if media and media.name not in METADATA else text.partition(";")[0].strip().lower()
                syntax = (media.transfer_syntax or "") if media else ""
                self._take_bulk(part, bulk, name, syntax)

    def read_metadata(self, name: str, pieces: Iterable[memoryview | bytes]) -> None:
        """Receives one metadata document."""
        bound = self.pacs.settings.max_stow_metadata_bytes
        document = bytearray()
        for piece in pieces:
            self._metadata_bytes += len(piece)
            if self._metadata_bytes > bound:
                raise TooLarge(f"The metadata is longer than {bound} bytes (max_stow_metadata_bytes).")
            document += piece
        if name == DICOM_JSON:
            self.data_sets += load(bytes(document))
        else:
            self.data_sets.append(native_xml_reader.decode(bytes(document), self.pacs.settings.max_sequence_depth))
        if len(self.data_sets) > self.pacs.settings.max_stow_parts:
            raise TooLarge(f"The metadata is of more than {self.pacs.settings.max_stow_parts} instances (max_stow_parts).")

    def _take_bulk(self, part: Part, bulk: SpoolWriter, name: str, syntax: str) -> None:
        location = part.headers.get("content-location", "").strip()
        if not location:
            self.refused.append(InvalidMetadata("a part of bulk data has no Content-Location"))
            return
        begin = bulk.size_bytes
        for piece in part.data():
            bulk.write(piece)
        name = _DOCUMENT_NAMES.get(name) or _VIDEO_NAMES.get(name) or name
        extent = Extent(bulk.path, begin, bulk.size_bytes - begin)
        self._parts.setdefault(self._whole(location), []).append(BulkPart(extent, name, syntax, DEFAULT_SYNTAX.get(name, "")))

    def _whole(self, uri: str) -> str:
        """The URI that a relative one means; one that cannot be read stays as it is."""
        try:
            return urljoin(self.base_url, uri.strip())
        except ValueError:
            return uri.strip()

    def lookup(self, uri: str) -> Sequence[BulkPart]:
        """The parts of a BulkDataURI: those located there, else those of its frames, in order."""
        whole = self._whole(uri)
        if whole in self._parts:
            self._used.add(whole)
            return self._parts[whole]
        for prefix in dict.fromkeys((whole, _PIXEL_DATA_RESOURCE.sub("", whole))):
            frames: list[BulkPart] = []
            while len(found := self._parts.get(location := f"{prefix}/frames/{len(frames) + 1}", ())) == 1:
                self._used.add(location)
                frames += found
            if frames:
                return frames
        return ()

    def instances(self) -> Iterator[Made]:
        """Makes the instances one after another."""
        limits = read_limits(self.pacs.settings, self.pacs.spool.directory)
        whole = True
        while self.data_sets:
            data_set = self.data_sets.pop(0)
            made: SpoolFile | InstanceRefused
            try:
                made = assemble(data_set, self.lookup, self.pacs.spool, limits)
            except InstanceRefused as error:
                made, whole = error, False
            yield Made(made, _head(data_set), has_meta(data_set))
        # What a refused instance did not come to is no failure of its own.
        if whole and self._parts.keys() - self._used:
            self.refused += [InvalidMetadata("no metadata names a part of bulk data")] * len(self._parts.keys() - self._used)


def _head(data_set: DataSet) -> bytes:
    """File meta information that tells of the instance, for what is said of a failure."""
    sop_class, sop_instance = first_text(data_set, "00080016"), first_text(data_set, "00080018")
    known = is_uid(sop_class) and is_uid(sop_instance)
    # Something has to follow for the elements to be whole.
    return encode_preamble_and_meta(sop_class, sop_instance, EXPLICIT) + bytes(8) if known else b""


def of_parts(pacs: Pacs, parts: Iterable[Part], base_url: str) -> Iterator[Made | InstanceRefused]:
    """The instances of a multipart body, and last the parts that nothing was made of."""
    body = Body(pacs, base_url)
    with pacs.spool.create(".bulk") as bulk:
        body.take(parts, bulk)
        file = bulk.finish()
    try:
        if not body.data_sets:
            raise InvalidMultipart("The body has no metadata part.")
        yield from body.instances()
        yield from body.refused
    finally:
        file.discard()


def of_single(pacs: Pacs, name: str, pieces: Iterable[memoryview], base_url: str) -> Iterator[Made]:
    """The instances of a body that is one metadata document, whose values are all inline."""
    body = Body(pacs, base_url)
    body.read_metadata(name, pieces)
    yield from body.instances()
