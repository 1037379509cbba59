"""The one table from errors to what each protocol says.

DIMSE statuses: PS3.4 B.2.3 (C-STORE), PS3.7 C. STOW failure reasons: PS3.18 Table I.2-2.
HTTP: PS3.18 8.5 and RFC 9457 (`slug` is the problem's `type`).
"""

from __future__ import annotations

from dataclasses import dataclass

from pacslite import errors


@dataclass(frozen=True, slots=True)
class Mapping:
    """What the three protocols answer: DIMSE status, STOW FailureReason, HTTP status, problem type, title."""

    dimse: int
    stow: int
    http: int
    slug: str
    title: str


_ROWS: dict[type[errors.PacsliteError], Mapping] = {
    errors.PacsliteError: Mapping(0x0110, 0x0110, 500, "internal-error", "Internal error"),
    errors.ConfigurationError: Mapping(0x0110, 0x0110, 500, "configuration", "Configuration error"),
    errors.BadRequest: Mapping(0xC000, 0xC000, 400, "bad-request", "Bad request"),
    errors.InvalidUid: Mapping(0xA900, 0xA900, 400, "invalid-uid", "Invalid UID"),
    errors.InvalidQuery: Mapping(0xA900, 0xC000, 400, "invalid-query", "Invalid query"),
    errors.InvalidMultipart: Mapping(0xC000, 0xC000, 400, "invalid-multipart", "Invalid multipart body"),
    errors.InvalidForm: Mapping(0xC000, 0xC000, 400, "invalid-form", "Invalid request body"),
    errors.InvalidFrameNumber: Mapping(0xA900, 0xC000, 400, "invalid-frame-number", "Invalid frame list"),
    errors.NotAcceptable: Mapping(0x0110, 0x0110, 406, "not-acceptable", "Not acceptable"),
    errors.UndecodablePixels: Mapping(0x0110, 0xC000, 406, "undecodable-pixels", "The pixels cannot be decoded"),
    errors.UnsupportedContent: Mapping(0x0110, 0xC000, 415, "unsupported-media-type", "Unsupported media type"),
    errors.RefusedContent: Mapping(0x0110, 0xC000, 415, "unsupported-content", "The file is not taken"),
    errors.NotFound: Mapping(0x0112, 0x0112, 404, "not-found", "Not found"),
    errors.FrameNotFound: Mapping(0xAA04, 0x0112, 404, "frame-not-found", "No such frame"),
    errors.Gone: Mapping(0x0112, 0x0112, 410, "gone", "Deleted"),
    errors.MethodNotAllowed: Mapping(0x0211, 0x0110, 405, "method-not-allowed", "Method not allowed"),
    errors.Misdirected: Mapping(0x0110, 0x0110, 421, "misdirected", "Misdirected request"),
    errors.Conflict: Mapping(0x0110, 0x0110, 409, "conflict", "Conflict"),
    errors.UidMismatch: Mapping(0x0110, 0x0110, 409, "uid-mismatch", "Another instance than the one it would be a version of"),
    errors.PatientMismatch: Mapping(0x0110, 0x0110, 409, "patient-mismatch", "A DICOM file of another patient"),
    errors.PreconditionFailed: Mapping(0x0110, 0x0110, 412, "precondition-failed", "Precondition failed"),
    errors.TooLarge: Mapping(0xA700, 0xA700, 413, "too-large", "Too large"),
    errors.RangeNotSatisfiable: Mapping(0x0110, 0x0110, 416, "range-not-satisfiable", "Range not satisfiable"),
    errors.Unauthenticated: Mapping(0x0124, 0x0124, 401, "unauthenticated", "Authentication required"),
    errors.Forbidden: Mapping(0x0124, 0x0124, 403, "forbidden", "Forbidden"),
    errors.TooManyRequests: Mapping(0xA700, 0xA700, 429, "too-many-requests", "Too many requests"),
    errors.QuotaExceeded: Mapping(0xA700, 0xA700, 507, "quota-exceeded", "Over the quota"),
    errors.Locked: Mapping(0x0110, 0x0110, 423, "locked", "Somebody else is writing this"),
    # 460: tus 1.0.0, "Checksum".
    errors.ChecksumMismatch: Mapping(0x0110, 0x0110, 460, "checksum-mismatch", "Checksum mismatch"),
    errors.InstanceRefused: Mapping(0xC000, 0xC000, 409, "instance-refused", "Instance refused"),
    errors.NotDicom: Mapping(0xC000, 0xC000, 409, "not-dicom", "Not a DICOM instance"),
    errors.TruncatedDataSet: Mapping(0xC000, 0xC000, 409, "truncated-data-set", "Truncated data set"),
    errors.DataSetTooLarge: Mapping(0xC000, 0xC000, 413, "data-set-too-large", "Data set beyond the limits"),
    errors.MissingAttribute: Mapping(0xA900, 0xA900, 409, "missing-attribute", "Missing or invalid identifying attribute"),
    errors.InvalidMetadata: Mapping(0xC000, 0xC000, 409, "invalid-metadata", "Metadata or bulk data that make no instance"),
    errors.UnsupportedTransferSyntax: Mapping(0x0122, 0xC122, 409, "unsupported-transfer-syntax", "Unsupported transfer syntax"),
    errors.SopClassMismatch: Mapping(0xA900, 0xA900, 409, "sop-class-mismatch", "SOP class mismatch"),
    errors.SopInstanceMismatch: Mapping(0xA900, 0xA900, 409, "sop-instance-mismatch", "SOP instance mismatch"),
    errors.StudyMismatch: Mapping(0xA900, 0xA900, 409, "study-mismatch", "Another study than the URL names"),
    errors.DuplicateRefused: Mapping(0x0111, 0x0111, 409, "duplicate", "Other content under a known UID"),
    errors.TooManyVersions: Mapping(0xA700, 0xA700, 409, "too-many-versions", "Too many versions"),
    errors.StorageError: Mapping(0xA700, 0xA700, 503, "storage-unavailable", "Storage unavailable"),
    errors.BlobMissing: Mapping(0x0110, 0x0110, 500, "blob-missing", "Stored bytes are missing"),
    errors.BlobDamaged: Mapping(0x0110, 0x0110, 500, "blob-damaged", "Stored bytes are damaged"),
    errors.BackupDamaged: Mapping(0x0110, 0x0110, 500, "backup-damaged", "The backup is damaged"),
    errors.OutOfSpace: Mapping(0xA700, 0xA700, 507, "out-of-space", "Insufficient storage"),
    errors.Busy: Mapping(0xA700, 0xA700, 503, "busy", "Busy, try again"),
    errors.NotReady: Mapping(0xA700, 0xA700, 503, "not-ready", "Not ready yet"),
    errors.PeerError: Mapping(0x0110, 0x0110, 502, "peer-failed", "Remote application entity failed"),
    errors.Unavailable: Mapping(0x0110, 0x0110, 503, "unavailable", "Not available here"),
    errors.OutcomeUnknown: Mapping(0xA700, 0xA700, 503, "outcome-unknown", "Interrupted, try again"),
}


def rows() -> dict[type[errors.PacsliteError], Mapping]:
    """The whole table, for documents and tests."""
    return dict(_ROWS)


def mapping_of(error: BaseException) -> Mapping:
    """The row of the error's own class, else of its nearest base; anything foreign is an internal error."""
    for cls in type(error).__mro__:
        row = _ROWS.get(cls)
        if row is not None:
            return row
    return _ROWS[errors.PacsliteError]
