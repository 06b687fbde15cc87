import contextlib
import sqlite3
import stat
import subprocess
import sys
import threading
from dataclasses import replace

import pytest

from runpod_comfy import ConfigurationError, JobInUse, LedgerError
from runpod_comfy.dialects.numbered import Line
from runpod_comfy.ledger import MOST_RERUNS, Entry, Ledger, Recipe, SavedOutput, State, collectable


def entry(name="s1", **more):
    return Entry(submission_id=name, endpoint_id="e", base_url="http://r/v2", **more)


class Clock:
    def __init__(self):
        self.now_s = 1_000_000.0

    def __call__(self):
        return self.now_s


class Machines:
    """Several processes' ledgers of one file; a process is alive until it is said to be dead."""

    def __init__(self, path):
        self.path = path
        self.clock = Clock()
        self.dead = set()

    def process(self):
        return Ledger(self.path, clock=self.clock, alive=lambda holder, _: holder.holder_id not in self.dead)

    def kill(self, ledger):
        self.dead.add(ledger.holder.holder_id)


@pytest.fixture
def machines(tmp_path):
    return Machines(tmp_path / "ledger" / "jobs.sqlite")


@pytest.fixture
def ledger(machines):
    return machines.process()


def test_a_submission_is_there_as_it_was_written(ledger, machines):
    recipe = Recipe(template="/t.jinja", images=("/a.png",), variables={"prompt": "ä"}, withheld=("key",), batch_size=2)
    written = entry(seeds=(2**64 - 1, 0), batch_count=2, batches=(3, 4), parent_id="s0", digest="d", recipe=recipe)
    ledger.begin(written)
    found = machines.process().find("s1")
    assert found.entry == written
    assert (found.state, found.job_id, found.held_by is not None) == (State.SENDING, None, True)
    assert not found.entry.recipe.is_whole


def test_a_job_is_found_by_either_id(ledger):
    ledger.begin(entry())
    ledger.accepted("s1", "job-1")
    assert ledger.find("job-1") == ledger.find("s1")
    assert ledger.find("nope") is None


def test_the_order_is_that_of_submission_and_a_limit_keeps_the_newest(ledger, machines):
    for name in "abc":
        machines.clock.now_s += 1
        ledger.begin(entry(name))
    assert [each.submission_id for each in ledger.submissions()] == ["a", "b", "c"]
    assert [each.submission_id for each in ledger.submissions(limit=2)] == ["b", "c"]
    assert ledger.submissions([State.DONE]) == []
    assert ledger.submissions(endpoint_id="other") == []


@pytest.mark.parametrize("end", [State.DONE, State.FAILED, State.CANCELLED, State.TIMED_OUT, State.EXPIRED])
def test_an_end_is_final(ledger, end):
    ledger.begin(entry())
    ledger.accepted("s1", "job-1")
    ledger.now_is("s1", end, note="why")
    ledger.now_is("s1", State.IN_PROGRESS)
    ledger.now_is("s1", State.UNCERTAIN)
    ledger.accepted("s1", "job-2")
    assert (ledger.find("s1").state, ledger.find("s1").job_id, ledger.find("s1").note) == (end, "job-1", "why")


def test_what_was_lost_may_still_be_found(ledger):
    ledger.begin(entry())
    ledger.accepted("s1", "job-1")
    ledger.now_is("s1", State.INCOMPLETE)
    ledger.now_is("s1", State.DONE)
    assert ledger.find("s1").state is State.DONE


def test_a_submission_that_a_dead_process_was_sending_is_uncertain(ledger, machines):
    ledger.begin(entry())
    other = machines.process()
    assert other.recover() == []
    machines.kill(ledger)
    assert [each.submission_id for each in other.recover()] == ["s1"]
    assert other.find("s1").state is State.UNCERTAIN
    assert other.recover() == []


def test_a_job_has_one_reader(ledger, machines):
    ledger.begin(entry())
    ledger.accepted("s1", "job-1")
    other = machines.process()
    with pytest.raises(JobInUse, match=r"process \d+ on") as caught:
        other.acquire("s1")
    assert caught.value.job_id == "job-1"
    ledger.release("s1")
    other.acquire("s1")
    with pytest.raises(JobInUse):
        ledger.acquire("s1")


def test_a_dead_readers_job_can_be_read(ledger, machines):
    ledger.begin(entry())
    machines.kill(ledger)
    machines.process().acquire("s1")


