"""What a shell is offered, as bash asks for it."""

import subprocess
import sys
from pathlib import Path

import pytest

from runpod_comfy.cli import COMPLETE_VARIABLE
from runpod_comfy.cli.completions import ledger_rows
from runpod_comfy.cli.verbs import run_command
from runpod_comfy.profiles import Profile, store_profile
from runpod_comfy.settings import ledger_path

TEMPLATE = """{# runpod-comfy:
variables:
  sampler: {type: choice, default: euler, choices: [euler, dpmpp_2m]}
  steps: {type: int, default: 20}
#}
{"1": {"class_type": "A", "inputs": {"a": "{{ sampler }}", "b": {{ steps }}}}}"""


@pytest.fixture
def offered(folder, monkeypatch, capfd):
    """The words that are offered for the last of some words."""
    (folder / "t.json.jinja").write_text(TEMPLATE)
    (folder / "notes.txt").touch()

    def ask(*words):
        capfd.readouterr()
        asked = {"COMP_WORDS": " ".join(["runpod-comfy", *words]), "COMP_CWORD": str(len(words))}
        with monkeypatch.context() as patch:
            for name, value in {**asked, COMPLETE_VARIABLE: "bash_complete"}.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit):
                run_command([])
        return [line.partition(",")[2] for line in capfd.readouterr().out.splitlines() if line]

    return ask


def test_verbs_and_options_are_offered(offered):
    assert offered("do") == ["doctor"]
    assert "--endpoint" in offered("run", "--e")


@pytest.mark.parametrize("verb", ["run", "batch"])
def test_variables_of_the_template_in_the_line_and_their_choices_are_offered(verb, offered):
    assert offered(verb, "t.json.jinja", "--s")[-2:] == ["--sampler", "--steps"]
    assert offered(verb, "t.json.jinja", "--sampler", "d") == ["dpmpp_2m"]


def test_templates_are_offered_and_folders_left_to_the_shell(offered):
    assert offered("run", "t") == ["t.json.jinja"]
    assert offered("run", "portrait/w") == ["portrait/workflow.json.jinja"]
    assert offered("run", "por") == ["por"]
    assert offered("run", "absent/x") == []


def test_a_name_that_is_no_word_is_not_offered(offered, folder):
    (folder / "t\nx.json").touch()
    assert offered("run", "t") == ["t.json.jinja"]


def test_profiles_and_endpoints_are_offered(offered, tmp_path, monkeypatch):
    monkeypatch.setenv("RUNPOD_COMFY_CONFIG", str(tmp_path / "config.toml"))
    store_profile(Profile(name="work", endpoint="4m7x2k9q"))
    store_profile(Profile(name="home", comfyui="http://127.0.0.1:8188"))
    assert offered("run", "--profile", "w") == ["work"]
    assert offered("health", "--endpoint", "") == ["4m7x2k9q"]
    (tmp_path / "config.toml").write_text("broken [")
    assert offered("run", "--profile", "") == []


@pytest.mark.usefixtures("runpod_emulator")
def test_jobs_of_the_ledger_are_offered_and_no_ledger_is_made_for_it(offered, cli):
    assert offered("collect", "") == []
    assert not Path(ledger_path(ledger=True)).exists()
    made = cli("run", "portrait/workflow.json.jinja", "portrait/chelsea.jpg")
    assert made.code == 0
    [job] = offered("logs", "")
    assert len(job) > 30
    assert ledger_rows("DELETE FROM submissions RETURNING job_id, ''") == []  # it is open for reading alone
    assert offered("cancel", job[:4]) == [job]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell_is_written(shell, cli):
    done = cli("completion", shell)
    assert (done.code, f"{COMPLETE_VARIABLE}={shell}_complete" in done.out) == (0, True)


def test_an_unknown_shell_gets_the_nearest(cli):
    done = cli("completion", "bsh")
    assert (done.code, "Did you mean 'bash'?" in done.err) == (2, True)


def test_bash_completes_by_the_script(shell, cli, tmp_path):
    script = tmp_path / "c.bash"
    script.write_text(cli("completion", "bash").out)
    line = "COMP_WORDS=(runpod-comfy hea); COMP_CWORD=1; _runpod_comfy_completion runpod-comfy; echo ${COMPREPLY[@]}"
    out, err = shell(f"source {script}; {line}").communicate(timeout=60)
    assert out.split() == ["health"], err


def test_help_alone_imports_no_verb(folder):
    code = (
        "import sys; from runpod_comfy.cli.verbs import run_command; run_command(['--help']);"
        "print([m for m in sys.modules if m.startswith('runpod_comfy.cli.')], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, check=True, timeout=60
    )
    assert "runpod_comfy.cli.run" not in done.stderr
    assert "runpod_comfy.cli.options" not in done.stderr
