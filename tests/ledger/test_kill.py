"""A process that writes to the ledger is killed at random moments; whatever it said was done is there."""

import contextlib
import random
import signal
import sqlite3
import subprocess
import sys
import time

from runpod_comfy.ledger import Ledger, State

WRITER = """
import sys
from runpod_comfy.dialects.numbered import Line
from runpod_comfy.ledger import Entry, Ledger, SavedOutput, State
ledger = Ledger(sys.argv[1])
for n in range(int(sys.argv[2]), 10**9):
    name = f"s{n}"
    def say(step):
        print(n, step, flush=True)
    ledger.begin(Entry(submission_id=name, endpoint_id="e", base_url="b", seeds=(n,)))
    say("begun")
    ledger.accepted(name, f"job-{n}")
    say("accepted")
    ledger.keep(name, [Line(0, 0), Line(1, 0, True)], [SavedOutput(name="a", sha256="x", size_bytes=1)])
    say("kept")
    ledger.now_is(name, State.DONE)
    say("done")
"""
ORDER = ["begun", "accepted", "kept", "done"]


def test_whatever_was_said_to_be_written_survives_a_kill(tmp_path):
    path = tmp_path / "jobs.sqlite"
    rng = random.Random(5)
    said = {}
    for turn in range(6):
        # Numbers of its own: the one before may have been killed between a step and its word.
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(turn * 100_000)], stdout=subprocess.PIPE, text=True
        )
        first = writer.stdout.readline()
        time.sleep(rng.random() / 10)
        writer.send_signal(signal.SIGKILL)
        for line in [first, *writer.communicate()[0].splitlines()]:
            number, _, step = line.partition(" ")
            if step.strip() in ORDER:
                said[int(number)] = step.strip()
    assert len(said) > 10
    ledger = Ledger(path)
    uncertain = {each.submission_id for each in ledger.recover()}
    for number, step in said.items():
        row = ledger.find(f"s{number}")
        assert row.held_by is None
        if step == "begun":
            assert row.state in {State.UNCERTAIN, State.IN_QUEUE}
            assert (row.state is State.UNCERTAIN) == (row.submission_id in uncertain)
        if ORDER.index(step) >= ORDER.index("accepted"):
            assert row.job_id == f"job-{number}"
        if ORDER.index(step) >= ORDER.index("kept"):
            assert len(ledger.lines(row.submission_id)) == 2
            assert len(ledger.outputs(row.submission_id)) == 1
        if step == "done":
            assert row.state is State.DONE
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
