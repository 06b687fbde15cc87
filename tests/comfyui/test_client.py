import asyncio

import aiohttp
import pytest
from aiohttp import web

from runpod_comfy.comfyui.client import ComfyUIClient
from runpod_comfy.comfyui.messages import Connected, Lost, PromptEnded
from runpod_comfy.errors import (
    ApiError,
    AuthenticationError,
    JobFailed,
    NotFound,
    ProtocolError,
    ServerError,
    TransportError,
)


@pytest.fixture
async def answering(session):
    """Make a client of a server that gives every request the same answer."""
    runners = []

    async def make(**answer):
        async def handle(_):
            return web.Response(**answer)

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handle)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        runners.append(runner)
        return ComfyUIClient(f"http://127.0.0.1:{runner.addresses[0][1]}", session=session)

    yield make
    for runner in runners:
        await runner.cleanup()


async def test_system_stats_name_the_version(client):
    stats = await client.system_stats()
    assert stats["system"]["comfyui_version"]


async def test_object_info_tells_of_one_class_or_of_all(client):
    one, every = await client.object_info("SaveImage"), await client.object_info()
    assert list(one) == ["SaveImage"]
    assert {"SaveImage", "LoadImage"} <= every.keys()


@pytest.mark.parametrize("name", ["plain.png", "ä b'c.png", "日本.png"])
async def test_an_upload_comes_back_byte_for_byte_under_the_name_that_was_given(client, png, name):
    stored = await client.upload(name, png(), subfolder="rcc-test ü/below")
    assert stored == f"rcc-test ü/below/{name}"
    assert await client.view(name, "rcc-test ü/below", "input") == png()
    assert await client.holds_input(name, png(), subfolder="rcc-test ü/below")
    assert not await client.holds_input(name, png("blue"), subfolder="rcc-test ü/below")
    assert not await client.holds_input("absent.png", png(), subfolder="rcc-test ü/below")


async def test_a_file_that_is_not_there_is_not_found(client):
    with pytest.raises(NotFound):
        await client.view("no-such-file.png")


async def test_upload_outside_the_input_folder_is_refused(client, png):
    with pytest.raises(ApiError):
        await client.upload("evil.png", png(), subfolder="../../..")


async def test_what_only_python_takes_for_json_is_read_all_the_same(answering):
    body = b'{"p": {"outputs": {"1": {"score": [NaN, -Infinity], "text": ["a \\ud83d b \\ud83d\\ude00"]}}}}'
    client = await answering(body=body, content_type="application/json")
    assert await client.history("p") == {"outputs": {"1": {"score": [None, None], "text": ["a ? b 😀"]}}}


@pytest.mark.parametrize("body", [b"", b"{", b"[NaN]", b"\xff{}", b"[" * 100_000, b'{"p": [Nan]}'])
async def test_an_answer_that_is_no_json_object_is_a_protocol_error(answering, body):
    with pytest.raises(ProtocolError):
        await (await answering(body=body, content_type="application/json")).history("p")


async def test_history_of_an_unknown_prompt_is_none(client):
    assert await client.history("no-such-prompt") is None


async def test_prompt_runs_under_the_id_that_it_was_given(client, nap):
    async with client.events() as messages:
        assert await anext(messages) == Connected()
        queued = await client.queue_prompt(nap(0.05), prompt_id="chosen-by-a-test")
        assert queued.prompt_id == "chosen-by-a-test"
        assert not queued.node_errors
        async with asyncio.timeout(20):
            while await anext(messages) != PromptEnded(prompt_id=queued.prompt_id):
                pass
    assert (await client.history(queued.prompt_id))["status"]["status_str"] == "success"


async def test_refused_prompt_names_node_class_and_reason(client, nap):
    graph = nap()
    graph["2"]["inputs"]["steps"] = "many"
    with pytest.raises(JobFailed, match=r"node 2 \(FixtureSleep, “Nap”\): .*many") as caught:
        await client.queue_prompt(graph)
    assert (caught.value.node_id, caught.value.node_type) == ("2", "FixtureSleep")


