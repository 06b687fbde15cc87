import base64
import logging
import ssl

import aiohttp
import pytest
import trustme
from aiohttp import WSMsgType, web
from PIL import Image

from runpod_comfy import (
    AuthenticationError,
    ComfyServerWorkflowExecutor,
    ConfigurationError,
    ProtocolError,
    TransportError,
    WorkflowTemplate,
    _loop,
)
from runpod_comfy.emulator.comfyui import ComfyUIStandIn

TEMPLATE = WorkflowTemplate.from_string(
    """{"1": {"class_type": "EmptyImage", "inputs":
              {"width": 8, "height": 8, "batch_size": {{ batch_size }}, "color": 0}},
        "2": {"class_type": "FixtureSleep", "inputs": {"image": ["1", 0], "seconds": 0, "steps": 1, "seed": 1}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "a"}}}"""
)
OPEN = {"Authorization": "Bearer x"}
SECRET = "s3cret-and-long"  # noqa: S105 - what must not show


class Front:
    """What stands in front of a ComfyUI in the wild: TLS, a path, and a look at who asks.

    Who is not let in is answered 401 or, as ``page`` says: ``login`` sends a page with 200, ``redirect`` to one.
    """

    def __init__(self, target, authority, *, authorization, page=None):
        self.target = target
        self.authorization = authorization
        self.page = page
        self.seen = []
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("127.0.0.1").configure_cert(self._tls)

    async def start(self):
        self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        app = web.Application(client_max_size=2**26)
        app.add_routes([web.route("*", "/studio/ui/{path:.*}", self._pass_on), web.get("/login", self._login)])
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls).start()
        self.url = f"https://127.0.0.1:{self._runner.addresses[0][1]}/studio/ui"

    async def stop(self):
        await self._runner.cleanup()
        await self._session.close()

    async def _login(self, _):
        return web.Response(text="<html>Please log in</html>", content_type="text/html")

    async def _pass_on(self, request):
        path = request.match_info["path"]
        if request.headers.get("Authorization") != self.authorization:
            if self.page == "login":
                return await self._login(request)
            return (
                web.Response(status=401)
                if self.page is None
                else web.Response(status=302, headers={"Location": "/login"})
            )
        self.seen.append(path)
        if path == "ws":
            return await self._pass_on_socket(request)
        headers = {"Content-Type": request.headers["Content-Type"]} if request.can_read_body else {}
        url = f"{self.target}/{path}"
        data = await request.read() if request.can_read_body else None
        async with self._session.request(
            request.method, url, params=request.query, data=data, headers=headers
        ) as answer:
            body = await answer.read()
            return web.Response(status=answer.status, body=body, headers={"Content-Type": answer.content_type})

    async def _pass_on_socket(self, request):
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async with self._session.ws_connect(f"{self.target}/ws", params=request.query) as inner:
            async for message in inner:
                if message.type is WSMsgType.TEXT:
                    await socket.send_str(message.data)
                else:
                    await socket.send_bytes(message.data)
        return socket


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def ca_file(authority, tmp_path):
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return path


@pytest.fixture
def start():
    """`start(thing)` starts a server on the library's loop and stops it in the end."""
    started = []

    def begin(server):
        _loop.run_sync(server.start)
        started.append(server)
        return server

    yield begin
    for server in reversed(started):
        _loop.run_sync(server.stop)


@pytest.fixture
def make_front(start, authority):
    comfyui = start(ComfyUIStandIn())

    def make(authorization, *, page=None):
        return start(Front(comfyui.url, authority, authorization=authorization, page=page))

    return make


def basic(name, password):
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def with_login(url, login):
    return url.replace("https://", f"https://{login}@")


@pytest.mark.parametrize(
    ("wanted", "address", "options"),
    [
        (f"Bearer {SECRET}", lambda url: url, {"token": SECRET}),
        (basic("me", SECRET), lambda url: url, {"auth": ("me", SECRET)}),
        (basic("me@home", "p/w:x"), lambda url: with_login(url, "me%40home:p%2Fw%3Ax"), {}),
        ("Special x", lambda url: url + "/", {"headers": {"Authorization": "Special x"}}),
    ],
    ids=["bearer", "basic", "in the address", "a header"],
)
def test_a_server_behind_tls_a_login_and_a_path_works(make_front, ca_file, wanted, address, options):
    proxy = make_front(wanted)
    with ComfyServerWorkflowExecutor(address(proxy.url), ca_file=ca_file, **options) as executor:
        result = executor.submit_workflow(TEMPLATE, num_samples=2, seed=5)
    assert [image.seed for image in result] == [5, 6]
    assert {"ws", "prompt", "system_stats", "view"} <= set(proxy.seen)


