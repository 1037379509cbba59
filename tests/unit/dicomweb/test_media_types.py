"""Content negotiation: PS3.18 8.7."""

from __future__ import annotations

import pytest

from pacslite.dicomweb.media_types import (
    EXPLICIT_LE,
    METADATA_OFFERS,
    MediaRange,
    Offer,
    acceptable,
    bulk_offers,
    choose,
    content_type,
    frame_offers,
    instance_offers,
    parse_accept,
    parse_media_type,
)
from pacslite.errors import BadRequest, NotAcceptable

IMPLICIT, BIG, DEFLATED = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"
BASELINE, LOSSLESS, JLS, J2K, J2K_LOSSLESS = (f"1.2.840.10008.1.2.4.{n}" for n in (50, 70, 80, 91, 90))
RLE = "1.2.840.10008.1.2.5"
REL = "multipart/related; type="


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("application/dicom+json", [MediaRange("application/dicom+json")]),
        (f'{REL}"application/dicom"', [MediaRange("application/dicom", True)]),
        (f"{REL}application/dicom", [MediaRange("application/dicom", True)]),
        (f"{REL}application/octet-stream; transfer-syntax=*", [MediaRange("application/octet-stream", True, "*")]),
        (f'{REL}"application/octet-stream"; transfer-syntax="{J2K}"', [MediaRange("application/octet-stream", True, J2K)]),
        ("MULTIPART/Related;Type=Application/DICOM", [MediaRange("application/dicom", True)]),
        ("multipart/related", [MediaRange("*/*", True)]),
        ("*/*;q=0.5", [MediaRange("*/*", quality=0.5)]),
        ("image/x-jls", [MediaRange("image/jls", legacy=True)]),
        ("image/x-dicom-rle, image/dicom+rle", [MediaRange("image/dicom-rle", legacy=True)] * 2),
        # Invalid members are skipped, the others count (8.7.7).
        ("nonsense, */*, image/jpeg;q=2, a/b;q=x, /, ;,,", [MediaRange("*/*")]),
        # Two syntaxes, or a list of them (8.7.3.5.2).
        (f'application/dicom; transfer-syntax={J2K}; transfer-syntax={JLS}, application/dicom; transfer-syntax="{J2K},{JLS}"', []),
        ("application/dicom; transfer-syntax=jpeg", []),
        ('text/html; x="a,b;c\\"d", image/png', [MediaRange("text/html"), MediaRange("image/png")]),
    ],
)
def test_accept_is_read(text: str, expected: list[MediaRange]) -> None:
    assert list(parse_accept(text)) == expected


def test_a_missing_accept_is_anything_unless_strict() -> None:
    assert acceptable(None).second == acceptable("  ").second == (MediaRange("*/*"),)
    with pytest.raises(NotAcceptable):
        acceptable(None, (), True)
    assert acceptable(None, ("application/dicom+json",), True).first


def test_an_accept_of_invalid_members_only_is_not_acceptable() -> None:
    with pytest.raises(NotAcceptable):
        acceptable("nonsense")


@pytest.mark.parametrize(
    "header", ["application/dicom+json, image/png", f"{REL}application/dicom, text/html", "application/dicom, image/jpeg"]
)
def test_dicom_and_rendered_types_do_not_mix(header: str) -> None:
    with pytest.raises(BadRequest):
        acceptable(header)


@pytest.mark.parametrize(
    "header",
    [
        "application/json, text/plain, */*",
        f"application/dicom+json, {REL}application/octet-stream",
        f"{REL}application/pdf, {REL}application/octet-stream",
        "text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8",
        f"application/dicom, image/jpeg; transfer-syntax={BASELINE}",
    ],
)
def test_what_real_clients_send_is_no_mix(header: str) -> None:
    acceptable(header)