async def test_accepted_prompt_tells_of_nodes_that_will_be_left_out(client, nap):
    graph = nap(0.01)
    graph["8"] = {"class_type": "LoadImage", "inputs": {"image": "nope.png"}}
    graph["9"] = {"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": "x"}}
    queued = await client.queue_prompt(graph)
    assert "8" in queued.node_errors


async def test_pending_prompts_are_deleted_and_a_running_one_is_interrupted(client, nap):
    ids = [(await client.queue_prompt(nap(8, colour=n))).prompt_id for n in range(3)]
    async with asyncio.timeout(20):
        while ids[0] not in (await client.queue())[0]:  # noqa: ASYNC110 - the server tells only who listens
            await asyncio.sleep(0.02)
        assert set(ids[1:]) <= set((await client.queue())[1])
        await client.delete_pending(ids)
        assert not set(ids[1:]) & set((await client.queue())[1])
        await client.interrupt("another's prompt")
        await asyncio.sleep(0.2)
        assert ids[0] in (await client.queue())[0]
        await client.interrupt(ids[0])
        while ids[0] in (await client.queue())[0]:  # noqa: ASYNC110 - likewise
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ({"text": "<html>log in</html>", "content_type": "text/html"}, ProtocolError),
        ({"text": "hello"}, ProtocolError),
        ({"text": "[]", "content_type": "application/json"}, ProtocolError),
        ({"text": "{}", "content_type": "application/json"}, ProtocolError),
        ({"status": 302, "headers": {"Location": "https://login.example/"}}, ProtocolError),
        ({"status": 401}, AuthenticationError),
        ({"status": 403, "text": "<html>", "content_type": "text/html"}, AuthenticationError),
        ({"status": 404}, NotFound),
        ({"status": 413}, ApiError),
        ({"status": 500, "text": "500 Internal Server Error"}, ServerError),
        ({"status": 502, "text": "<html>bad gateway</html>", "content_type": "text/html"}, ServerError),
    ],
)
async def test_what_is_not_comfyui_is_told_apart(answering, nap, answer, error):
    client = await answering(**answer)
    for request in (client.system_stats(), client.queue_prompt(nap())):
        with pytest.raises(error) as caught:
            await request
        assert "<html" not in str(caught.value)


async def test_a_web_page_is_never_taken_for_an_output(answering):
    client = await answering(text="<html>log in</html>", content_type="text/html")
    with pytest.raises(ProtocolError):
        await client.view("a.png")


async def test_no_answer_is_a_transport_error_without_the_password(session, unused_tcp_port):
    client = ComfyUIClient(f"http://user:secret@127.0.0.1:{unused_tcp_port}", session=session)
    with pytest.raises(TransportError) as caught:
        await client.system_stats()
    assert f"127.0.0.1:{unused_tcp_port}" in str(caught.value)
    assert "secret" not in str(caught.value)


async def test_headers_go_with_every_request_and_the_websocket():
    seen = []

    async def handle(request):
        seen.append((request.path, request.headers.get("Authorization")))
        return web.Response(status=404)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/comfy/"
        client = ComfyUIClient(url, session=session, headers={"Authorization": "Bearer x"})
        with pytest.raises(NotFound):
            await client.history("p")
        async with client.events() as messages:
            assert isinstance(await anext(messages), Lost)
    await runner.cleanup()
    assert seen == [("/comfy/history/p", "Bearer x"), ("/comfy/ws", "Bearer x")]


async def test_websocket_connects_again_by_itself(stand_in, stand_in_client):
    async with stand_in_client.events() as messages, asyncio.timeout(20):
        assert await anext(messages) == Connected()
        await stand_in.close_sockets()
        seen = []
        while Connected() not in seen:
            seen.append(await anext(messages))
        assert any(isinstance(message, Lost) for message in seen)


async def test_two_clients_of_one_server_never_share_an_id(client):
    assert len({client.client_id, client.sibling().client_id, client.sibling().client_id}) == 3
