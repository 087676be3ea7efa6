"""A disk that is really full: a small tmpfs in a mount namespace of the test's own, filled to its last byte.

Ledger, journal, decision records and replacements, each in turn: what cannot be kept is refused with what to do, what
was kept is there, and with room again it goes on.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

INSIDE = """
import json, os, sys
from pathlib import Path
from zoneinfo import ZoneInfo

from test_records import record  # of tests/controllers/scale

from controllers.budget.ledger import Ledger
from controllers.budget.schema import LedgerError
from controllers.budget.transitions import GRANTED
from controllers.budget.words import MICRO, Cost, Scope
from controllers.recovery.book import Entry, Kind
from controllers.recovery.journal import Alert, JournalError, open_journal, read_journal
from controllers.scale.records import RecordError, Records, read
from controllers.scale.replacements import Replacement, ReplacementError, Replacements

NOW = 1_795_000_000.0
disk, said = Path(sys.argv[1]), {}

def fill(spare=0):
    with open(disk / "filler", "wb", buffering=0) as file:
        try:
            while file.write(b"x" * 4096):
                pass
        except OSError:
            file.truncate(file.tell() - spare)

def empty():
    (disk / "filler").unlink()

def tried(work):
    try:
        return work()
    except (LedgerError, JournalError, RecordError, ReplacementError) as error:
        return f"{getattr(error, 'kind', getattr(error, 'trouble', ''))}: {error}"

# the ledger: held until nothing fits any more
ledger, held = Ledger(disk / "ledger.sqlite", "KRW", ZoneInfo("Asia/Seoul")), 0
def hold(event):
    ledger.hold(event, event, Scope("p"), Cost(MICRO), 900, NOW, lambda standing: GRANTED)
fill(400_000)
while (answer := tried(lambda: hold(f"e{held}"))) is None:
    held += 1
said["ledger"] = [answer, tried(lambda: ledger.settle("e0", "s", Cost(MICRO), NOW))]
said["ledger"] += [held > 5, ledger.standing(NOW).held == held * MICRO]  # answered all the same
empty()
hold("after")
ledger.close()
ledger = Ledger(disk / "ledger.sqlite", "KRW", ZoneInfo("Asia/Seoul"))  # checks the file and its totals
said["ledger"] += [ledger.standing(NOW).held == (held + 1) * MICRO]
ledger.close()

# the journal: entries and deliveries until nothing fits any more, neither of them half
journal = open_journal(disk / "journal.db", NOW)
def decide(number):
    body = {"next": "wait", "reasons": [], "detail": "x" * 500}
    journal.write(Entry(Kind.DECIDED, NOW + number, "workers", "w1", body=body))
def deliver(number):
    return journal.deliver([Alert(f"{number:x}" + "0" * 500, "t", "firing", "workers", "Hung", "w1")], NOW)
fill(65536)
written = 0
while (answer := tried(lambda: decide(written))) is None:
    written += 1
    assert written < 10_000
delivered = 0
while tried(lambda: deliver(delivered)) == 1:
    delivered += 1
    assert delivered < 2_000
said["journal"] = [answer, tried(lambda: deliver(9_999)), written]
empty()
decide(written)
# one that was refused may be there all the same, where only moving it from the log into the file itself failed
said["journal"] += [deliver(9_999), len(read_journal(disk / "journal.db")[0]) - written in (2, 3)]
journal.close()

# decision records
records = Records(disk / "records", 0)
records.write(record())
fill(8192)
kept = 1
while (answer := tried(lambda: records.write(record()))) is True:
    kept += 1
empty()
records.write(record())
said["records"] = [answer, len(list(read(disk / "records"))) == kept + 1]

# what the scaler was asked to replace
book = Replacements(disk / "replacements.json")
fill()
one = Replacement("default/video", "w1", "a/replace/1", NOW, NOW + 600)
said["replacements"] = [tried(lambda: book.accept(one)), book.find("a/replace/1") is None]
empty()
said["replacements"] += [book.accept(one) == one, Replacements(disk / "replacements.json").find(one.operation) == one]
print(json.dumps(said))
"""


def test_a_disk_that_fills_up_refuses_with_what_to_do_and_loses_nothing(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = 'mount -t tmpfs -o size=1m tidewise "$1" || exit 77; exec "$2" -c "$3" "$1"'
    paths = os.pathsep.join((str(ROOT), str(ROOT / "tests" / "controllers" / "scale")))
    try:
        done = subprocess.run(
            ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh", disk, sys.executable, INSIDE],
            capture_output=True, text=True, timeout=120, env={**os.environ, "PYTHONPATH": paths},
        )  # fmt: skip
    except FileNotFoundError:
        pytest.skip("no unshare: a disk cannot be filled without filling the machine's")
    if done.returncode == 77 or done.stderr.startswith("unshare:"):
        pytest.skip("no mount namespaces here: a disk cannot be filled without filling the machine's")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    hold, settle, *whole = said["ledger"]
    assert hold.startswith("full: ")
    assert hold.endswith("make room on the disk")
    assert (settle, whole) == (hold, [True, True, True])
    entry, delivery, written, *after = said["journal"]
    assert written > 0
    assert entry.startswith("full: ")
    assert entry.endswith("the disk is full; make room")
    assert (delivery, after) == (entry, [1, True])
    record, kept = said["records"]
    assert record.endswith("the decision record could not be written (No space left on device)")
    assert kept
    accept, *after = said["replacements"]
    assert accept.endswith("cannot be written (No space left on device); make room or correct its permissions")
    assert after == [True, True, True]
