"""Codes that scripts go by: one registry, compared with everything that can report one."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from runpod_comfy import errors
from runpod_comfy.cli import failures
from runpod_comfy.cli.failures import describe
from runpod_comfy.error_codes import CODES
from runpod_comfy.serverless.exchange import NotSent

CLI = Path(failures.__file__).parent


def codes_of_the_command():
    """Every code that the command's sources report themselves: `failure("code", …)` and `code = "…"`."""
    found = set()
    for file in CLI.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            match node:
                case ast.Call(func=ast.Name(id="failure"), args=[ast.Constant(value=str(code)), *_]):
                    found.add(code)
                case ast.Assign(targets=[ast.Name(id="code")], value=ast.Constant(value=str(code))):
                    found.add(code)
    return found


def test_every_error_of_the_tree_has_a_code_and_every_code_of_an_error_a_class():
    of_classes = {getattr(errors, name)("text").code: name for name in errors.__all__}
    assert of_classes == {code: each.error for code, each in CODES.items() if each.error}


def test_every_code_of_the_command_is_in_the_registry_and_no_other_is():
    of_the_command = {code for code, each in CODES.items() if not each.error}
    assert of_the_command <= codes_of_the_command() <= set(CODES)


def test_there_are_at_most_forty_and_each_says_what_to_do():
    assert len(CODES) <= 40
    assert all(each.means.endswith(".") and each.next_step.endswith(".") for each in CODES.values())
    assert {each.paid for each in CODES.values()} == {"no", "yes", "maybe"}


@pytest.mark.parametrize("name", errors.__all__)
def test_the_exit_code_is_the_registrys(name):
    error = getattr(errors, name)("text")
    assert describe(error).exit_code == CODES[error.code].exit_code


def test_a_class_that_users_do_not_know_goes_by_the_one_they_do():
    assert NotSent("text").code == "transport_error"


def test_the_registry_can_be_read_by_other_programs():
    done = subprocess.run(
        [sys.executable, "-m", "runpod_comfy.error_codes"], capture_output=True, check=True, timeout=60
    )
    assert [each["code"] for each in json.loads(done.stdout)] == list(CODES)