def test_who_was_taken_over_is_told_at_its_next_step(ledger, machines):
    ledger.begin(entry())
    ledger.keep("s1", [Line(0, 0)])
    other = machines.process()
    other.acquire("s1", take_over=True)
    _, taken_over = ledger.keep("s1", [Line(1, 0)])
    assert "taken it over" in str(taken_over)
    ledger.release("s1")  # of somebody else's hold nothing changes
    assert other.keep("s1", [Line(2, 0)]) == ([], None)
    # What it had taken from the stream before it was told, nobody else can get.
    assert [line.seq for line in other.lines("s1")] == [0, 1, 2]


def test_a_lines_output_is_saved_once(ledger):
    ledger.begin(entry())
    saved = SavedOutput(name="a", sha256="x", size_bytes=1, line=4)
    assert ledger.keep("s1", [Line(4, 0)], [saved])[0] == [0]
    assert ledger.keep("s1", [Line(4, 0), Line(5, 0)], [saved, replace(saved, line=5)])[0] == [None, 1]
    assert len(ledger.outputs("s1")) == 2


def test_outputs_are_counted_once_they_have_their_name(ledger):
    ledger.begin(entry())
    outputs = [SavedOutput(line=n, name="a.png", sha256="x", size_bytes=3, part=f".{n}.part") for n in (0, 1)]
    ledger.keep("s1", [Line(0, 0), Line(1, 0)], outputs)
    assert ledger.find("s1").outputs == 0
    ledger.placed("s1", [(0, "/out/a.png")])
    assert ledger.find("s1").outputs == 1
    assert [(o.path, o.part) for o in ledger.outputs("s1")] == [("/out/a.png", None), (None, ".1.part")]
    assert ledger.owns("/out/a.png")
    ledger.lost("s1", 1)
    assert [o.number for o in ledger.outputs("s1")] == [0]
    assert [line.seq for line in ledger.lines("s1")] == [0]


def test_closing_lets_go_of_all_jobs(ledger, machines):
    ledger.begin(entry())
    ledger.close()
    machines.process().acquire("s1")


def test_what_ended_long_ago_is_forgotten_and_what_did_not_is_kept(ledger, machines):
    for name in ("old", "open"):
        ledger.begin(entry(name))
        ledger.accepted(name, f"job-{name}")
        ledger.keep(name, [Line(0, 0)], [SavedOutput(name="a", sha256="x", size_bytes=1)])
    ledger.now_is("old", State.DONE)
    machines.clock.now_s += 100 * 24 * 3600
    again = machines.process()
    assert [each.submission_id for each in again.submissions()] == ["open"]
    assert (again.lines("old"), again.outputs("old")) == ([], [])
    assert again.lines("open") != []


def test_reruns_name_their_first(ledger):
    ledger.begin(entry("a"))
    ledger.begin(entry("b", parent_id="a", batches=(1,)))
    assert [each.submission_id for each in ledger.reruns_of("a")] == ["b"]


def test_what_a_reader_that_was_taken_over_saves_late_is_not_kept_where_it_is_being_made_again(machines):
    first, second = machines.process(), machines.process()
    first.begin(entry("a", batch_count=2))
    first.accepted("a", "job-a")
    second.acquire("a", take_over=True)
    second.begin(entry("b", parent_id="a", batches=(1,)))
    late = [SavedOutput(name=f"{n}.png", sha256=str(n), size_bytes=1, batch=n, line=n) for n in (0, 1)]
    numbers, taken_over = first.keep("a", [Line(0, 0), Line(1, 1)], late)
    assert numbers == [0, None]
    assert isinstance(taken_over, JobInUse)
    assert [each.name for each in second.outputs("a")] == ["0.png"]


def lost(ledger, name, parent_id=None):
    ledger.begin(entry(name, parent_id=parent_id, batches=None if parent_id is None else (0,)))
    ledger.accepted(name, f"job-{name}")
    ledger.now_is(name, State.INCOMPLETE)


def test_a_loss_is_collected_by_its_newest_try_until_it_was_tried_often(ledger, machines):
    lost(ledger, "first")
    assert [row.submission_id for row in collectable(ledger)] == ["first"]
    for number in range(1, MOST_RERUNS):
        machines.clock.now_s += 1
        lost(ledger, f"again-{number}", parent_id="first")
        assert [row.submission_id for row in collectable(ledger)] == [f"again-{number}"]
    machines.clock.now_s += 1
    lost(ledger, "the last", parent_id="first")
    assert collectable(ledger) == []


