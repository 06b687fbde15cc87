import subprocess
import sys
import textwrap
import types
from pathlib import Path

import pytest

from runpod_comfy.errors import ConfigurationError
from runpod_comfy.settings import DEFAULT_BASE_URL, EndpointSettings, WorkerSettings, comfyui_url, shown_url

KEY = "rpa_SECRET123"


@pytest.fixture
def env(tmp_path):
    return {"HOME": str(tmp_path), "RUNPOD_API_KEY": KEY, "RUNPOD_ENDPOINT_ID": "abc123"}


@pytest.fixture
def runpod_module(monkeypatch):
    module = types.ModuleType("runpod")
    module.api_key = None
    monkeypatch.setitem(sys.modules, "runpod", module)
    return module


def store(env, key):
    file = Path(env["HOME"], ".runpod", "config.toml")
    file.parent.mkdir()
    file.write_text(f'[default]\napi_key = "{key}"\n', encoding="utf-8")


def test_the_environment_is_enough(env):
    settings = EndpointSettings.resolve(environ=env)
    assert (settings.endpoint_id, settings.api_key, settings.base_url) == ("abc123", KEY, DEFAULT_BASE_URL)


def test_arguments_win_over_the_environment(env):
    settings = EndpointSettings.resolve(endpoint="xyz", api_key="other", base_url="http://127.0.0.1:1/v2/", environ=env)
    assert (settings.endpoint_id, settings.api_key, settings.base_url) == ("xyz", "other", "http://127.0.0.1:1/v2")


def test_the_users_runpod_api_key_wins_over_the_environment(env, runpod_module):
    runpod_module.api_key = "from-module"
    assert EndpointSettings.resolve(environ=env).api_key == "from-module"


def test_a_key_that_runpod_copied_from_its_file_counts_as_the_file(env, runpod_module):
    store(env, "from-file")
    runpod_module.api_key = "from-file"
    assert EndpointSettings.resolve(environ=env).api_key == KEY
    del env["RUNPOD_API_KEY"]
    assert EndpointSettings.resolve(environ=env).api_key == "from-file"


def test_a_broken_file_counts_as_absent(env):
    store(env, '"\n[')
    del env["RUNPOD_API_KEY"]
    with pytest.raises(ConfigurationError, match="RUNPOD_API_KEY"):
        EndpointSettings.resolve(environ=env)


def test_an_object_with_an_endpoint_id_is_an_endpoint(env):
    assert (
        EndpointSettings.resolve(endpoint=types.SimpleNamespace(endpoint_id="obj1"), environ=env).endpoint_id == "obj1"
    )


@pytest.mark.parametrize("endpoint", ["https://api.runpod.ai/v2/abc", "a b", "../x", "é", 7])
def test_what_is_no_endpoint_id_is_refused(env, endpoint):
    with pytest.raises(ConfigurationError, match="endpoint"):
        EndpointSettings.resolve(endpoint=endpoint, environ=env)


def test_a_missing_endpoint_says_what_to_do(env):
    del env["RUNPOD_ENDPOINT_ID"]
    with pytest.raises(ConfigurationError, match="RUNPOD_ENDPOINT_ID"):
        EndpointSettings.resolve(environ=env)


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "ключ"])
def test_a_key_that_cannot_be_one_is_refused_without_being_shown(env, key):
    with pytest.raises(ConfigurationError) as caught:
        EndpointSettings.resolve(api_key=key, environ=env)
    assert key not in str(caught.value)


def test_the_key_stays_out_of_repr(env):
    assert KEY not in repr(EndpointSettings.resolve(environ=env))


@pytest.mark.parametrize(
    "url", ["api.runpod.ai", "ftp://x", "http://", "javascript:1", "http://[", "http://127.0.0.1:99999", "http://a:b"]
)
def test_an_address_that_is_none_is_refused(env, url):
    with pytest.raises(ConfigurationError, match="http"):
        EndpointSettings.resolve(base_url=url, environ=env)


