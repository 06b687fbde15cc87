import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from runpod_comfy.errors import ApiError, ConfigurationError, SubmissionUncertain
from runpod_comfy.serverless.api import EndpointApi
from runpod_comfy.serverless.budget import ByteBudget
from runpod_comfy.serverless.exchange import Exchange, NotSent, proxy_for
from runpod_comfy.serverless.pacing import Pacer
from runpod_comfy.settings import EndpointSettings

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


KEY = "rpa_SECRET-0123456789/abcdef"


@pytest.fixture
async def make_api():
    """`await make_api(status, body)` is an endpoint that always answers so."""
    async with aiohttp.ClientSession() as session, contextlib.AsyncExitStack() as stack:

        async def make(status, body):
            async def answer(_):
                return web.Response(status=status, body=body)

            app = web.Application()
            app.router.add_route("*", "/{path:.*}", answer)
            server = await stack.enter_async_context(TestServer(app))
            settings = EndpointSettings(endpoint_id="test", api_key=KEY, base_url=str(server.make_url("")).rstrip("/"))
            return EndpointApi(
                settings, session=session, pacer=Pacer(), budget=ByteBudget(1), threads=ThreadPoolExecutor(1)
            )

        yield make


@pytest.mark.parametrize("padding", [0, 380, 390, 399, 1590, 1599, 65_520, 65_530])
@pytest.mark.parametrize(
    "written",
    [
        KEY,
        KEY.replace("/", "\\/"),
        "".join(f"\\u{ord(char):04X}" for char in KEY),
        KEY.replace("SECRET", "\\u0053ECRET"),
    ],
)
@pytest.mark.parametrize("blank", ["x", " "])
async def test_no_part_of_the_key_is_in_an_error_that_repeats_it(make_api, padding, written, blank):
    api = await make_api(400, f"{blank * padding}{written} is wrong".encode() + b" " * 70_000)
    with pytest.raises(ApiError) as caught:
        await api.health()
    for text in (str(caught.value), caught.value.body):
        assert "rpa" not in text
        assert "u0072" not in text


@pytest.mark.parametrize("body", [b'{"id": "", "status": "IN_QUEUE"}', b'{"id": " ", "status": "IN_QUEUE"}'])
async def test_an_accepted_job_without_an_id_is_an_uncertain_one(make_api, body):
    api = await make_api(200, body)
    with pytest.raises(SubmissionUncertain, match="no job id"):
        await api.run(b"{}", submission_id="ours")


async def test_what_a_proxy_refuses_was_not_sent(proxies):
    async def refuse(_, writer):
        writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    proxies(https_proxy=f"me:secret@127.0.0.1:{port}")
    settings = EndpointSettings(endpoint_id="test", api_key=KEY, base_url=ADDRESS)
    async with server, aiohttp.ClientSession() as session:
        with pytest.raises(NotSent, match="the proxy answered 407") as caught:
            await Exchange(settings, session=session, pacer=Pacer()).json("POST", "run", "run", data=b"{}")
    assert "secret" not in str(caught.value)