@pytest.mark.parametrize(
    ("header", "query", "name"),
    [
        ("*/*", (), "application/dicom+json"),
        ("application/json", (), "application/dicom+json"),
        (f'{REL}"application/dicom+xml"', (), "application/dicom+xml"),
        (f"application/dicom+json;q=0.1, {REL}application/dicom+xml;q=0.2", (), "application/dicom+xml"),
        ("application/dicom+json;q=0, */*", (), "application/dicom+xml"),
        ("application/*", (), "application/dicom+json"),
        ("application/dicom", (), None),
        ("image/jpeg", (), None),
        ("*/*;q=0", (), None),
        # The query parameter goes first; a plus sign in it may have become a space.
        ("text/html", ("application/dicom json",), "application/dicom+json"),
        ("application/dicom+json", ("image/png",), "application/dicom+json"),
    ],
)
def test_metadata_is_negotiated(header: str, query: tuple[str, ...], name: str | None) -> None:
    chosen = choose(acceptable(header, query), METADATA_OFFERS)
    assert (chosen.name if chosen else None) == name


def _chosen(header: str, offers: tuple[Offer, ...]) -> str | None:
    chosen = choose(acceptable(header), offers)
    if chosen is None:
        return None
    return ("multipart " if chosen.multipart else "single ") + content_type(chosen)


@pytest.mark.parametrize(
    ("stored", "header", "expected"),
    [
        (EXPLICIT_LE, "*/*", EXPLICIT_LE),
        (EXPLICIT_LE, f"{REL}application/dicom", EXPLICIT_LE),
        (IMPLICIT, f"{REL}application/dicom", EXPLICIT_LE),
        (BIG, "*/*", EXPLICIT_LE),
        (DEFLATED, f"{REL}application/dicom", EXPLICIT_LE),
        # As stored, whatever it is; named, only what may be named (8.7.3.4).
        (IMPLICIT, f"{REL}application/dicom; transfer-syntax=*", IMPLICIT),
        (BIG, f"{REL}application/dicom; transfer-syntax=*", BIG),
        (DEFLATED, f"{REL}application/dicom; transfer-syntax=*", DEFLATED),
        (IMPLICIT, f"{REL}application/dicom; transfer-syntax={IMPLICIT}", None),
        (BIG, f"{REL}application/dicom; transfer-syntax={BIG}", None),
        (EXPLICIT_LE, f"{REL}application/dicom; transfer-syntax={DEFLATED}", DEFLATED),
        (EXPLICIT_LE, f"{REL}application/dicom; transfer-syntax={J2K}", J2K),
        (EXPLICIT_LE, f"{REL}application/dicom; transfer-syntax=1.2.840.10008.1.2.4.102", None),
        (J2K, f"{REL}application/dicom; transfer-syntax={J2K}", J2K),
        (J2K, f"{REL}application/dicom; transfer-syntax={EXPLICIT_LE}", EXPLICIT_LE),
        (J2K, f"{REL}application/dicom; transfer-syntax={JLS}, {REL}application/dicom; transfer-syntax={J2K};q=0.1", JLS),
        # Nothing named: what was lost is not undone by decompressing, what is reversible is.
        (J2K, f"{REL}application/dicom", J2K),
        (J2K_LOSSLESS, f"{REL}application/dicom", EXPLICIT_LE),
        (J2K_LOSSLESS, "*/*", EXPLICIT_LE),
        ("1.2.840.10008.1.2.4.102", f"{REL}application/dicom", "1.2.840.10008.1.2.4.102"),
        ("1.2.840.10008.1.2.4.102", f"{REL}application/dicom; transfer-syntax={EXPLICIT_LE}", None),
        (J2K_LOSSLESS, f"{REL}application/dicom; transfer-syntax=*", J2K_LOSSLESS),
        ("1.2.999", "*/*", "1.2.999"),
    ],
)
def test_the_transfer_syntax_of_an_instance(stored: str, header: str, expected: str | None) -> None:
    full = None if expected is None else f"multipart application/dicom; transfer-syntax={expected}"
    assert _chosen(header, instance_offers(stored, True)) == full


def test_an_instance_alone_may_be_a_single_part() -> None:
    assert _chosen("application/dicom", instance_offers(EXPLICIT_LE, True)) == f"single application/dicom; transfer-syntax={EXPLICIT_LE}"
    assert _chosen("application/dicom", instance_offers(EXPLICIT_LE, False)) is None
    assert _chosen("application/dicom, */*;q=0.1", instance_offers(EXPLICIT_LE, False)) is not None