def test_a_loss_that_a_later_try_made_good_is_not_collected(ledger, machines):
    lost(ledger, "first")
    for name, state in (("again-1", State.INCOMPLETE), ("again-2", State.DONE)):
        machines.clock.now_s += 1
        ledger.begin(entry(name, parent_id="first", batches=(0,)))
        ledger.accepted(name, f"job-{name}")
        ledger.now_is(name, state)
    assert collectable(ledger) == []


def test_a_try_that_was_refused_is_none(ledger):
    lost(ledger, "first")
    ledger.begin(entry("again", parent_id="first", batches=(0,)))
    ledger.now_is("again", State.REFUSED)
    assert [row.submission_id for row in collectable(ledger)] == ["first"]


def test_the_newest_try_is_the_last_one_also_where_the_clock_was_set_back(ledger, machines):
    lost(ledger, "first")
    for name in ("again-1", "again-2"):
        machines.clock.now_s -= 3600
        lost(ledger, name, parent_id="first")
    assert [row.submission_id for row in collectable(ledger)] == ["again-2"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names of files are always text")
def test_a_name_that_is_no_text_is_an_error_of_ours(ledger):
    with pytest.raises(LedgerError, match="UTF-8"):
        ledger.begin(entry(output_dir="/out/\udcff"))
    assert ledger.submissions() == []


def test_a_batchs_time_is_the_longest_of_late(ledger):
    for name, gpu_s in (("a", 10.0), ("b", 30.0)):
        ledger.begin(entry(name, batch_count=2, template_name="t"))
        ledger.accepted(name, name)
        ledger.now_is(name, State.DONE, gpu_s=gpu_s)
    assert ledger.batch_seconds("e", "t") == 15.0
    assert ledger.batch_seconds("e", "another") is None


def test_many_threads_and_processes_write_at_once(machines):
    ledgers = [machines.process() for _ in range(4)]

    def write(ledger, number):
        for index in range(25):
            name = f"{number}-{index}"
            ledger.begin(entry(name))
            ledger.accepted(name, f"job-{name}")
            ledger.beat()

    threads = [threading.Thread(target=write, args=(ledgers[n % 4], n)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ledgers[0].submissions([State.IN_QUEUE])) == 200


def test_only_the_owner_may_read_the_file(ledger):
    assert stat.S_IMODE(ledger.path.stat().st_mode) == 0o600


FORKING = """
import os, sys
from runpod_comfy.ledger import Entry, Ledger
ledger = Ledger(sys.argv[1])
ledger.begin(Entry(submission_id="a", endpoint_id="e", base_url="b"))
child = os.fork()
if child == 0:
    ledger.begin(Entry(submission_id="b", endpoint_id="e", base_url="b"))
    os._exit(0)
os.waitpid(child, 0)
ledger.begin(Entry(submission_id="c", endpoint_id="e", base_url="b"))
"""


def test_a_forked_process_writes_under_its_own_name(tmp_path):
    subprocess.run([sys.executable, "-c", FORKING, tmp_path / "jobs.sqlite"], check=True)
    with contextlib.closing(sqlite3.connect(tmp_path / "jobs.sqlite")) as db, db:
        holders = dict(db.execute("SELECT submission_id, holder_id FROM submissions"))
    assert holders["a"] == holders["c"] != holders["b"]


# -- when the file cannot be used --------------------------------------------------------------------------------------


def test_a_file_that_is_no_ledger_is_refused_with_what_to_do(tmp_path):
    path = tmp_path / "jobs.sqlite"
    path.write_bytes(b"this is no database, and long enough to be one" * 100)
    with pytest.raises(ConfigurationError, match=r"jobs\.sqlite.*ledger="):
        Ledger(path)
    assert path.read_bytes().startswith(b"this is no database")


def test_a_path_that_cannot_be_one_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot be used"):
        Ledger(tmp_path / "a\0b")


def test_a_folder_in_place_of_the_file_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="Nothing was sent"):
        Ledger(tmp_path)


def test_a_newer_versions_file_is_left_alone(ledger):
    with contextlib.closing(sqlite3.connect(ledger.path)) as db, db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(ConfigurationError, match="newer version"):
        Ledger(ledger.path)


def test_a_file_that_breaks_while_in_use_is_an_error_of_ours(ledger):
    with contextlib.closing(sqlite3.connect(ledger.path)) as db, db:
        db.execute("DROP TABLE lines")
    with pytest.raises(LedgerError, match="could not be read"):
        ledger.lines("s1")
    ledger.begin(entry())
    with pytest.raises(LedgerError, match="could not be written"):
        ledger.keep("s1", [Line(0, 0)])
    assert ledger.find("s1").state is State.SENDING
