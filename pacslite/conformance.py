"""The conformance statement: what is said by hand, and the tables that follow from the code."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pydicom._uid_dict import UID_dictionary

from pacslite import error_map
from pacslite.core.access import Right
from pacslite.dicom.attributes import ATTRIBUTES, Attribute, Level, Returned, Source
from pacslite.dicom.indexed_attributes import indexed_attributes
from pacslite.dicom.syntaxes import DECODABLE, DEFLATED, DEFLATED_FRAMES, EXPLICIT, IMPLICIT, IRREVERSIBLE, REVERSIBLE
from pacslite.web.markdown_page import as_html
from pacslite.web.messages import Reply, Request, Route

if TYPE_CHECKING:
    from pacslite.app import Pacs

# Names that pydicom's table does not have yet.
_NEWER = {DEFLATED_FRAMES: "Deflated Image Frame Compression"}
_MADE_NATIVE = frozenset({IMPLICIT, EXPLICIT, DEFLATED})
_POLICY = (
    "Content-Security-Policy",
    "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
)

_HEAD = """# Conformance

Made by `make docs`; the tables come from the code that does it. PS3.x names the parts of the DICOM standard.

## DIMSE

pacslite accepts associations (SCP) for:

| Service | SOP classes | |
|---|---|---|
| Verification | 1.2.840.10008.1.1 | also as SCU, for known peers (`pacslite peer echo`) |
| Storage | those [listed below](#storage-sop-classes), and private ones | every transfer syntax of pydicom's dictionary; kept as received |
| Query | Patient Root and Study Root FIND, relational queries too | PATIENT, STUDY, SERIES, IMAGE |
| Retrieve | Patient Root and Study Root MOVE and GET, relational retrieval too | PATIENT, STUDY, SERIES, IMAGE; lists of UIDs |
| Storage Commitment | Push Model, 1.2.840.10008.1.20.1 | explicit and implicit VR little endian |

As SCU, on behalf of jobs and `pacslite peer`: Verification; FIND (Study Root, else Patient Root), MOVE and GET (Study Root); Storage;
Storage Commitment, whose reports are taken on the association of the request or on one of the peer's own. C-GET offers a context for
each SOP class and transfer syntax while there is room; C-MOVE names our own title as destination. A C-STORE that is answered A700H
or breaks off is tried again later, any other refusal is not. As DICOMweb client: QIDO-RS, WADO-RS and STOW-RS, an instance a request.

Associations are requested for these, to report as SCP of Storage Commitment, and for Storage (SCU) to carry out C-MOVE: one
presentation context for each SOP class and transfer syntax of what is sent, with explicit and implicit VR little endian beside it where
we can make them (all but video and rare syntaxes), those that the peer prefers, and while there is room one with whatever else loses
nothing. More than 128 contexts are spread over several associations, one after the other; `move_associations` sends a large C-MOVE
over several at once.

- The called AE title must be ours (`PACSLITE_AET`), else the association is rejected with source 1, reason 7;
  `called_aet_policy = "any"` takes all.
- At most `max_associations` associations are held per process, of these `max_associations_per_address` of one address; others are
  rejected as transient (source 3, reason 2).
- Calling AE titles that are no known peers are accepted over loopback only (`dicom_unknown_callers`), others rejected with source 1,
  reason 3, as is a known peer that calls from another address than those of its host (`dicom_check_peer_host`; loopback is let
  through). A known peer is held to its `allow`: what it may not do is answered 0124H.
- C-STORE answers 0000H once bytes and catalog are on stable storage (sync included).
- The same instance again is 0000H and changes nothing. Other content under a known UID is a new version (0000H), or, by `duplicate_policy`,
  refused with 0111H, or ignored with 0000H (`keep_first`).
- Text is answered in a Specific Character Set that the caller can read, see PS3.3 C.12.1.1.2.
- Retrieval sends the newest version of each instance, undecoded in the stored transfer syntax when the receiver accepted that, else
  transcoded (see below): to a native one when it accepted one, else to one without loss. An instance that cannot be decoded, or whose SOP
  class was not accepted, is a failed sub-operation.
- Where the requester of an association only receives (role selection for C-GET) and lists a native transfer syntax first, explicit VR
  little endian is chosen among the native ones it offers.
- Identifiers of C-MOVE and C-GET hold unique keys; other keys are passed over, except IssuerOfPatientID beside PatientID. The level PATIENT
  is taken in Study Root too.
- Identifiers of more than 16 MiB are answered A700H, those of more than 20,000 elements and items, or nested deeper than 16, A900H.
- Move Destination is the AE title of a known peer (`pacslite peer add`), else A801H; one added with `--tls` is called over TLS and
  never without. C-STORE requests name the Move Originator.
- Final status of a retrieval: 0000H; B000H with failures or warnings; A702H when all failed, the receiver being out of reach among the
  reasons; FE00H when cancelled, which is looked for between sub-operations. Failed SOP Instance UID List names what failed.
- Pending responses come at once and then every second. Numbers above 65535 are told as 65535.
- Storage Commitment: N-ACTION is answered 0000H once the request is durably queued; 0115H when TransactionUID or
  ReferencedSOPSequence is missing, empty or invalid, or a transaction of this UID is under way for other instances (the same request
  again changes nothing); 0112H, 0118H, 0123H for another SOP instance, SOP class or action type; 0213H when there are no resources, or
  more than 64 reports of the association are open.
- Committed is an instance whose newest version is known under the SOP class named, and whose stored bytes, read again for this, have the
  size and SHA-256 they came with. Failure Reasons: 0110H bytes missing or damaged (`pacslite verify --deep --repair` takes them out
  of service, then they can be sent again), 0112H no such instance, 0119H another SOP class.
- N-EVENT-REPORT goes to the known peer of the requester's AE title (`pacslite peer add`), over a new association in which we
  propose the SCP role; a peer that leaves the role unanswered is told all the same. A requester that is no known peer is told on the
  association of its request, while it lasts, whenever nothing else of it waits to be served.
- A report that is not acknowledged with 0000H is sent again: after 5 s, 20 s, 80 s, ... at most an hour, 32 times (more than a day),
  across restarts; after each pause the instances are checked anew. Retrieve AE Title is ours.

### Security profiles

- BCP 195 RFC 8996, 9325 TLS Secure Transport Connection Profile (PS3.15 B.12), as acceptor (`dicom_tls`, beside the plain port or in
  its place) and as requestor (peers with `--tls`): TLS 1.2 and 1.3, or 1.3 alone (`dicom_tls_version`). Cipher suites of TLS 1.2:
  TLS_ECDHE_{ECDSA,RSA}_WITH_AES_{128_GCM_SHA256,256_GCM_SHA384}; of TLS 1.3: TLS_AES_128_GCM_SHA256, TLS_AES_256_GCM_SHA384,
  TLS_CHACHA20_POLY1305_SHA256. No renegotiation, compression or resumption. The profile's port is 2762; any can be set.
- Callers' certificates are required, optional or not asked for (`dicom_tls_client_certificates`), verified by `dicom_tls_ca`. A peer's
  certificate is always verified, and has to name its host unless `dicom_tls_check_host` is off; ours is shown when it asks.
- User identity negotiation (PS3.7 D.3.3.7), by `dicom_user_identity`: ignored and unanswered, or checked, or required. User name, user
  name and password, and JWT are checked; Kerberos and SAML are not supported. A refusal is source 1, reason 1 (rejected permanently,
  no reason given). A positive response is sent when asked for, with an empty server response.

## DICOMweb

Root `/dicom-web` (PS3.18). Searches: the six resources of table 10.6.1-1, as `application/dicom+json` (default) or `dicom+xml`. Store:
`POST /studies` and `/studies/{study}`. Retrieve: study, series, instance; metadata, bulk data, pixel data, rendered, thumbnail of each;
frames, also rendered and as thumbnails. Delete: study, series, instance.

- Without an Accept header the default of the resource is sent (`strict_accept` makes it 406). Errors are application/problem+json, or
  problem+xml, HTML or plain text for those who accept only that; where none fits JSON, in strict mode HTML.
- Text is UTF-8; an Accept-Charset that cannot be met is 406, unknown names in it are ignored.
- OPTIONS on every resource tells its methods (Allow); on the root OPTIONS and GET give the capabilities (8.9) as WADL, in XML or JSON.
- ETag on all that is retrieved and found, strong except on multipart bodies; it changes with every version. Last-Modified on instances
  and what is in them. If-None-Match, If-Modified-Since, If-Match (on GET and DELETE; there it names the ETag of the metadata), If-Range.
- Ranges of single-part bodies (206, 416); several ranges in one request, and ranges of multipart bodies, are answered whole. 206 means
  nothing else: a retrieve of which a part cannot be given is refused.
- JSON of some length is compressed with gzip for those who take it. A body may be chunked, so that nothing needs 411.
- Without a transfer-syntax parameter instances are Explicit VR Little Endian; those stored with loss, as video, in a syntax we do not
  decode, or with pixels too damaged for that are sent as stored. Frames without one are the stored code stream if its media type is
  accepted, else decoded. Every other syntax of the section Transcoding is made when asked for by its UID; 406 when these pixels cannot
  be decoded or written so.
- A retrieval is all or nothing: 406 when an instance cannot be given as asked, 500 naming the instances whose bytes are missing (a
  distant store is asked before the answer begins), 413 above `max_retrieve_instances`; 206 is for byte ranges only. What shows only
  when pixels are decoded or written (damage, floats, single bits) withholds nothing else of a study or series: such an instance comes
  in the transfer syntax it is stored in (instead of Implicit VR and Big Endian: Explicit VR Little Endian), which its part names, with a
  Warning when that is known before the answer begins; 406 when it is so with all. Of what is above 8 MiB only the first frame is looked at
  for that. A frame that cannot be decoded is 406, and in the
  midst of several ones breaks the answer off: nothing may be taken for pixels that is none.
- `/bulkdata` of a study, series or instance has a part for each value that metadata names by BulkDataURI; the resource itself asked for as
  `multipart/related; type="application/octet-stream"` is the same. `/pixeldata` has Pixel Data, Float and Double Float Pixel Data, not
  that of icons. Compressed pixel data is a part for each frame, a document has its own media type, other values are little endian octets.
- Several native frames asked for as a single part follow each other without padding, single bits too.
- Rendered: images as JPEG (default), PNG, GIF, WebP and JPEG 2000; as GIF a multi-frame image moves, else its representative or first frame
  stands for it; several frames are parts, or a GIF. Grey values go through modality and VOI (a table before the first window) of the image
  or the frame; without either, 8 bits as they are and more than 8 spread from the lowest to the highest value that is no padding.
  PALETTE COLOR, RGB, YBR_FULL, YBR_FULL_422, YBR_ICT, YBR_RCT become RGB. Overlays, presentation states and supplemental palettes are
  not applied, presentation states not rendered (406). Studies and series are multipart: a part for each instance that can be rendered
  acceptably, a Warning for others (images are decoded for that before the answer begins, 200 at most; of more a Warning says that they
  may be left out). Above 10,000 instances that is 406. MPEG and H.26x come as stored, documents as their own type (HTML, SVG and
  scripts as octets), reports as HTML (default), plain text or XML.
- `annotation` (patient, technique), `quality`, `viewport`, `window`, `iccprofile` (no, yes, srgb, adobergb, rommrgb; JPEG, PNG and WebP
  carry profiles; grey becomes RGB for one). What has more than `max_rendered_pixels` pixels is 413.
- Thumbnails: one image of at most 256 by 256 pixels or the `viewport`: of a loop the middle frame, of a series the middle instance, of a
  study that of the first series with pictures; for what has no picture an icon of its kind.
- `application/zip` of a study, series or instance: the files as stored, uncompressed, under `DICOM/SEnnnnnn/IMnnnnnn`, with DICOMDIR
  (PS3.10 8, Explicit VR Little Endian, UTF-8 where needed; made-up values where a key of type 1 is missing). The same content is the
  same file, so it has an ETag and byte ranges. `GET /api/v1/studies/{study}/archive` is the same,
  with the files tied to the study beside it.
- `?version=n` on an instance and what is below it, and `?version=<time of RFC 3339>` on any resource (our own extension), retrieve what
  was there: version n, or the one stored last at that time. URLs in the answer name the version. 404 when there was none.
  `GET /api/v1/studies/{study}/series/{series}/instances/{instance}/versions` lists them.
- An unsatisfied range of results is told by Warning 299; no match is 204.
- `DELETE` of a study, series or instance (not a transaction of PS3.18) is 204, or 404 when there is no such, or 410 when it was deleted
  before. From then on the resource and all below it is 410 in retrieval, and no search, C-FIND, C-MOVE or C-GET finds it. A study or series
  that loses its last instance is deleted with it. What is sent again is there again. An instance that arrives during a deletion comes
  before it and goes along, or after it and stays. Bytes are erased after `removal_grace_s`; until then
  `POST /api/v1/studies/{study}/undelete` (and `.../series/{series}/undelete`, `.../instances/{instance}/undelete`) brings back
  what was deleted, with all versions.
  Above 200 instances that is 202 and a job.
- WADO-URI (PS3.18 9) is `GET /dicom-web/wado`. Without contentType an image of one frame, or a frame named, is a JPEG picture, a document
  or report what it is, anything else `application/dicom`, by default in Explicit VR Little Endian; the Accept header is passed over.
  frameNumber is for images of several frames (else 400). anonymize=yes and presentation states are refused with 406, parameters
  that do not go together with 400. Text is UTF-8; a charset without it is 406.
- Storage commitment (PS3.18 13): `POST /commitment-requests/{transactionUID}` with ReferencedSOPSequence as `application/dicom+json` or
  `dicom+xml` is 200 with the result, or 202 after 2 seconds; `GET` of the same is 200, or 202 while it is awaited, 404 when it is not
  known (results are kept for `job_retention_days`). 409 when the Transaction UID stands for other instances; the same request again is the
  same transaction. What is committed, and the Failure Reasons, are as over DIMSE.
- STOW-RS: 200 when all instances are stored, 202 when some are, 409 when none is, with FailureReason per instance (below); 507 or
  503 when it is the server that could store none. Bodies are `application/dicom`, or metadata as `application/dicom+json` (an
  array) or `dicom+xml` (one part per instance, no document type) with bulk data by Content-Location, absolute or relative to
  `/dicom-web/`, before or after the metadata. Bodies with a content coding are 415. Location names the new instance or study.
- Of metadata and bulk data an instance is made in Explicit VR Little Endian, or in the transfer syntax that the first bytes of its
  pixels say: JPEG (.50, .51, .57, .70), JPEG-LS, JPEG 2000, HTJ2K (.201, .203; .202 when named), MPEG-2, MPEG-4 and HEVC are
  encapsulated as they came (of a JP2 file the code stream), RLE and JPEG XL by their media type; frames are parts of one
  Content-Location in order, parts at `.../frames/N`, or one part. PNG and GIF become pixels; what would lose something
  (transparency, 16 bits in colour) is refused. An omitted Image Pixel Description is filled in, but not for RLE and JPEG XL.
- Text of metadata is stored as UTF-8, group 0002 is left out. Nothing is coerced, so Original Attributes Sequence is never
  written. With `coercion_warnings` an instance has Warning Reason B007H when its file meta names another SOP class, B006H
  when elements were left out, B000H for other deviations; else none.

## Transcoding

From and to Implicit (DIMSE only) and Explicit VR Little Endian, Deflated, RLE, Deflated Image Frame, JPEG Baseline (.50), Extended (.51)
and Lossless (.57, .70), JPEG-LS (.80, .81), JPEG 2000 (.90, .91) and HTJ2K (.201, .202, .203); from Explicit VR Big Endian too. MPEG,
H.264, HEVC and others pass as they are.

- Without loss are RLE and Deflated Image Frame (1, 8, 16, 32 bits), JPEG Lossless, JPEG-LS, JPEG 2000 and HTJ2K (up to 16 bits allocated,
  1 or 3 samples, signed or not, palettes too). What stands in the words above Bits Stored is kept. Single bits are a byte each in RLE
  (PS3.5 G.2; packed ones are read too) and one bit deep in JPEG 2000 and HTJ2K, but not in JPEG and JPEG-LS. Floats are native only.
- A syntax with loss (.50, .51, .81, .91, .203) is only made of whole instances over DICOMweb, when its UID is asked for: the result is
  another instance (PS3.3 C.7.6.1.1.5). It has a SOP Instance UID of its own, always the same for the same content; Image Type begins with
  DERIVED; Lossy Image Compression, Ratio (of the first frame) and Method are set; Source Image Sequence names its source. Frames, C-GET
  and C-MOVE have no place for that and get none.
- What was stored with loss keeps UID and marks when it is decoded; a missing mark is added where the code stream shows a loss.
- Photometric Interpretation fits the pixels: lossy JPEG in YCbCr becomes RGB natively, YBR_ICT and YBR_RCT become RGB, and YBR_FULL stays.
  Lossy JPEG of RGB is YBR_FULL_422, JPEG 2000 and HTJ2K of RGB are YBR_RCT or YBR_ICT. Planar Configuration of a result is 0.
- Each frame is one fragment behind a Basic Offset Table, behind an Extended Offset Table when that does not reach. Icons compressed as
  their image are left out of the result. JPEG-LS is written in samples of 8 or 16 bits, JPEG Lossless with selection value 1.
- A truncated code stream, one of another size than the image, a frame above 512 MiB, native pixels above 4 GiB, and an image with fewer
  frames than it says are 406 over DICOMweb and failed sub-operations over DIMSE.

## Matching

`*` and `?` match in AE, CS, LO, LT, PN, SH, ST, UC, UR, UT; a lone `*` matches everything. Person names match without regard
to case and accents, on any component group; other text by case unless `match_ignore_case` is set. Dates and times match as
ranges, in QIDO-RS (and in C-FIND when negotiated) combined. UID lists are separated by backslash, in QIDO-RS also by comma.

Done when asked for, in QIDO-RS by parameter, in C-FIND by extended negotiation (PS3.4 C.5.1.1; time zone adjustment and conversion of
enhanced multi-frames are not granted):

- fuzzy names (`fuzzymatching=true`): every word of the key begins a word of the name or sounds like one (Cologne phonetics, for words of
  Latin letters), in any order, component and component group. A word with `*` or `?` is a pattern for a word.
- empty values (`emptyvaluematching=true`): a key of two quotation marks matches what is absent or has no value.
- multiple values (`multiplevaluematching=true`): of an attribute that may have several, each value in the key has to match one. They are
  separated by backslash, of AS, AT and CS also by comma; wildcards are taken. Without it, of a list of CS values any may match.

Studies come newest first, series and instances by their numbers, patients by name; equal ones in the order of their arrival.
`orderby=StudyDate,-PatientName` (not a parameter of PS3.18) orders a search of QIDO-RS by up to four attributes that have a column or an
index, of the level searched or above, descending behind a minus sign; what is unknown comes first. A QIDO-RS search gives
`query_default_limit` matches unless it names a `limit`, never more than `query_max_limit`. A C-FIND gives `find_max_matches` and then ends
with B001H instead of 0000H.

Attributes with a column are matched there and are fast when indexed. Every other attribute can still be a key, private ones
(with their creator) and such inside sequences too: it is searched in the stored metadata of at most `max_search_documents` matches that the
other keys leave, at its own level or a lower one (above the instance, in that of the instance stored last); a wider search is refused, 413
or A700H, naming keys to add. `index_attributes` gives further attributes an index, at the level they describe or at a given one; the worker
builds it for what is stored, and until that is done the metadata is searched.
"""
_ERRORS = """
## Failures

| Situation | DIMSE status | STOW FailureReason | HTTP | problem `type` |
|---|---|---|---|---|
"""
_RETURNED = {Returned.ALWAYS: "always", Returned.KNOWN: "when known", Returned.ASKED: "when asked for"}


def page(indexed: Iterable[Attribute] = ()) -> str:
    """docs/conformance.md; `indexed` are attributes that a setting adds."""
    parts = [_HEAD]
    for level in Level:
        parts.append(f"\n### {str(level).capitalize()} level\n\n| Tag | Keyword | VR | Indexed | Returned |\n|---|---|---|---|---|\n")
        parts += [_row(a) for a in sorted([*ATTRIBUTES, *indexed], key=lambda a: a.tag) if a.level is level]
    parts.append(_ERRORS)
    for cls, row in error_map.rows().items():
        meaning = (cls.__doc__ or "").splitlines()[0].partition(";")[0].rstrip(".")
        parts.append(f"| {meaning} | {row.dimse:04X}H | {row.stow:04X}H | {row.http} | `{row.slug}` |\n")
    return "".join([*parts, *_services(), *_transfer_syntaxes(), *_storage_classes()])


def _services() -> Iterable[str]:
    """Every transaction of DICOMweb, from the routes that the server runs on."""
    from pacslite.dicomweb.capabilities import FACTS
    from pacslite.dicomweb.routes import ROUTES as DICOMWEB

    yield "\n## Transactions of DICOMweb\n\n"
    yield "| Transaction | Method | Resource | Request | Response | Query parameters |\n|---|---|---|---|---|---|\n"
    for route in DICOMWEB:
        facts = FACTS[route.handler.__name__]
        resource = route.rule.replace("<path:", "{").replace("<", "{").replace(">", "}")
        cells = (_codes(facts.takes), _codes(facts.gives) or f"{facts.statuses[0]}", _codes(facts.query))
        yield f"| {facts.title} | {route.method} | `{resource}` | {' | '.join(cells)} |\n"


def _codes(values: Iterable[str]) -> str:
    return ", ".join(f"`{value}`" for value in values)


def _transfer_syntaxes() -> Iterable[str]:
    """Every transfer syntax that is negotiated, and what is done with it."""
    from pacslite.dimse.negotiation import TRANSFER_SYNTAXES

    yield "\n## Transfer syntaxes\n\n| UID | Name | Taken in and sent as stored | Decoded | Made |\n|---|---|---|---|---|\n"
    for uid in sorted(TRANSFER_SYNTAXES, key=_numbers):
        made = "without loss" if uid in REVERSIBLE else "with loss" if uid in IRREVERSIBLE else "native" if uid in _MADE_NATIVE else "no"
        yield f"| {uid} | {_NEWER.get(uid) or UID_dictionary[uid][0]} | yes | {'yes' if uid in DECODABLE else 'no'} | {made} |\n"


def _storage_classes() -> Iterable[str]:
    """Every storage SOP class of the dictionary; private ones are taken too."""
    from pacslite.dimse.contexts import Service
    from pacslite.dimse.negotiation import STORAGE_CLASSES, service_of

    taken = {uid: name for uid, name in STORAGE_CLASSES.items() if service_of(uid) is Service.STORAGE}
    yield "\n## Storage SOP classes\n\nSCP and, for C-MOVE, C-GET and jobs, SCU; private classes too. Not taken are those of no study:\n"
    yield "hanging protocols, palettes, implant templates, protocols and their approval, inventories.\n\n| UID | Name |\n|---|---|\n"
    for uid, name in sorted(taken.items(), key=lambda row: _numbers(row[0])):
        yield f"| {uid} | {name} |\n"


def _numbers(uid: str) -> tuple[int, ...]:
    return tuple(map(int, uid.split(".")))


def get_conformance(pacs: Pacs, request: Request) -> Reply:
    """`/docs/conformance`: the statement of this very server, its own indexed attributes with it."""
    headers = [("Content-Type", "text/html; charset=utf-8"), ("Cache-Control", "no-cache"), _POLICY]
    return Reply(200, headers, as_html(page(indexed_attributes(pacs.settings.index_attributes).values())).encode())


ROUTES = (Route("GET", "/docs/conformance", get_conformance, Right.PUBLIC),)


def _row(attribute: Attribute) -> str:
    tag = f"({attribute.hex[:4]},{attribute.hex[4:]})"
    keyword = attribute.keyword
    indexed = "yes" if attribute.indexed else ("computed" if attribute.source is Source.COMPUTED else "column")
    return f"| {tag} | {keyword} | {attribute.vr} | {indexed} | {_RETURNED[attribute.returned]} |\n"