OCTETS = f"multipart application/octet-stream; transfer-syntax={EXPLICIT_LE}"


@pytest.mark.parametrize(
    ("stored", "header", "expected"),
    [
        (BIG, "*/*", OCTETS),
        (IMPLICIT, f"{REL}application/octet-stream; transfer-syntax=*", OCTETS),
        (EXPLICIT_LE, f"{REL}application/octet-stream", OCTETS),
        (EXPLICIT_LE, "application/octet-stream", OCTETS.replace("multipart", "single")),
        (EXPLICIT_LE, f"{REL}image/jpeg", f"multipart image/jpeg; transfer-syntax={LOSSLESS}"),
        (EXPLICIT_LE, f"{REL}image/jls", f"multipart image/jls; transfer-syntax={JLS}"),
        # A frame has no place for the mark of a loss.
        (EXPLICIT_LE, f"{REL}image/jpeg; transfer-syntax={BASELINE}", None),
        (EXPLICIT_LE, f"{REL}application/octet-stream; transfer-syntax={IMPLICIT}", None),
        (J2K, f"{REL}application/octet-stream; transfer-syntax=*", f"multipart image/jp2; transfer-syntax={J2K}"),
        (J2K, f"{REL}application/octet-stream", OCTETS),
        (J2K, f"{REL}application/octet-stream; transfer-syntax={EXPLICIT_LE}", OCTETS),
        (J2K, f"{REL}image/jp2", f"multipart image/jp2; transfer-syntax={J2K}"),
        (J2K, f"{REL}image/jp2; transfer-syntax={J2K_LOSSLESS}", f"multipart image/jp2; transfer-syntax={J2K_LOSSLESS}"),
        (J2K, f"{REL}image/jp2; transfer-syntax={J2K}, {REL}application/octet-stream;q=0.9", f"multipart image/jp2; transfer-syntax={J2K}"),
        (BASELINE, "image/jpeg; transfer-syntax=*", f"single image/jpeg; transfer-syntax={BASELINE}"),
        (LOSSLESS, f"{REL}image/jpeg", f"multipart image/jpeg; transfer-syntax={LOSSLESS}"),
        ("1.2.840.10008.1.2.4.57", f"{REL}image/jpeg", f"multipart image/jpeg; transfer-syntax={LOSSLESS}"),
        (JLS, f"{REL}image/x-jls", f"multipart image/jls; transfer-syntax={JLS}"),
        (RLE, f"{REL}image/x-dicom-rle", f"multipart image/dicom-rle; transfer-syntax={RLE}"),
        (RLE, "*/*", f"multipart image/dicom-rle; transfer-syntax={RLE}"),
        (RLE, f"{REL}image/*; transfer-syntax=*", f"multipart image/dicom-rle; transfer-syntax={RLE}"),
        (JLS, f"{REL}image/jls;q=0, {REL}*/*", OCTETS),
    ],
)
def test_the_media_type_of_frames(stored: str, header: str, expected: str | None) -> None:
    assert _chosen(header, frame_offers(stored, True)) == expected


@pytest.mark.parametrize(
    ("own", "header", "expected"),
    [
        ("application/octet-stream", "*/*", f"single application/octet-stream; transfer-syntax={EXPLICIT_LE}"),
        ("application/octet-stream", f"{REL}application/octet-stream", OCTETS),
        ("application/pdf", "*/*", "single application/pdf"),
        ("application/pdf", f'{REL}"application/pdf", {REL}"application/octet-stream"', "multipart application/pdf"),
        ("application/pdf", "application/pdf", "single application/pdf"),
        ("application/pdf", f"{REL}application/octet-stream", OCTETS),
        ("application/octet-stream", "image/jpeg", None),
    ],
)
def test_the_media_type_of_bulk_data(own: str, header: str, expected: str | None) -> None:
    assert _chosen(header, bulk_offers(own)) == expected


@pytest.mark.parametrize("text", ["", "multipart", "a/b; =c", "a/b c", 'a/b; c="d', "a/b; c d"])
def test_a_malformed_content_type_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        parse_media_type(text)
