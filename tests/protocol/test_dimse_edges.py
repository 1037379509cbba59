"""DIMSE where two things meet: IPv6, and bytes that are erased while their study is being retrieved."""

from __future__ import annotations

from pathlib import Path

from pacslite import app
from pacslite.catalog.peers import Peer as KnownPeer
from pacslite.dimse import peers
from pacslite.settings import Address, Settings
from tests.support.dimse import EXPLICIT_LE, SECONDARY_CAPTURE, STUDY_ROOT_GET, listening
from tests.support.retrieval import converse, failed_uids, get_rq, keep_images, keys, receives, retrieving


def test_the_listener_and_its_peers_may_have_ipv6_addresses(tmp_path: Path) -> None:
    pacs = app.build(Settings(data=tmp_path, dicom=Address("::1", 0)))
    pacs.catalog.migrate()
    try:
        with listening(pacs) as listener:
            assert listener.address.host == "::1"
            assert peers.echo(KnownPeer("PACSLITE", "::1", listener.address.port), "TESTER") >= 0
    finally:
        pacs.close()


def test_what_is_erased_during_a_retrieval_has_failed_and_the_association_goes_on(tmp_path: Path) -> None:
    """Checklist 126, 128: the instance whose turn comes after its bytes are gone; what is on its way arrives."""
    with retrieving(tmp_path) as listener:
        keep_images(listener.pacs, 4, "1.2.7")

        def erase(number: int) -> None:
            if number == 1:
                for file in (tmp_path / "storage").rglob("*.dcm"):
                    file.unlink()

        with listener.peer() as peer:
            peer.associate([(STUDY_ROOT_GET, (EXPLICIT_LE,)), (SECONDARY_CAPTURE, (EXPLICIT_LE,))], user=receives(SECONDARY_CAPTURE))
            peer.request(1, get_rq(), keys("STUDY", study="1.2.7"))
            outcome = converse(peer, before=erase)
            failed = failed_uids(outcome.identifier)
            assert outcome.status == 0xB000
            assert failed
            assert len(outcome.stored) + len(failed) == 4
            assert not set(outcome.stored) & set(failed)
            assert outcome.counts == (None, len(outcome.stored), len(failed), 0)
            peer.release()
