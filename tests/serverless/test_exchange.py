import pytest

from runpod_comfy.errors import ConfigurationError
from runpod_comfy.serverless.exchange import proxy_for

ADDRESS = "https://api.runpod.ai/v2"


@pytest.fixture
def proxies(monkeypatch):
    """`proxies(https_proxy=…)` is the environment's only word on proxies."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)

    def be(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return be


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("127.0.0.1:3128", "http://127.0.0.1:3128"),
        ("proxy.example", "http://proxy.example"),
        ("http://me:secret@proxy.example:3128", "http://me:secret@proxy.example:3128"),
        ("http://[::1]:3128/", "http://[::1]:3128/"),
        ("https://proxy.example", "https://proxy.example"),
    ],
)
def test_a_proxy_without_a_scheme_is_one_of_http(proxies, given, taken):
    proxies(https_proxy=given)
    assert proxy_for(ADDRESS) == taken


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("all_proxy", "socks5://me:secret@127.0.0.1:1080", "all_proxy names a SOCKS proxy, which is not supported"),
        ("HTTPS_PROXY", "http://[", "HTTPS_PROXY names no address"),
        ("https_proxy", "http://secret:99999", "https_proxy names no address"),
        ("https_proxy", "ftp://secret", "https_proxy names no address"),
        ("https_proxy", "http://secret host", "https_proxy names no address"),
    ],
)
def test_what_is_no_http_proxy_is_refused_by_the_name_of_its_variable(proxies, variable, value, words):
    proxies(**{variable: value})
    with pytest.raises(ConfigurationError, match=words) as caught:
        proxy_for(ADDRESS)
    assert "secret" not in str(caught.value)


def test_loopback_and_named_hosts_use_no_proxy(proxies):
    proxies(https_proxy="http://[", http_proxy="http://[", no_proxy="api.runpod.ai")
    assert proxy_for(ADDRESS) is None
    assert proxy_for("http://127.0.0.1:8000") is None
