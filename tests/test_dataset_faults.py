"""A storm over a dataset in a small size: its whole size is `python -m benchmarks.dataset_faults`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.one_python

ROOT = Path(__file__).parents[1]


def test_through_a_storm_with_a_kill_a_dataset_becomes_whole_and_nothing_is_paid_twice_without_a_fault():
    words = ["--rows", "40", "--failing", "1", "--kills", "1", "--seed", "3", "--unopened"]
    command = [sys.executable, "-m", "benchmarks.dataset_faults", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(done.stdout)
    assert (figures["images"], figures["last exit code"]) == (160, 1)
    assert figures["kills"] == 1
    assert sum(figures["faults"].values()) > 10
