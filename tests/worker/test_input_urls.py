import asyncio
import io
import struct
import zlib

import pytest
from aiohttp import web
from PIL import Image

from runpod_comfy.errors import InputError
from runpod_comfy.media.inputs import InputImage
from runpod_comfy.submission import Submission
from runpod_comfy.worker.input_urls import FetchLimits, with_fetched_inputs


def picture(fmt="PNG", size=(24, 16)):
    data = io.BytesIO()
    Image.new("RGB", size, "teal").save(data, fmt)
    return data.getvalue()


def bomb():
    """A PNG of a kilobyte that claims 60,000 x 60,000 pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 999)) + chunk(b"IEND", b"")
    )


@pytest.fixture
async def site():
    """A web server with pictures and traps; requests that reach it are counted."""
    app, hits = web.Application(), []

    def page(path, body, **more):
        async def answer(request):
            hits.append(request.path)
            return web.Response(body=body, **more)

        app.router.add_get(path, answer)

    page("/a.png", picture())
    page("/a.jpg", picture("JPEG"))
    page("/a.mp4", b"\0\0\0\x18ftypisom" + b"\0" * 80)
    page("/page", b"<html>no picture</html>")
    page("/gone", b"", status=404)
    page("/bomb", bomb())
    page("/cut", picture()[:-30])
    page("/zipped", zlib.compress(picture()), headers={"Content-Encoding": "deflate"})
    page("/again", b"", status=302, headers={"Location": "/again"})
    page("/moved", b"", status=307, headers={"Location": "a.png"})
    page("/to-file", b"", status=302, headers={"Location": "file:///etc/passwd"})
    page("/nowhere", b"", status=302)

    async def elsewhere(request):
        return web.Response(status=302, headers={"Location": request.query["to"]})

    async def endless(request):
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(picture())
        while True:
            await response.write(b"\0" * 65536)
            await asyncio.sleep(0)

    async def silent(request):
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(picture()[:40])
        await asyncio.sleep(60)

    app.router.add_get("/elsewhere", elsewhere)
    app.router.add_get("/endless", endless)
    app.router.add_get("/silent", silent)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}", hits
    await runner.cleanup()


async def fetch(*urls, allowed="any", may_connect=None, **limits):
    images = tuple(InputImage(f"{n}.png", b"", "", "photos") for n in range(len(urls)))
    async with asyncio.timeout(20):
        done = await with_fetched_inputs(
            Submission(workflow={}, images=images),
            dict(enumerate(urls)),
            allowed=allowed,
            limits=FetchLimits(**limits),
            may_connect=may_connect,
        )
    return done.images


async def test_inputs_come_as_the_bytes_they_are_under_the_names_of_the_request(site):
    url, _ = site
    made = await fetch(f"{url}/a.png", f"{url}/a.jpg", f"{url}/a.mp4", f"{url}/moved")
    assert [each.name for each in made] == ["0.png", "1.png", "2.png", "3.png"]
    assert {each.subfolder for each in made} == {"photos"}
    assert [each.media_type for each in made] == ["image/png", "image/jpeg", "video/mp4", "image/png"]
    assert made[0].data == made[3].data == picture()


async def test_inputs_with_bytes_are_left_alone(site):
    url, _ = site
    given = InputImage("0.png", b"given", "image/png")
    images = (given, InputImage("1.png", b"", ""))
    done = await with_fetched_inputs(Submission(workflow={}, images=images), {1: f"{url}/a.png"}, allowed="any")
    assert done.images[0] is given
    assert done.images[1].data == picture()


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("page", "neither a picture nor a video"),
        ("gone", "answered 404"),
        ("bomb", "60000 x 60000 pixels"),
        ("cut", "truncated or damaged"),
        ("zipped", "compressed"),
        ("again", "redirects more than 5 times"),
        ("to-file", "no http or https address"),
        ("nowhere", "redirects more than 5 times"),
        ("endless", "larger than 1 MiB"),
        ("silent", "did not send it: SocketTimeoutError"),
    ],
)
async def test_what_is_no_usable_file_is_an_error_that_names_the_input(site, path, said):
    url, _ = site
    with pytest.raises(InputError, match=rf"The input '0\.png': .*{said}"):
        await fetch(f"{url}/{path}?signature=hidden", file_bytes=2**20, silent_s=0.3)


async def test_slow_host_is_given_up_after_the_whole_time(site):
    url, _ = site
    with pytest.raises(InputError, match=r"took longer than 0 s"):
        await fetch(f"{url}/silent", total_s=0.3)


async def test_files_of_a_job_share_one_allowance(site):
    url, _ = site
    with pytest.raises(InputError, match=r"exceed 1 MiB"):
        await fetch(*[f"{url}/endless"] * 2, file_bytes=10 * 2**20, job_bytes=2**20)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1", "127.1", "0", "169.254.169.254"],
)
async def test_no_form_of_an_address_leads_to_this_machine(site, host):
    url, hits = site
    port = url.rpartition(":")[2]
    with pytest.raises(InputError, match=r"no public address|InvalidUrl|DNSError"):
        await fetch(f"https://{host}:{port}/a.png", allowed="https", total_s=5)
    assert hits == []


@pytest.mark.parametrize("target", ["http://169.254.169.254/latest/", "//127.0.0.2/a.png", "http://[::1]/a.png"])
async def test_redirect_to_an_address_that_may_not_be_opened_is_not_followed(site, target):
    url, hits = site
    with pytest.raises(InputError, match="no public address"):
        await fetch(f"{url}/elsewhere?to={target}", may_connect=lambda address: address == "127.0.0.1")
    assert hits == []


async def test_redirect_from_https_to_http_is_not_followed(site):
    with pytest.raises(InputError, match="no https address"):
        await fetch(site[0] + "/a.png", allowed="https")


@pytest.mark.parametrize(
    "url", ["", "a.png", "file:///etc/passwd", "ftp://h/a.png", "https://", "https://[", "data:image/png;base64,AA=="]
)
async def test_url_that_is_none_is_refused(url):
    with pytest.raises(InputError, match=r"no https address|no URL"):
        await fetch(url, allowed="https")


async def test_url_with_a_password_is_refused_and_not_repeated():
    with pytest.raises(InputError, match="presigned") as failure:
        await fetch("https://user:hunter2@host/a.png")
    assert "hunter2" not in str(failure.value)


async def test_neither_path_nor_query_of_a_url_is_told(site):
    with pytest.raises(InputError) as failure:
        await fetch(f"{site[0]}/gone?X-Amz-Signature=hidden")
    assert "hidden" not in str(failure.value)


async def test_worker_that_takes_no_urls_says_so_and_asks_nobody(site):
    url, hits = site
    with pytest.raises(InputError, match="WORKER_INPUT_URLS=off"):
        await fetch(f"{url}/a.png", allowed="off")
    assert hits == []
