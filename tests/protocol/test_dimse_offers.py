"""What is offered to receivers of a C-MOVE, and sent to them, when they take few transfer syntaxes or have preferences."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pynetdicom import AE, evt

from pacslite.catalog.peers import Peer as KnownPeer
from pacslite.codec.encoders import encode_frame
from pacslite.codec.pixels import PixelDescription, decode_frame
from pacslite.core import peers
from pacslite.core.retrieve import Item
from pacslite.dicom.part10 import encode_preamble_and_meta
from pacslite.dicom.syntaxes import HTJ2K, JPEG_2000, JPEG_BASELINE, JPEG_LOSSLESS_SV1, JPEG_LS, REVERSIBLE, RLE
from pacslite.dimse.delivery import offer_for
from tests.support.data_sets import image
from tests.support.dimse import CT, EXPLICIT_LE, IMPLICIT_LE, SECONDARY_CAPTURE, STUDY_ROOT_MOVE, Listener
from tests.support.retrieval import Outcome, converse, keep, keys, move_rq, retrieving

RAMP = (np.arange(40 * 60, dtype=np.uint16).reshape(40, 60) * 7) % 4096
GREY = PixelDescription(40, 60, 16, 12)


@pytest.fixture(scope="module")
def listener(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listener]:
    with retrieving(tmp_path_factory.mktemp("offers")) as running:
        for study, syntax in (("1.2.1", EXPLICIT_LE), ("1.2.2", RLE)):
            frame = [] if syntax == EXPLICIT_LE else [encode_frame(RAMP, "MONOCHROME2", GREY, syntax).data]
            ds = image(RAMP[None], compressed=frame, study=study, series=f"{study}.1", instance=f"{study}.1.1")
            ds.BitsStored, ds.HighBit = 12, 11
            keep(running.pacs, ds, syntax)
        yield running


@contextmanager
def receiving(syntaxes: Sequence[str]) -> Iterator[tuple[int, list[tuple[str, bytes]]]]:
    """A pynetdicom receiver that takes these; its port, and transfer syntax and data set of what comes."""
    came: list[tuple[str, bytes]] = []
    entity = AE("RECEIVER")
    entity.add_supported_context(SECONDARY_CAPTURE, list(syntaxes))

    def remember(event: evt.Event) -> int:
        came.append((str(event.context.transfer_syntax), event.request.DataSet.getvalue()))
        return 0

    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, remember)])
    try:
        yield server.server_address[1], came
    finally:
        server.shutdown()


def moved(listener: Listener, study: str, port: int, preferred: tuple[str, ...] = ()) -> Outcome:
    peers.put(listener.pacs.catalog, KnownPeer("RECEIVER", "127.0.0.1", port, transfer_syntaxes=preferred))
    with listener.peer() as peer:
        peer.associate(((STUDY_ROOT_MOVE, (EXPLICIT_LE,)),))
        peer.request(1, move_rq("RECEIVER", STUDY_ROOT_MOVE), keys("STUDY", study=study))
        outcome = converse(peer)
        peer.release()
    return outcome


def pixels(syntax: str, data: bytes) -> np.ndarray:
    ds: Dataset = dcmread(io.BytesIO(encode_preamble_and_meta(SECONDARY_CAPTURE, "1.2.3", syntax) + data))
    if syntax not in REVERSIBLE:
        return ds.pixel_array
    return decode_frame(next(generate_frames(ds.PixelData, number_of_frames=1)), GREY, syntax).array


@pytest.mark.parametrize("study", ["1.2.1", "1.2.2"], ids=["native", "RLE"])
@pytest.mark.parametrize("syntax", [JPEG_LOSSLESS_SV1, IMPLICIT_LE])
def test_a_receiver_that_takes_one_transfer_syntax_gets_everything_in_it_when_nothing_is_lost(
    listener: Listener, study: str, syntax: str
) -> None:
    with receiving([syntax]) as (port, came):
        outcome = moved(listener, study, port)
    assert (outcome.status, outcome.counts) == (0, (None, 1, 0, 0))
    ((used, data),) = came
    assert used == syntax
    assert np.array_equal(pixels(used, data), RAMP)


@pytest.mark.parametrize("syntax", [JPEG_BASELINE, JPEG_2000, HTJ2K])
def test_a_receiver_that_takes_only_what_loses_gets_nothing(listener: Listener, syntax: str) -> None:
    """Checklist 125, 126: it would be another instance (PS3.3 C.7.6.1.1.5); A702H, and which one failed."""
    with receiving([syntax]) as (port, came):
        outcome = moved(listener, "1.2.1", port)
    assert (outcome.status, outcome.counts, came) == (0xA702, (None, 0, 1, 0), [])
    assert b"1.2.1.1.1" in outcome.identifier


def test_the_compressed_transfer_syntax_that_a_peer_prefers_is_offered_and_sent(listener: Listener) -> None:
    with receiving([EXPLICIT_LE, JPEG_LS]) as (port, came):
        assert moved(listener, "1.2.1", port).status == 0
        assert moved(listener, "1.2.1", port, preferred=(JPEG_LS,)).status == 0
    assert [used for used, _ in came] == [EXPLICIT_LE, JPEG_LS]
    assert np.array_equal(pixels(*came[1]), RAMP)


def test_the_last_resort_is_one_context_a_class_and_only_where_there_is_room() -> None:
    def items(count: int) -> list[Item]:
        return [Item("1.2", "1.3", f"1.4.{n}", f"{CT}.{n}", EXPLICIT_LE, 1, 1, "key", "filesystem", 1, "") for n in range(count)]

    (*_, (sop_class, syntaxes)) = offer_for(items(1))
    assert (sop_class, len(offer_for(items(1)))) == (f"{CT}.0", 3)
    assert syntaxes > ()
    assert not {JPEG_BASELINE, JPEG_2000, HTJ2K, EXPLICIT_LE, IMPLICIT_LE} & set(syntaxes)
    assert [len(offer_for(items(count))) for count in (42, 43, 64)] == [126, 128, 128]