def test_credentials_in_an_address_are_not_shown(env):
    with pytest.raises(ConfigurationError) as caught:
        EndpointSettings.resolve(base_url="ftp://me:hunter2@host/", environ=env)
    assert "hunter2" not in str(caught.value)


def test_an_address_with_a_password_beside_the_key_is_refused_before_anything_is_sent(env):
    with pytest.raises(ConfigurationError, match="takes a key alone") as caught:
        EndpointSettings.resolve(base_url="https://me:hunter2@host.example/v2", environ=env)
    assert "hunter2" not in str(caught.value)


def test_an_address_of_the_endpoint_is_answered_with_its_id(env):
    with pytest.raises(ConfigurationError, match="the endpoint's id is 'abc1'"):
        EndpointSettings.resolve(endpoint="https://api.runpod.ai/v2/abc1/run", environ=env)
    with pytest.raises(ConfigurationError, match="RUNPOD_ENDPOINT_ID"):
        EndpointSettings.resolve(endpoint="<RUNPOD_ENDPOINT_ID>", environ=env)
    with pytest.raises(ConfigurationError, match=r"Write http://127\.0\.0\.1:8188\."):
        comfyui_url("127.0.0.1:8188")


def test_an_address_is_shown_without_its_password():
    assert shown_url("https://bob:hunter2@host:1/path") == "https://host:1/path"


def test_the_worker_aggregates_only_with_a_bucket():
    assert WorkerSettings.from_env({}).aggregate is False
    assert WorkerSettings.from_env({"BUCKET_ENDPOINT_URL": "https://b"}).aggregate is True
    assert WorkerSettings.from_env({"COMFYUI_DIR": "/c"}).comfyui_dir == "/c"
    assert comfyui_url(environ={}) == "http://127.0.0.1:8188"


def test_the_worker_starts_comfyui_where_it_is_told_how_or_finds_it(tmp_path):
    def command(**env):
        return WorkerSettings.from_env(env).command

    (tmp_path / "main.py").touch()
    folder = str(tmp_path)
    assert command(COMFYUI_COMMAND="python3 'my main.py' --fast", COMFYUI_ARGS="--lowvram") == (
        "python3", "my main.py", "--fast", "--lowvram")  # fmt: skip
    assert command(COMFYUI_DIR=folder, COMFYUI_ARGS="--cpu") == (sys.executable, f"{folder}/main.py", "--cpu")
    assert command(COMFYUI_DIR=folder, COMFYUI_URL="http://other:8188") == ()
    assert command(COMFYUI_DIR=f"{folder}/absent") == command(COMFYUI_ARGS="--cpu") == command() == ()
    with pytest.raises(ConfigurationError, match="COMFYUI_COMMAND"):
        command(COMFYUI_COMMAND="python 'unclosed")


@pytest.mark.parametrize(("variable", "name", "good"), [("WORKER_SLOTS", "slots", ["1", " 32 "]),
                                                        ("WORKER_STALL_S", "stall_s", ["0", "600"])])  # fmt: skip
def test_a_number_of_the_worker_is_taken_within_its_bounds_alone(variable, name, good):
    for text in good:
        assert (getattr(WorkerSettings.from_env({variable: text}), name) or 0) == int(text)
    for text in ("-1", "1.5", "1e3", "three", "33000000", "9" * 5000, "1_0", "٣"):
        with pytest.raises(ConfigurationError, match=rf"{variable} is .*; it takes a whole number from"):
            WorkerSettings.from_env({variable: text})


@pytest.mark.parametrize("variable", ["WORKER_PROTOCOL", "WORKER_INPUT_URLS"])
def test_a_value_that_a_variable_of_the_worker_does_not_take_is_an_error(variable):
    assert WorkerSettings.from_env({variable: ""}) == WorkerSettings()
    with pytest.raises(ConfigurationError, match=rf"{variable} is 'x'; it takes '"):
        WorkerSettings.from_env({variable: "x"})


def test_the_package_reads_runpods_real_module_without_importing_it():
    script = """
        import sys
        from runpod_comfy.settings import EndpointSettings
        EndpointSettings.resolve(endpoint="e", api_key="k")
        assert "runpod" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True)
