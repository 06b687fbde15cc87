import asyncio
import shutil
import subprocess
from contextlib import suppress

import pytest

from runpod_comfy.comfyui.client import ComfyUIClient
from runpod_comfy.comfyui.folders import Folders, find_folders
from runpod_comfy.comfyui.outputs import FileRef
from runpod_comfy.emulator.comfyui import ComfyUIStandIn
from runpod_comfy.errors import JobFailed, TransportError


def ref(filename, subfolder="", kind="output"):
    return FileRef(node_id="1", kind="images", filename=filename, subfolder=subfolder, type=kind)


async def test_folders_of_a_server_here_are_found_by_its_command_line(client):
    folders = await find_folders(client, comfyui_dir=None)
    assert folders is not None
    assert {folders.input.name, folders.output.name, folders.temp.name} == {"input", "output", "temp"}
    for folder in (folders.input, folders.output, folders.temp):
        assert not [path for path in folder.iterdir() if path.name.startswith(".runpod-comfy")]


async def test_folder_that_is_given_is_used_where_the_command_line_says_nothing(session):
    async with ComfyUIStandIn(show_folder=False) as comfyui:
        client = ComfyUIClient(comfyui.url, session=session)
        assert await find_folders(client, comfyui_dir=None) is None
        folders = await find_folders(client, comfyui_dir=str(comfyui.folder))
        assert folders.output == (comfyui.folder / "output").resolve()


async def test_folder_that_is_not_the_servers_is_not_believed(session, tmp_path):
    async with ComfyUIStandIn(show_folder=False) as comfyui:
        for kind in ("input", "output", "temp"):
            (tmp_path / kind).mkdir()
        assert await find_folders(ComfyUIClient(comfyui.url, session=session), comfyui_dir=str(tmp_path)) is None
        assert list((tmp_path / "output").iterdir()) == []


async def test_search_that_is_cancelled_leaves_no_file(stand_in, stand_in_client):
    for turns in range(12):
        search = asyncio.create_task(find_folders(stand_in_client, comfyui_dir=None))
        while not any(path.is_file() for path in stand_in.folder.rglob("*")) and not search.done():  # noqa: ASYNC110
            await asyncio.sleep(0)
        for _ in range(turns):
            await asyncio.sleep(0)
        search.cancel()
        await asyncio.wait([search])
    await asyncio.sleep(0.1)  # a thread that was writing
    assert [path for path in stand_in.folder.rglob("*") if path.is_file()] == []


async def test_server_that_does_not_answer_is_an_error_and_no_guess(session, unused_tcp_port):
    with pytest.raises(TransportError):
        await find_folders(ComfyUIClient(f"http://127.0.0.1:{unused_tcp_port}", session=session), comfyui_dir=None)


@pytest.mark.parametrize(
    ("filename", "subfolder"),
    [
        ("../a", ""),
        ("a", "../x"),
        ("/etc/passwd", ""),
        ("a", "/etc"),
        ("a\0", ""),
        ("", ""),
        ("a", "link"),
        ("file", ""),
    ],
)
def test_path_that_leaves_its_folder_is_none(tmp_path, filename, subfolder):
    root = tmp_path.resolve() / "output"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    (root / "file").symlink_to("/etc/passwd")
    assert Folders(root, root, root).path_of(ref(filename, subfolder)) is None


def test_path_below_its_folder_is_found_also_through_a_link_that_stays_inside(tmp_path):
    root = tmp_path.resolve() / "output"
    (root / "real").mkdir(parents=True)
    (root / "link").symlink_to(root / "real")
    folders = Folders(tmp_path, root, tmp_path / "temp")
    assert folders.path_of(ref("a.png", "link")) == root / "real" / "a.png"
    assert folders.path_of(ref("a.png", kind="temp")) == tmp_path / "temp" / "a.png"


@pytest.fixture
def full_disk(tmp_path):
    """A file system of its own without any room, where this may be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    for kind in ("input", "output", "temp"):
        (folder / kind).mkdir()
    with suppress(OSError):
        (folder / "fill").write_bytes(bytes(1024 * 1024))
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


async def test_full_disk_is_named_and_not_taken_for_folders_that_cannot_be_reached(full_disk, session):
    async with ComfyUIStandIn(full_disk) as comfyui:
        client = ComfyUIClient(comfyui.url, session=session)
        with pytest.raises(JobFailed, match=r"no space left in ComfyUI's input folder"):
            await find_folders(client, comfyui_dir=None)
        (full_disk / "fill").unlink()
        assert (await find_folders(client, comfyui_dir=None)).input == full_disk.resolve() / "input"
