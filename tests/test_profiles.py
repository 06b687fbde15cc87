import stat

import pytest

from runpod_comfy.errors import ConfigurationError
from runpod_comfy.profiles import Profile, config_file, read_key, read_profile, store_key, store_profile
from runpod_comfy.settings import EndpointSettings

KEY = "rpa_SECRET123"


@pytest.fixture
def env(tmp_path):
    return {"HOME": str(tmp_path), "RUNPOD_COMFY_CONFIG": str(tmp_path / "config" / "config.toml")}


def test_without_a_file_the_default_profile_is_empty(env):
    assert read_profile(environ=env) == Profile()
    assert read_key("default", env) is None


def test_a_profile_comes_back_as_it_was_stored(env):
    stored = Profile(name="studio", endpoint="abc", price_per_hour_usd=1.1, price_as_of="2026-11-24")
    path = store_profile(stored, env)
    assert path == config_file(env)
    assert read_profile("studio", env) == stored
    assert read_profile(environ={**env, "RUNPOD_COMFY_PROFILE": "studio"}) == stored


def test_storing_leaves_other_profiles_and_comments_alone(env):
    store_profile(Profile(endpoint="abc"), env)
    file = config_file(env)
    file.write_text("# mine\n" + file.read_text() + 'colour = "red"  # whatever\n')
    store_profile(Profile(name="other", endpoint="xyz"), env)
    store_profile(Profile(endpoint="new"), env)
    text = file.read_text()
    assert "# mine" in text
    assert 'colour = "red"  # whatever' in text
    assert (read_profile(environ=env).endpoint, read_profile("other", env).endpoint) == ("new", "xyz")


def test_a_key_is_kept_where_only_its_owner_reads(env):
    where = store_key("default", KEY, env)
    assert read_key("default", env) == KEY
    assert read_key("other", env) is None
    [file] = [path for path in config_file(env).parent.iterdir() if KEY in path.read_text()]
    assert where == str(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "text", ["[profiles", "profiles = 3", "[profiles]\ndefault = 3", "[profiles.default]\nendpoint = 7"]
)
def test_a_broken_file_is_named(text, env):
    file = config_file(env)
    file.parent.mkdir()
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=r"config\.toml"):
        read_profile(environ=env)


def test_an_unknown_profile_is_refused_with_those_there_are(env):
    store_profile(Profile(name="studio"), env)
    with pytest.raises(ConfigurationError, match="studio"):
        read_profile("stduio", env)


def test_the_profile_serves_what_arguments_and_environment_leave_open(env):
    store_profile(Profile(endpoint="abc", base_url="http://127.0.0.1:1/v2"), env)
    store_key("default", KEY, env)
    settings = EndpointSettings.resolve(environ=env)
    assert (settings.endpoint_id, settings.api_key, settings.base_url) == ("abc", KEY, "http://127.0.0.1:1/v2")
    over = EndpointSettings.resolve(environ={**env, "RUNPOD_ENDPOINT_ID": "env", "RUNPOD_API_KEY": "env-key"})
    assert (over.endpoint_id, over.api_key) == ("env", "env-key")
