"""A failure of power loses nothing that was acknowledged: small and large instances, in old series and new studies, and files."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import pytest

from pacslite import cli
from tests.conftest import full
from tests.e2e import test_kill_files as files
from tests.e2e.test_kill import Instances, Sender, Sent, assert_whole, by_c_store, by_stow
from tests.support.kills import sending
from tests.support.power import Disk, disk
from tests.support.processes import Server, serving, start, until

ROUNDS = 20 if full() else 2
SMALL, MIDDLE, LARGE = 8 * 1024, 128 * 1024, 512 * 1024


@pytest.fixture
def failing(tmp_path: Path) -> Iterator[Disk]:
    with disk(tmp_path) as made:
        yield made


Seen = TypeVar("Seen")


def _fail(server: Server, failing: Disk, senders: Sequence[files.Client | Sender], after_s: float, seen: Callable[[], Seen]) -> Seen:
    """What `seen` tells, which is what was acknowledged, when the power failed.

    While the file system stops, which takes some milliseconds, a sync that is under way may end without an error.
    """
    with sending(senders):
        try:
            until(lambda: all(sender.has_succeeded for sender in senders), 60, "the first success of each sender")
            threading.Event().wait(after_s)
            acknowledged = seen()
            failing.fail()
        finally:
            for sender in senders:
                sender.left = 0
            server.kill()
    assert server.process.stdout is not None
    server.process.stdout.close()
    failing.come_back()
    return acknowledged


@pytest.mark.parametrize("ahead", ["65536", pytest.param("0", marks=pytest.mark.full)])
def test_what_was_acknowledged_survives_failures_of_power(
    failing: Disk, ahead: str, record_property: Callable[[str, object], None]
) -> None:
    seed = int(os.environ.get("PACSLITE_TEST_SEED", "3"))
    choice, data = random.Random(seed), failing.point / "data"
    kinds = [
        Instances(seed + number, size, apart=apart)
        for number, (size, apart) in enumerate([(SMALL, False), (SMALL, True), (MIDDLE, True), (LARGE, False), (LARGE, True)])
    ]
    acknowledged: dict[str, Sent] = {}
    for number in range(ROUNDS):
        server = start(data, "--dimse-processes", "2", "--web-processes", "1", PACSLITE_WRITE_AHEAD_BYTES=ahead)
        senders = [Sender(store(server), kind) for kind in kinds for store in (by_c_store, by_stow)]
        told = [sender.acknowledged for sender in senders]
        now = _fail(
            server, failing, senders, choice.uniform(0.1, 3), lambda told=told: {u: s for one in told for u, s in dict(one).items()}
        )
        acknowledged |= now
        with serving(data, "--dimse-processes", "1", "--web-processes", "1") as server:
            assert_whole(server, now if number < ROUNDS - 1 else acknowledged)
            assert cli.run(["verify", "--deep", "--data", str(data)]) == 0, f"round {number}"
    record_property("acknowledged", len(acknowledged))


def test_files_that_were_answered_survive_failures_of_power(failing: Disk) -> None:
    seed = int(os.environ.get("PACSLITE_TEST_SEED", "3"))
    choice, pictures, data = random.Random(seed), files.Pictures(seed), failing.point / "data"
    kept = files.Told()
    with serving(data, *files.OPTIONS, **files.SETTINGS) as server:
        patient = files.new_patient(server)
    for _ in range(ROUNDS):
        told = files.Told(dict(kept.contents), dict(kept.erased))
        server = start(data, *files.OPTIONS, **files.SETTINGS)
        clients = [files.Client(server, patient, pictures, told, random.Random(choice.random())) for _ in range(files.CLIENTS)]
        kept = _fail(server, failing, clients, choice.uniform(0.1, 3), told.copy)
        kept.erased |= dict.fromkeys(told.erased.keys() - kept.erased.keys(), False)  # asked for as the power failed
        with serving(data, *files.OPTIONS, **files.SETTINGS) as server:
            files.assert_whole(server, kept.contents, kept)
            assert cli.run(["verify", "--deep", "--data", str(data)]) == 0
            files.assert_agrees(data)
            files.assert_listed_is_there(server, patient)
