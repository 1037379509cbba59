"""Content negotiation of PS3.18 section 8.7: what the caller accepts, and which of our representations that is.

Tolerant where real viewers need it: quoted and unquoted `type`, names of older editions, invalid members skipped.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from pacslite.core.conversion import is_possible
from pacslite.dicom.data_set import NATIVE
from pacslite.dicom.syntaxes import DECODABLE
from pacslite.errors import BadRequest, NotAcceptable

DICOM = "application/dicom"
DICOM_JSON = "application/dicom+json"
DICOM_XML = "application/dicom+xml"
OCTET_STREAM = "application/octet-stream"
ZIP = "application/zip"

EXPLICIT_LE = "1.2.840.10008.1.2.1"
DEFLATED_LE = "1.2.840.10008.1.2.1.99"
# Stored perhaps, but named by no request (PS3.18 8.7.3.4); sent only as "whatever is stored".
UNNAMEABLE = NATIVE - {EXPLICIT_LE, DEFLATED_LE}

_JPEG = "1.2.840.10008.1.2.4."
# PS3.18 Table 8.7.3-5: the media type of a compressed transfer syntax.
MEDIA_TYPE_OF_SYNTAX: dict[str, str] = {
    **{_JPEG + n: "image/jpeg" for n in ("50", "51", "57", "70")},
    **{_JPEG + n: "image/jls" for n in ("80", "81")},
    **{_JPEG + n: "image/jp2" for n in ("90", "91")},
    **{_JPEG + n: "image/jpx" for n in ("92", "93")},
    **{_JPEG + n: "image/jphc" for n in ("201", "202", "203")},
    **{_JPEG + n: "image/jxl" for n in ("110", "111", "112")},
    "1.2.840.10008.1.2.5": "image/dicom-rle",
    **{_JPEG + n: "video/mpeg" for n in ("100", "100.1", "101", "101.1")},
    **{_JPEG + n + f: "video/mp4" for n in ("102", "103", "104", "105", "106") for f in ("", ".1")},
    **{_JPEG + n: "video/h265" for n in ("107", "108")},
}
# The syntax meant when such a type is asked without a transfer-syntax parameter.
DEFAULT_SYNTAX: dict[str, str] = {
    "image/jpeg": _JPEG + "70",
    "image/jls": _JPEG + "80",
    "image/jp2": _JPEG + "90",
    "image/jpx": _JPEG + "92",
    "image/jphc": _JPEG + "201",
    "image/jxl": _JPEG + "110",
    "image/dicom-rle": "1.2.840.10008.1.2.5",
    "video/mpeg": _JPEG + "101",
    "video/mp4": _JPEG + "102",
    "video/h265": _JPEG + "107",
}
# What can be made of other transfer syntaxes, in the order of PS3.18 Table 8.7.3-5.
_MADE = tuple(sorted(DECODABLE - UNNAMEABLE, key=lambda uid: [int(part) for part in uid.split(".")]))
_REVERSIBLE = frozenset(
    {"1.2.840.10008.1.2.5", "1.2.840.10008.1.2.8.1"} | {_JPEG + n for n in ("57", "70", "80", "90", "92", "201", "202", "110")}
)

_LEGACY = {
    "image/x-jls": "image/jls",
    "image/dicom+jpeg-ls": "image/jls",
    "image/dicom+jpeg": "image/jpeg",
    "image/jll": "image/jpeg",
    "image/dicom+jp2": "image/jp2",
    "image/j2c": "image/jp2",
    "image/dicom+jpx": "image/jpx",
    "image/x-dicom-rle": "image/dicom-rle",
    "image/dicom+rle": "image/dicom-rle",
    "video/x-mpeg": "video/mpeg",
    "application/json": DICOM_JSON,
    "application/xml": DICOM_XML,
    "text/xml": DICOM_XML,
}
# Media types a renderer makes (PS3.18 8.7.4); they carry no transfer syntax and never stand beside DICOM types.
_RENDERED = re.compile(r"image/(?:jpeg|gif|png|webp)|video/.*|text/.*|application/(?:pdf|rtf)")

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_TYPE = re.compile(rf"\s*({_TOKEN}/{_TOKEN})\s*")
# An unquoted value may hold "/", although that is no token: viewers write type=application/octet-stream.
_PARAMETER = re.compile(rf';\s*(?:({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;,"]*))\s*)?')
_UID = re.compile(r"[0-9.]{1,64}")
_QUALITY = re.compile(r"0(?:\.\d{0,3})?|1(?:\.0{0,3})?|\.\d{1,3}")
_MEMBER = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*")+')
_MOST_CHARACTERS = 8192


@dataclass(frozen=True, slots=True)
class MediaType:
    """A media type with its parameters; names in lower case, values as sent."""

    name: str
    parameters: tuple[tuple[str, str], ...] = ()

    def parameter(self, name: str) -> str | None:
        """The first parameter of that name."""
        return next((value for key, value in self.parameters if key == name), None)


@dataclass(frozen=True, slots=True)
class MediaRange:
    """One acceptable media type: `name` may hold `*`; `multipart` when it was the `type` of multipart/related.

    `legacy` when it was written by another name than the current one.
    """

    name: str
    multipart: bool = False
    transfer_syntax: str | None = None
    quality: float = 1.0
    legacy: bool = False


@dataclass(frozen=True, slots=True)
class Offer:
    """A representation we can give.

    `default`: chosen when the caller names no transfer syntax; `stored`: what `transfer-syntax=*` means;
    `nameable`: may be asked for by its UID; `explicit_only`: `*/*` does not choose it.
    """

    name: str
    multipart: bool
    transfer_syntax: str | None = None
    default: bool = True
    stored: bool = True
    nameable: bool = True
    explicit_only: bool = False


@dataclass(frozen=True, slots=True)
class Acceptable:
    """What the caller accepts: the `accept` query parameter is tried before the header (8.7.8.1)."""

    first: tuple[MediaRange, ...]
    second: tuple[MediaRange, ...]


def parse_media_type(text: str) -> MediaType:
    """One media type with parameters; raises BadRequest."""
    head = _TYPE.match(text)
    if not head:
        raise BadRequest("Malformed media type.")
    parameters: list[tuple[str, str]] = []
    position = head.end()
    while position < len(text):
        found = _PARAMETER.match(text, position)
        if not found:
            raise BadRequest("Malformed media type parameter.")
        if found[1]:
            value = re.sub(r"\\(.)", r"\1", found[2]) if found[2] is not None else found[3]
            parameters.append((found[1].lower(), value))
        position = found.end()
    return MediaType(head[1].lower(), tuple(parameters))


def parse_range(text: str) -> MediaRange | None:
    """One member of an Accept list; None for an invalid one, which is skipped (8.7.7)."""
    try:
        media = parse_media_type(text)
    except BadRequest:
        return None
    quality, syntaxes = media.parameter("q") or "1", [v for k, v in media.parameters if k == "transfer-syntax"]
    # One syntax at most, and no list of them (8.7.3.5.2).
    if not _QUALITY.fullmatch(quality) or len(syntaxes) > 1:
        return None
    syntax = syntaxes[0].strip() if syntaxes else None
    if syntax is not None and syntax != "*" and not _UID.fullmatch(syntax):
        return None
    name, multipart = media.name, media.name in ("multipart/related", "multipart/*")
    if multipart:
        inner = _TYPE.fullmatch(media.parameter("type") or "*/*")
        if not inner:
            return None
        name = inner[1].lower()
    elif name.startswith("multipart/"):
        return None
    return MediaRange(_LEGACY.get(name, name), multipart, syntax, float(quality), name in _LEGACY)


def parse_accept(text: str) -> tuple[MediaRange, ...]:
    """All valid members of an Accept list, in order; raises BadRequest for a list that is too long."""
    if len(text) > _MOST_CHARACTERS:
        raise BadRequest("The list of acceptable media types is too long.")
    ranges = (parse_range(member) for member in _MEMBER.findall(text))
    return tuple(r for r in ranges if r is not None)


@lru_cache(maxsize=512)
def acceptable(header: str | None, query: tuple[str, ...] = (), strict: bool = False) -> Acceptable:
    """What the Accept header and the `accept` parameters allow.

    Raises NotAcceptable when nothing valid is there (or nothing at all, and `strict`), BadRequest when DICOM and
    rendered media types are mixed (8.7.5).
    """
    missing = header is None or not header.strip()
    if missing and not query and strict:
        raise NotAcceptable("The request has no Accept header.")
    # A "+" that was not percent-encoded has become a space.
    first = parse_accept(",".join(re.sub(r"(?<=\w) (?=\w)", "+", text) for text in query))
    second = (MediaRange("*/*"),) if missing else parse_accept(header or "")
    if not first and not second:
        raise NotAcceptable("No acceptable media type is valid.")
    for ranges in (first, second):
        _refuse_mix(ranges)
    return Acceptable(first, second)


def _refuse_mix(ranges: tuple[MediaRange, ...]) -> None:
    rendered = any(not r.multipart and r.transfer_syntax is None and _RENDERED.fullmatch(r.name) for r in ranges)
    # Scripts send `application/json, text/plain, */*` by default; only the DICOM names make it a mix.
    if rendered and any(r.name in (DICOM, DICOM_JSON, DICOM_XML) and not r.legacy for r in ranges):
        raise BadRequest("The acceptable media types mix DICOM and rendered ones.")


def choose(accepted: Acceptable, offers: tuple[Offer, ...]) -> Offer | None:
    """The offer the caller likes best; among equals the first one. None when there is none."""
    for ranges in (accepted.first, accepted.second):
        best, best_quality = None, 0.0
        for offer in offers:
            quality = _quality(ranges, offer)
            if quality > best_quality:
                best, best_quality = offer, quality
        if best is not None:
            return best
    return None


def _quality(ranges: tuple[MediaRange, ...], offer: Offer) -> float:
    """The q of the most specific range that fits the offer; 0 when none does (8.7.8.1)."""
    best, quality = -1, 0.0
    for media_range in ranges:
        specificity = _specificity(media_range, offer)
        if specificity > best or (specificity == best >= 0 and media_range.quality > quality):
            best, quality = specificity, media_range.quality
    return quality


def _specificity(media_range: MediaRange, offer: Offer) -> int:
    """How closely a range fits an offer; -1 when it does not."""
    syntax = media_range.transfer_syntax
    if media_range.name == "*/*":
        if media_range.multipart and not offer.multipart:
            return -1
        kind = 1 if media_range.multipart else 0
        if syntax is None:
            return -1 if offer.explicit_only else kind * 4
    else:
        if media_range.multipart != offer.multipart:
            return -1
        if media_range.name == offer.name:
            kind = 3
        elif media_range.name.endswith("/*") and offer.name.startswith(media_range.name[:-1]):
            kind = 2
        elif media_range.name == OCTET_STREAM and syntax == "*" and offer.stored:
            # Viewers ask so for frames in whatever compression they are stored.
            kind = 2
        else:
            return -1
    if syntax is None:
        return kind * 4 if offer.default else -1
    if syntax == "*":
        return kind * 4 + 1 if offer.stored else -1
    return kind * 4 + 2 if offer.nameable and offer.transfer_syntax == syntax else -1


@lru_cache(maxsize=1024)
def instance_offers(stored: str, single_part: bool) -> tuple[Offer, ...]:
    """Whole instances (`application/dicom`); a single part only for one instance (10.4.4).

    Without a transfer-syntax parameter the answer is Explicit VR Little Endian (8.7.3.4). What is stored compressed
    beyond repair is sent as stored. Others are made when they are asked for by their UID.
    """
    offers: list[Offer] = []
    for multipart in (True, False) if single_part else (True,):
        if stored in NATIVE:
            offers.append(Offer(DICOM, multipart, EXPLICIT_LE, stored=stored == EXPLICIT_LE))
            if stored != EXPLICIT_LE:
                offers.append(Offer(DICOM, multipart, stored, default=False, nameable=stored not in UNNAMEABLE, explicit_only=True))
        elif stored in _REVERSIBLE and is_possible(stored, EXPLICIT_LE):
            offers.append(Offer(DICOM, multipart, EXPLICIT_LE, stored=False))
            offers.append(Offer(DICOM, multipart, stored, default=False, explicit_only=True))
        else:
            offers.append(Offer(DICOM, multipart, stored, default=stored not in _REVERSIBLE))
        known = {offer.transfer_syntax for offer in offers if offer.multipart == multipart}
        more = (uid for uid in _MADE if uid not in known and is_possible(stored, uid, may_lose=True))
        offers.extend(Offer(DICOM, multipart, uid, default=False, stored=False, explicit_only=True) for uid in more)
    return tuple(offers)


@lru_cache(maxsize=1024)
def frame_offers(stored: str, single_part: bool) -> tuple[Offer, ...]:
    """Frames: little endian octets when stored natively, else the stored code stream under its own media type.

    Others are made when they are asked for, but for what would lose something: a frame carries no mark of that.
    """
    offers: list[Offer] = []
    for multipart in (True, False) if single_part else (True,):
        if stored in NATIVE:
            offers.append(Offer(OCTET_STREAM, multipart, EXPLICIT_LE))
        else:
            name = MEDIA_TYPE_OF_SYNTAX.get(stored, OCTET_STREAM)
            default = name != OCTET_STREAM and (DEFAULT_SYNTAX[name] == stored or stored not in _REVERSIBLE)
            decoded = is_possible(stored, EXPLICIT_LE)
            # Octets that are no pixels go to those who ask for them.
            offers.append(Offer(name, multipart, stored, default=default, explicit_only=decoded and name == OCTET_STREAM))
            if decoded:
                offers.append(Offer(OCTET_STREAM, multipart, EXPLICIT_LE, stored=False))
        for uid in _MADE:
            made = MEDIA_TYPE_OF_SYNTAX.get(uid)
            if made is not None and uid != stored and is_possible(stored, uid):
                default = DEFAULT_SYNTAX[made] == uid
                offers.append(Offer(made, multipart, uid, default=default, stored=False, explicit_only=True))
    return tuple(offers)


@lru_cache(maxsize=1024)
def bulk_offers(name: str) -> tuple[Offer, ...]:
    """One value as bulk data: its own media type (encapsulated documents), or octets; `*/*` gets a single part."""
    names = (name, OCTET_STREAM) if name != OCTET_STREAM else (name,)
    return tuple(Offer(n, multipart, EXPLICIT_LE if n == OCTET_STREAM else None) for n in names for multipart in (False, True))


METADATA_OFFERS = (Offer(DICOM_JSON, False), Offer(DICOM_XML, True))
# The answer of STOW-RS (10.5.3.2).
RESPONSE_OFFERS = (Offer(DICOM_JSON, False), Offer(DICOM_XML, False))


def content_type(offer: Offer) -> str:
    """The Content-Type of a body or part in this representation."""
    return f"{offer.name}; transfer-syntax={offer.transfer_syntax}" if offer.transfer_syntax else offer.name
