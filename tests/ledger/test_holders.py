import dataclasses
import json
import os
import subprocess
import sys

import pytest

from runpod_comfy.ledger.holders import SILENT_S, Holder, is_alive, this_process

NOW_S = 1_000_000.0


def test_this_process_is_alive_however_long_it_was_silent():
    assert is_alive(this_process(NOW_S), NOW_S + 1000 * SILENT_S)


def test_each_hold_is_another():
    assert this_process(NOW_S).holder_id != this_process(NOW_S).holder_id


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells when a process started")
def test_a_process_that_was_given_a_dead_ones_id_is_not_taken_for_it():
    assert not is_alive(dataclasses.replace(this_process(NOW_S), born="1"), NOW_S)


def test_a_process_that_has_ended_is_dead_at_once():
    program = "from runpod_comfy.ledger.holders import this_process; import dataclasses, json;"
    program += "print(json.dumps(dataclasses.asdict(this_process(1_000_000.0))))"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, env=os.environ)
    assert not is_alive(Holder(**json.loads(ended.stdout)), NOW_S)


def test_on_another_machine_only_the_sign_of_life_counts():
    elsewhere = dataclasses.replace(this_process(NOW_S), place="another machine")
    assert is_alive(elsewhere, NOW_S + SILENT_S - 1)
    assert not is_alive(elsewhere, NOW_S + SILENT_S + 1)


def test_a_clock_that_was_set_back_keeps_no_hold_for_ever():
    elsewhere = dataclasses.replace(this_process(NOW_S), place="another machine")
    assert not is_alive(elsewhere, NOW_S - 10 * SILENT_S)
