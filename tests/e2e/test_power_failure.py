"""A failure of power loses nothing that was acknowledged: neither small instances nor large ones, in old series and in new studies."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pacslite import cli
from tests.conftest import full
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


def _another_start(data: Path) -> None:
    """This kernel goes on; the record of its start is not that of the machine that comes up."""
    (data / "run" / "boot").unlink(missing_ok=True)


def _fail(server: Server, failing: Disk, senders: list[Sender], after_s: float) -> dict[str, Sent]:
    """What was acknowledged when the power failed.

    While the file system stops, which takes some milliseconds, a sync that is under way may end without an error.
    """
    with sending(senders):
        until(lambda: all(sender.has_succeeded for sender in senders), 60, "the first success of each sender")
        threading.Event().wait(after_s)
        acknowledged = {uid: sent for sender in senders for uid, sent in dict(sender.acknowledged).items()}
        failing.fail()
        for sender in senders:
            sender.left = 0
        server.kill()
    assert server.process.stdout is not None
    server.process.stdout.close()
    return acknowledged


@pytest.mark.parametrize("ahead", ["65536", "0"])
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
        now = _fail(server, failing, senders, choice.uniform(0.1, 3))
        acknowledged |= now
        failing.come_back()
        _another_start(data)
        with serving(data, "--dimse-processes", "1", "--web-processes", "1") as server:
            assert_whole(server, now if number < ROUNDS - 1 else acknowledged)
            assert cli.run(["verify", "--deep", "--data", str(data)]) == 0, f"round {number}"
    record_property("acknowledged", len(acknowledged))
