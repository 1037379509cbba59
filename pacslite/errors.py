"""Every error pacslite raises on purpose.

    PacsliteError
    ├── ConfigurationError          a setting is wrong; the process does not start
    ├── BadRequest                  the caller's fault, nothing was changed
    │   ├── InvalidUid              a UID that breaks the rule of dicom/uids.py
    │   ├── InvalidQuery            a search key, limit or date that does not parse
    │   ├── InvalidMultipart        a multipart body that breaks RFC 2046
    │   ├── InvalidForm             a JSON or form body with wrong fields (carries field errors)
    │   └── InvalidFrameNumber      a frame list that is not ascending positive integers
    ├── NotAcceptable               no representation the caller accepts
    │   └── UndecodablePixels       pixels that are damaged, or of a kind nobody here decodes
    ├── UnsupportedContent          a body of a type that is not taken here
    │   └── RefusedContent          a file that is not what it is said to be, or of a kind that is not kept
    ├── NotFound                    never existed
    │   └── FrameNotFound           the instance has fewer frames
    ├── Gone                        existed, was deleted
    ├── MethodNotAllowed            the resource has no such method (carries the allowed ones)
    ├── Misdirected                 a request for a host that is not served here
    ├── Conflict                    the state of the resource forbids it
    │   ├── UidMismatch             a version of a DICOM file that is another instance
    │   └── PatientMismatch         a DICOM file of somebody else
    ├── PreconditionFailed          the caller's If-Match names another state than the present one
    ├── TooLarge                    over a limit for one request
    ├── RangeNotSatisfiable         no byte of the asked range exists
    ├── Unauthenticated             no valid credentials
    ├── Forbidden                   valid credentials, not allowed
    ├── TooManyRequests             a rate limit (carries seconds to wait)
    ├── QuotaExceeded               more than an account, or all together, may keep
    ├── Locked                      somebody else is writing this now
    ├── ChecksumMismatch            the bytes are not those of the checksum that came with them
    ├── InstanceRefused             an instance that is not taken; nothing of it is kept
    │   ├── NotDicom                not a DICOM file or data set
    │   ├── TruncatedDataSet        ends inside an element
    │   ├── DataSetTooLarge        header, nesting or inflated size beyond the limits
    │   ├── MissingAttribute        lacks a UID that identifies it
    │   ├── InvalidMetadata         metadata and bulk data of which no instance can be made
    │   ├── UnsupportedTransferSyntax  a transfer syntax nobody knows how to read
    │   ├── SopClassMismatch        command and data set name different SOP classes
    │   ├── SopInstanceMismatch     command and data set name different instances
    │   ├── StudyMismatch           the URL names another study
    │   ├── DuplicateRefused        other content under a known UID, and the policy is to refuse
    │   └── TooManyVersions         the bound on versions of one instance, or of one file, is reached
    ├── StorageError                the blob store failed
    │   ├── BlobMissing             the catalog names bytes that are not there
    │   │   └── BlobDamaged         they are there and are not what they were
    │   ├── BackupDamaged           a backup that is not what it was when it was made
    │   └── OutOfSpace              no room for the bytes
    ├── Busy                        the catalog is locked or a bound is reached; try again
    │   └── NotReady                what is asked for is being made
    ├── PeerError                   a remote application entity failed or refused
    └── Unavailable                 a part this needs is not there (viewer, codec, revision of the schema)
        └── OutcomeUnknown          a commit was interrupted: it may have happened or not

Protocol statuses are not here: `pacslite.error_map` gives each leaf its row.
"""

from __future__ import annotations

from collections.abc import Iterable


class PacsliteError(Exception):
    """Base of all errors raised on purpose; `str(error)` is fit for the caller's eyes.

    The text names the field or tag at fault and never carries patient identity.
    """


class ConfigurationError(PacsliteError):
    """A setting is wrong."""


class BadRequest(PacsliteError):
    """The caller's fault."""


class InvalidUid(BadRequest):
    """A UID that breaks the rule."""


class InvalidQuery(BadRequest):
    """A search key, limit or date that does not parse."""


class InvalidMultipart(BadRequest):
    """A multipart body that breaks RFC 2046."""