def test_photos_travel_through_the_proxy_and_directory_nodes_find_them(make_front, ca_file, tmp_path):
    photo = tmp_path / "a.png"
    Image.new("RGB", (16, 16), "red").save(photo)
    template = WorkflowTemplate.from_string(
        """{"1": {"class_type": "LoadImagesFromDir", "inputs": {"directory": "{{ input_images_dir }}"}},
            "2": {"class_type": "LoadImage", "inputs": {"image": "{{ input_images[0] }}"}},
            "3": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "a"}},
            "4": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "b"}}}"""
    )
    with ComfyServerWorkflowExecutor(make_front("Bearer x").url, ca_file=ca_file, headers=OPEN) as executor:
        assert len(executor.submit_workflow(template, [photo])) == 2


@pytest.mark.parametrize(
    ("page", "error", "words"),
    [
        (None, AuthenticationError, "401"),
        ("login", ProtocolError, "web page"),
        ("redirect", ProtocolError, "redirect"),
    ],
)
def test_a_login_in_front_is_a_clear_error_before_a_photo_leaves(make_front, ca_file, page, error, words):
    proxy = make_front(f"Bearer {SECRET}", page=page)
    executor = ComfyServerWorkflowExecutor(proxy.url, ca_file=ca_file, headers=OPEN)
    with executor, pytest.raises(error, match=words) as caught:
        executor.submit_workflow(TEMPLATE)
    assert "token=" in str(caught.value) or "headers=" in str(caught.value)
    assert proxy.seen == []


def test_a_certificate_that_nobody_vouches_for_is_refused(make_front):
    with pytest.raises(TransportError, match=r"(?i)certificate"):
        ComfyServerWorkflowExecutor(make_front("Bearer x").url, headers=OPEN).submit_workflow(TEMPLATE)


@pytest.mark.parametrize(
    "server", [{}, {"system_stats": web.json_response}, {"system_stats": lambda: web.json_response({"hello": 1})}]
)
def test_something_that_is_no_comfyui_or_too_old_a_one_is_told(start, server):
    class Other:
        async def start(self):
            app = web.Application()
            for path, make in server.items():

                async def answer(_, make=make):
                    return make()

                app.router.add_get(f"/{path}", answer)
            self.runner = web.AppRunner(app, access_log=None)
            await self.runner.setup()
            await web.TCPSite(self.runner, "127.0.0.1", 0).start()
            self.url = f"http://127.0.0.1:{self.runner.addresses[0][1]}"

        async def stop(self):
            await self.runner.cleanup()

    with pytest.raises(ProtocolError, match="ComfyUI"):
        ComfyServerWorkflowExecutor(start(Other()).url).submit_workflow(TEMPLATE)


@pytest.mark.parametrize(
    "options",
    [
        {"token": "a", "auth": ("b", "c")},
        {"token": "a", "headers": {"authorization": "b"}},
        {"token": "a", "url": "https://b:c@h"},
        {"auth": ("a", "b"), "url": "https://b:c@h"},
        {"token": f"{SECRET}\nX-Evil: 1"},
        {"token": " "},
        {"token": "schlüssel"},
        {"auth": ("a:b", "c")},
        {"ca_file": "/nowhere/ca.pem"},
        {"url": "ftp://h"},
    ],
)
def test_credentials_that_cannot_be_right_fail_before_anything_is_sent(options):
    with pytest.raises(ConfigurationError) as caught:
        ComfyServerWorkflowExecutor(**{"url": "https://h", **options})
    assert SECRET not in str(caught.value)


def test_a_password_never_shows(make_front, ca_file, caplog):
    caplog.set_level(logging.DEBUG)
    proxy = make_front("nothing that is sent")
    with ComfyServerWorkflowExecutor(with_login(proxy.url, f"me:{SECRET}"), ca_file=ca_file) as executor:
        with pytest.raises(AuthenticationError) as caught:
            executor.submit_workflow(TEMPLATE)
        shown = f"{executor!r} {executor.url} {caught.value} {caught.value.__cause__!r} {caplog.text}"
    assert SECRET not in shown
    assert basic("me", SECRET) not in shown
