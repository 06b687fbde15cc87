"""What holds for all verbs."""

import subprocess
import sys
import textwrap

import pytest

from runpod_comfy import __version__
from runpod_comfy.cli.verbs import _VERBS


def test_without_a_verb_the_next_commands_are_shown(cli):
    done = cli()
    assert done.code == 0
    assert done.out.count("runpod-comfy ") >= 3


def test_the_list_of_verbs_imports_none_of_them(cli):
    done = cli("--help")
    assert all(verb in done.out for verb in _VERBS)


@pytest.mark.parametrize(("typed", "meant"), [("rum", "run"), ("exmple", "example")])
def test_a_misspelt_verb_gets_the_nearest(typed, meant, cli):
    done = cli(typed)
    assert done.code == 2
    assert f"Did you mean {meant!r}" in done.err


def test_the_version_is_the_packages(cli):

    assert __version__ in cli("--version").out


def test_the_example_is_written_once_and_left_alone_afterwards(cli):
    first = cli("example", "here")
    assert {line.rpartition("/")[2] for line in first.lines} >= {"workflow.json.jinja", "astronaut.jpg", "chelsea.jpg"}
    template = first.folder / "here" / "portrait" / "workflow.json.jinja"
    template.write_text("mine")
    again = cli("example", "here")
    assert template.read_text() == "mine"
    assert "is left as it is" in again.err


@pytest.mark.parametrize("module", ["click", "runpod_comfy.cli.verbs", "runpod_comfy.cli.run", "jinja2"])
def test_ctrl_c_while_a_module_is_imported_is_one_line(module, folder):
    script = f"""
        import os, signal, sys
        class Interrupt:
            def find_spec(self, name, path=None, target=None):
                if name == {module!r}:
                    os.kill(os.getpid(), signal.SIGINT)
        sys.meta_path.insert(0, Interrupt())
        from runpod_comfy.cli import main
        main(["run", "portrait/workflow.json.jinja"])
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr.strip()) == (130, "", "Error: Interrupted.")


def test_the_emulator_serves_any_client_until_it_is_interrupted(shell):
    process = shell("exec runpod-comfy emulator --port 0")
    exports = dict(process.stdout.readline().strip().removeprefix("export ").split("=", 1) for _ in range(3))
    client = shell("runpod-comfy run portrait/workflow.json.jinja portrait/chelsea.jpg -n 2", env=exports)
    out, err = client.communicate(timeout=60)
    assert client.returncode == 0, err
    assert len(out.splitlines()) == 2
    process.terminate()
    _, log = process.communicate(timeout=20)
    assert "COMPLETED" in log
    assert "Traceback" not in log
