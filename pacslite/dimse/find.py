"""C-FIND as SCP (PS3.4 C.4.1): identifier in, pages of the shared query engine out as pending responses."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pacslite.core import query
from pacslite.core.query_keys import PRIVATE_GROUP, Dialect, Key, build_keys, private_tag
from pacslite.dicom.attributes import BY_TAG, LEVELS, UNIQUE_KEYS, Level
from pacslite.dicom.document import PrivateTag
from pacslite.dicom.indexed_attributes import IndexedAttributes, indexed_attributes
from pacslite.dicom.matching import Options, SequenceMatch
from pacslite.dimse import audit, commands, pdus
from pacslite.dimse.associations import Association
from pacslite.dimse.contexts import PATIENT_ROOT, Context, Service
from pacslite.dimse.find_answers import INSTANCE_AVAILABILITY, RETRIEVE_AE_TITLE, Answerer
from pacslite.dimse.identifiers import QUERY_RETRIEVE_LEVEL, Identifier, decode_identifier
from pacslite.dimse.messages import Request

# Rows read in one transaction, and bytes of responses gathered for one send: the first, and at most.
_PAGE_ROWS = 500
_FIRST_SEND_BYTES, _SEND_BYTES = 2048, 64 * 1024
_LAST_OF_DATA_SET = 2
# PS3.4 C.4.1.1.4: does not match the SOP class; matching reached the response limit.
_IDENTIFIER_MISMATCH, _LIMIT_REACHED = 0xA900, 0xB001
# What tells how to search or is answered by us: never matched, and not looked for in the catalog.
_CONTROL = frozenset({QUERY_RETRIEVE_LEVEL, 0x00080053, RETRIEVE_AE_TITLE, INSTANCE_AVAILABILITY})
_FIRST_DATA_SET_TAG = 0x00080000
# Moves times only when the adjustment was negotiated (PS3.4 C.5.1.1.1.4), which it never is; a plain return key else.
_TIMEZONE_OFFSET_FROM_UTC = 0x00080201


@dataclass(frozen=True, slots=True)
class _Search:
    """A checked identifier: what to look for, what to return at which private tags, and the status of its matches."""

    level: Level
    keys: tuple[Key, ...]
    fields: tuple[int, ...]
    private: dict[int, PrivateTag]
    status: int


def serve(association: Association, request: Request) -> None:
    """Answer one query."""
    context = request.context
    if context.service is not Service.FIND:
        association.respond(request, commands.SOP_CLASS_NOT_SUPPORTED, "no query in this presentation context")
        return
    identifier = decode_identifier(association.data_set(), context.transfer_syntax)
    wrong = check_level(identifier, context)
    if wrong is not None:
        association.respond(request, _IDENTIFIER_MISMATCH, wrong[1], (wrong[0],))
        return
    options = Options(association.settings.match_ignore_case, context.fuzzy_names, context.empty_values, context.multiple_values)
    search = _search(identifier, context, options, indexed_attributes(association.settings.index_attributes))
    audit.searched(association, str(search.level), (path[0] for path, text in identifier.terms if text))
    _answer(association, request, identifier, search)


def check_level(identifier: Identifier, context: Context) -> tuple[int, str] | None:
    """Tag and reason when level or unique keys break the hierarchy of the model (PS3.4 C.4.1.2.1, C.4.1.3.1.1)."""
    patient_root = context.abstract_syntax in PATIENT_ROOT
    levels = LEVELS if patient_root else LEVELS[1:]
    if identifier.level not in [str(level) for level in levels]:
        known = ", ".join(levels)
        return QUERY_RETRIEVE_LEVEL, f"QueryRetrieveLevel is none of {known}" if identifier.level else "QueryRetrieveLevel is missing"
    if context.relational:
        return None
    for level in levels[: levels.index(Level(identifier.level))]:
        unique = UNIQUE_KEYS[level]
        value = identifier.text(unique.tag).strip()
        if not value or any(c in value for c in "*?\\"):
            return unique.tag, f"{unique.keyword} has to be a single value at this level"
    return None


def _search(identifier: Identifier, context: Context, options: Options, indexed: IndexedAttributes) -> _Search:
    level = Level(identifier.level)
    terms = [(path, text) for path, text in identifier.terms if not _is_control(path[0]) and path[0] != _TIMEZONE_OFFSET_FROM_UTC]
    dialect = Dialect(combine_date_time=context.combined_date_time, lenient=True, options=options)
    keys = build_keys(terms, dialect)
    usable = tuple(key for key in keys if _can_match(key, level, indexed))
    creators = {path[0]: text for path, text in terms if len(path) == 1}
    asked = [tag for tag in identifier.asked if not _is_control(tag)]
    private = {tag: found for tag in asked if (found := private_tag(tag, creators))}
    fields = tuple(tag for tag in asked if not tag & PRIVATE_GROUP)
    if context.abstract_syntax in PATIENT_ROOT and UNIQUE_KEYS[Level.PATIENT].tag not in fields:
        fields = (*fields, UNIQUE_KEYS[Level.PATIENT].tag)
    unsupported = len(usable) < len(keys) or _left_out(terms, keys) or any(not _can_return(tag, level, private, indexed) for tag in asked)
    return _Search(level, usable, fields, private, commands.PENDING_WARNING if unsupported else commands.PENDING)


def _is_control(tag: int) -> bool:
    """Also the file meta information, which Orthanc 1.10 puts into the identifier of an instance, and is no part of any data set."""
    return tag in _CONTROL or tag < _FIRST_DATA_SET_TAG


def _can_match(key: Key, level: Level, indexed: IndexedAttributes) -> bool:
    """Whether the engine matches the key at this level: what has no column only at its own level and below."""
    if not isinstance(key.tag, int):
        return True
    if key.tag in BY_TAG and not isinstance(key.match, SequenceMatch):
        return True
    return _not_below(key.tag, level, indexed)


def _not_below(tag: int, level: Level, indexed: IndexedAttributes) -> bool:
    return LEVELS.index(query.level_of(tag, indexed)) <= LEVELS.index(level)


def _left_out(terms: Iterable[tuple[tuple[int, ...], str]], keys: tuple[Key, ...]) -> bool:
    """Whether a private key with a value was left out, because its creator is not there."""
    known = {key.tag for key in keys if isinstance(key.tag, PrivateTag)}
    asked = [path[0] for path, text in terms if len(path) == 1 and path[0] & PRIVATE_GROUP and path[0] & 0xFFFF > 0xFF and text.strip("* ")]
    return len(asked) > len(known)


def _can_return(tag: int, level: Level, private: dict[int, PrivateTag], indexed: IndexedAttributes) -> bool:
    if tag & PRIVATE_GROUP:
        return tag in private or 0x10 <= tag & 0xFFFF <= 0xFF
    return _not_below(tag, level, indexed)


def _answer(association: Association, request: Request, identifier: Identifier, search: _Search) -> None:
    """Send the matches page by page; no transaction is open while sending."""
    answerer = Answerer(identifier, str(search.level), request.context.transfer_syntax, association.settings.aet, search.keys)
    indexed = indexed_attributes(association.settings.index_attributes)
    fields = tuple(tag for tag in search.fields if _not_below(tag, search.level, indexed))
    private_fields = tuple(dict.fromkeys(search.private.values()))
    messages = _Messages(association, request, search.status)
    settings, left = association.settings, association.settings.find_max_matches
    cursor: query.Cursor | None = query.BEGIN
    held = b""  # the last responses go out with the final one
    while cursor is not None and left > 0:
        asked = query.Query(
            search.level,
            search.keys,
            fields,
            min(_PAGE_ROWS, left),
            private_fields=private_fields,
            count_remaining=False,
            indexed=indexed,
            max_documents=settings.max_search_documents,
            cursor=cursor,
        )
        page = query.find(association.pacs.catalog, asked)
        cursor, left = page.cursor, left - len(page.rows)
        for batch in _batches(messages, answerer, search, page):
            if association.cancelled():
                association.respond(request, commands.CANCELLED)
                return
            if held:
                association.send(held)
            held = batch
        if cursor is not None:
            association.send(held)
            held = b""
    association.respond(request, commands.SUCCESS if cursor is None else _LIMIT_REACHED, before=held)


class _Messages:
    """Pending responses of one query; all but the data set is the same in each, and made once."""

    def __init__(self, association: Association, request: Request, status: int) -> None:
        self._association, self._request, self._status = association, request, status
        command = commands.encode_response(request.command, status, data_set=True)
        self._max = association.max_pdu_bytes
        self._head = pdus.encode_message(request.context.id, command, None, self._max)
        self._context_id = request.context.id

    def append(self, gathered: list[bytes], data_set: bytes) -> int:
        """Put the PDUs of one response to those gathered; how many bytes they are."""
        if self._max and len(data_set) + 6 > self._max:
            message = self._association.message(self._request, self._status, data_set)
            gathered.append(message)
            return len(message)
        size = len(data_set)
        gathered += (self._head, pdus.PDV_HEADER.pack(pdus.P_DATA, size + 6, size + 2, self._context_id, _LAST_OF_DATA_SET), data_set)
        return len(self._head) + size + pdus.PDV_HEADER.size


def _batches(messages: _Messages, answerer: Answerer, search: _Search, page: query.Page) -> Iterable[bytes]:
    """Pending responses, some at once for one send: the first ones soon, so that the peer works while we do."""
    gathered: list[bytes] = []
    size, enough = 0, _FIRST_SEND_BYTES
    for data_set in answerer.answers(page, search.private):
        size += messages.append(gathered, data_set)
        if size >= enough:
            yield b"".join(gathered)
            gathered, size, enough = [], 0, min(2 * enough, _SEND_BYTES)
    if gathered:
        yield b"".join(gathered)