class InvalidForm(BadRequest):
    """A body with wrong fields; `fields` holds (field, message) pairs."""

    def __init__(self, message: str, fields: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(message)
        self.fields = fields

    @classmethod
    def at(cls, field: str, message: str) -> InvalidForm:
        """One field, or parameter, is wrong."""
        return cls.of(((field, message),))

    @classmethod
    def of(cls, faults: Iterable[tuple[str, str]]) -> InvalidForm:
        """Several are."""
        fields = tuple(faults)
        return cls("; ".join(f"{field}: {message}" for field, message in fields), fields)


class InvalidFrameNumber(BadRequest):
    """A frame list that is not ascending positive integers (PS3.18 10.1.1)."""


class NotAcceptable(PacsliteError):
    """No representation the caller accepts."""


class UndecodablePixels(NotAcceptable):
    """Pixels that are damaged, or of a kind nobody here decodes; what is stored can still be had as it is."""


class UnsupportedContent(PacsliteError):
    """A body of a type that is not taken here; `supported` lists the ones that are."""

    def __init__(self, message: str, supported: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.supported = supported


class RefusedContent(UnsupportedContent):
    """A file that is not what it is said to be, that is broken, or of a kind that is not kept; the text says which."""


class NotFound(PacsliteError):
    """Never existed."""


class FrameNotFound(NotFound):
    """The instance has fewer frames, or none."""


class Gone(PacsliteError):
    """Existed and was deleted."""


class MethodNotAllowed(PacsliteError):
    """No such method on this resource; `allowed` lists the ones it has."""

    def __init__(self, message: str, allowed: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.allowed = allowed


class Misdirected(PacsliteError):
    """A request for a host that is not served here."""


class Conflict(PacsliteError):
    """The state of the resource forbids it."""


class UidMismatch(Conflict):
    """A version of a DICOM file that is another instance."""


class PatientMismatch(Conflict):
    """A DICOM file of somebody else than the patient it is brought for."""


class PreconditionFailed(PacsliteError):
    """The caller's If-Match names another state than the present one."""


class TooLarge(PacsliteError):
    """Over a limit for one request."""


class RangeNotSatisfiable(PacsliteError):
    """No byte of the asked range exists; `size_bytes` is the size of the whole."""

    def __init__(self, message: str, size_bytes: int = 0) -> None:
        super().__init__(message)
        self.size_bytes = size_bytes


class Unauthenticated(PacsliteError):
    """No valid credentials; `invalid` when some were shown."""

    def __init__(self, message: str, *, invalid: bool = False) -> None:
        super().__init__(message)
        self.invalid = invalid


class Forbidden(PacsliteError):
    """Valid credentials, not allowed."""


class TooManyRequests(PacsliteError):
    """A rate limit; `retry_after_s` says how long to wait."""

    def __init__(self, message: str, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class QuotaExceeded(PacsliteError):
    """More than an account, or all together, may keep."""


class Locked(PacsliteError):
    """Somebody else is writing this now."""


class ChecksumMismatch(PacsliteError):
    """The bytes are not those of the checksum that came with them."""


class InstanceRefused(PacsliteError):
    """An instance that is not taken."""


class NotDicom(InstanceRefused):
    """Not a DICOM file or data set."""


class TruncatedDataSet(InstanceRefused):
    """Ends inside an element."""


class DataSetTooLarge(InstanceRefused):
    """Header, nesting or inflated size beyond the limits of the reader."""


class MissingAttribute(InstanceRefused):
    """Lacks a UID that identifies it, or has an invalid one."""


class InvalidMetadata(InstanceRefused):
    """Metadata with a value that cannot be written, or bulk data that is missing or is not what it is said to be."""


class UnsupportedTransferSyntax(InstanceRefused):
    """A transfer syntax nobody knows how to read."""


class SopClassMismatch(InstanceRefused):
    """Command (or URL metadata) and data set name different SOP classes."""


class SopInstanceMismatch(InstanceRefused):
    """Command and data set name different SOP instances."""


class StudyMismatch(InstanceRefused):
    """The URL names another study than the data set."""


class DuplicateRefused(InstanceRefused):
    """Other content under a known UID, and `duplicate_policy` is `refuse`."""


class TooManyVersions(InstanceRefused):
    """`max_versions_per_instance`, or `max_versions_per_file`, is reached."""


class StorageError(PacsliteError):
    """The blob store failed."""


class BlobMissing(StorageError):
    """The catalog names bytes that are not there."""


class BlobDamaged(BlobMissing):
    """The bytes are there and are not what they were."""


class BackupDamaged(StorageError):
    """A backup that is not what it was when it was made; `damaged` names what, as far as it is known."""

    def __init__(self, text: str = "", damaged: tuple[str, ...] = ()) -> None:
        super().__init__(text)
        self.damaged = damaged


class OutOfSpace(StorageError):
    """No room for the bytes."""


class Busy(PacsliteError):
    """The catalog is locked or a bound is reached; trying again later may work."""


class NotReady(Busy):
    """What is asked for is being made: trying again shortly will work."""


class PeerError(PacsliteError):
    """A remote application entity failed or refused."""


class Unavailable(PacsliteError):
    """A part this needs is not there."""

    def __init__(self, text: str = "", reason: str = "") -> None:
        """`reason` is for the operator's console and log only: it may name hosts and accounts."""
        super().__init__(text)
        self.reason = reason


class OutcomeUnknown(Unavailable):
    """A commit was interrupted: what was to be written may be there or not; doing it again is safe."""
