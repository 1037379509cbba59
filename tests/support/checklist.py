"""The numbered clauses of the standard that the server is held to, in our own short words, and where none is shown, why.

A test shows clauses by its docstring: `Checklist 24, 34: ...`. Clause 0 does not exist; `B` numbers are wishes of users,
which have no table.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

_NAMED = re.compile(r"\bChecklist ((?:B?\d+)(?:, B?\d+)*):")

SECTIONS = {
    1: "Negotiation, headers, status codes",
    33: "QIDO-RS",
    60: "Attribute matching",
    72: "DICOM JSON",
    85: "WADO-RS and WADO-URI",
    104: "STOW-RS",
    116: "UPS-RS and events",
    124: "DIMSE",
}

TITLES = dict(
    enumerate(
        (
            "No Accept: 406 in strict mode, the default otherwise",
            "Members of Accept that make no sense are passed over",
            "*/* is the default of the resource",
            "DICOM and rendered types mixed: 400",
            "Weights of Accept",
            "accept= before the header",
            "type with and without quotes",
            "transfer-syntax twice or as a list is invalid",
            "transfer-syntax=* is the stored form",
            "Without transfer-syntax: Explicit VR Little Endian",
            "Too large when decompressed: 406",
            "No implicit or big endian in answers",
            "Default transfer syntax of each compressed type",
            "Old names of types are understood, new ones sent",
            "Rendered types without transfer-syntax",
            "A syntax that cannot be had: 406",
            "Single part application/dicom for instances only",
            "Headers of parts",
            "File meta beats the header on the transfer syntax",
            "Boundaries: legal, not in the data, quoted",
            "Metadata before bulk data; Content-Location is its URI",
            "Byte ranges of single parts",
            "206 and incomplete retrieves",
            "404 for the unknown, 410 for the deleted",
            "405 with Allow, 401 with WWW-Authenticate",
            "413 and 414 when too much is asked",
            "415 tells the types that are taken",
            "503 with Retry-After",
            "Errors are reports in a type the caller takes",
            "UTF-8, and Accept-Charset",
            "Malformed UID 400, unknown UID 404",
            "HEAD, conditional GET, ETag by version",
            "Six resources to search",
            "No match: 204",
            "Cut short: Warning 299 with the number left",
            "Order is stable, pages fit",
            "Limits of limit and offset",
            "An attribute twice: 400",
            "Attributes by keyword or tag",
            "Paths into sequences",
            "Private attributes with their creator",
            "Forms of includefield",
            "Required keys are matched",
            "What a study answer holds",
            "What a series answer holds",
            "What an instance answer holds",
            "Attributes of upper levels in relational answers",
            "includefield of a lower level is not answered",
            "RetrieveURL: UR, public address",
            "Required but unknown: present and empty",
            "Lists of UIDs and codes",
            "Percent-encoding, plus signs, UTF-8 in queries",
            "fuzzymatching",
            "emptyvaluematching and multiplevaluematching",
            "Several warnings in one answer",
            "Date and time ranges as one interval",
            "TimezoneOffsetFromUTC shifts dates and times",
            "XML answers: a part per match",
            "AvailableTransferSyntaxUID is what can be retrieved",
            "Wildcards by VR",
            "A lone * and characters that are literal",
            "Case, and names without it",
            "Ranges of dates and times",
            "Offsets and precision of date-times",
            "A key of zero length matches all",
            "Sequence keys match inside one item",
            "The character set of a query is no key",
            "Three groups of a person name",
            "Padding does not count",
            "Extended negotiation grants what is done",
            "ModalitiesInStudy: any series",
            "An array at the top",
            "Keys: hex, ascending, no group lengths, no group 0002",
            "Person names as objects",
            "Empty elements, values and items",
            "One of Value, BulkDataURI, InlineBinary",
            "InlineBinary: one string, little endian",
            "BulkDataURI only where the VR allows",
            "Numbers without loss; NaN and infinity",
            "AT values",
            "Text is UTF-8, and the set named is too",
            "Values are split by their character set",
            "Padding removed, private creators kept",
            "BulkDataURI opens, inside sequences too",
            "Frame lists, and frames that are not there",
            "Order and location of frames",
            "Uncompressed frames: little endian octets",
            "Single-bit frames without padding",
            "Compressed frames: the code stream alone",
            "Compressed asked of native pixels, and the reverse",
            "Frames of what is no image: 404",
            "Bulk data and pixel data on all levels",
            "A document under its own media type",
            "An instance as octet-stream is its bulk data",
            "viewport",
            "window",
            "quality and annotation",
            "iccprofile",
            "Rendered types of frames and text",
            "Rendered studies and series are multipart",
            "Thumbnails on all levels",
            "WADO-URI: parameters and their errors",
            "Metadata is whole, in every form",
            "200, 202, 409, 400, 415 by what was stored",
            "Sequences of the response only when not empty",
            "Unreadable parts in OtherFailuresSequence",
            "Failure and warning reasons",
            "A study in the URL: others fail one by one",
            "Coercion writes Original Attributes",
            "Response in JSON or XML, Location when new",
            "Metadata and bulk data by Content-Location",
            "Lossy bulk unchanged, PNG and GIF without loss",
            "Odd but legal bodies",
            "Group 0002 of metadata is not kept",
            "The same again, and other content under a UID",
            "Create a workitem",
            "Transaction UID is never shown",
            "Update a workitem",
            "Change the state of a workitem",
            "Cancel a workitem",
            "Search workitems",
            "Subscribe to workitems",
            "Event reports",
            "C-FIND statuses",
            "C-MOVE statuses",
            "Counters of sub-operations",
            "C-STORE sub-operations name the mover; pending on a timer",
            "C-GET and role selection",
            "C-STORE statuses, and who may associate",
            "Storage commitment over DIMSE",
            "Storage commitment over DICOMweb",
            "Modality worklist keys",
            "Performed procedure steps",
            "Private keys and character sets suppress no match",
            "Workitem statuses over DIMSE",
        ),
        1,
    )
)

_UPS = "unified procedure steps are not part of the server yet"
_WORKLIST = "worklists and performed procedure steps are not part of the server yet"
REASONS = {
    **dict.fromkeys((116, 117, 118, 119, 120, 121, 122, 123, 135), _UPS),
    **dict.fromkeys((132, 133), _WORKLIST),
}


def lines_of(docstring: str | None) -> tuple[int, ...]:
    """The clauses that a docstring names."""
    named = [name for found in _NAMED.finditer(docstring or "") for name in found[1].split(", ")]
    return tuple(int(name) for name in named if name.isdecimal())


def tests_in(folder: Path) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Every test below a folder that names clauses: file, name, clauses; nothing is imported."""
    for path in sorted(folder.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and (lines := lines_of(ast.get_docstring(node))):
                yield str(path.relative_to(folder)), node.name, lines


def section_of(line: int) -> str:
    """The heading a clause stands under."""
    return SECTIONS[max(first for first in SECTIONS if first <= line)]
