"""The soak in a small size: its whole size is `python -m benchmarks.soak`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.one_python

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("mode", ["--stream-only", "--aggregate"])
def test_through_a_storm_with_a_killed_client_nothing_is_lost_and_nothing_sent_twice(mode):
    command = [sys.executable, "-m", "benchmarks.soak", "--jobs", "60", "--kills", "3", "--seed", "3", mode]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(done.stdout.splitlines()[0])
    assert figures["jobs"] == 60
    assert figures["kills"] >= 1
    assert sum(figures["faults"].values()) > 10
