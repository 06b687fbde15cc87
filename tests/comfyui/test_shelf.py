import asyncio
from contextlib import AsyncExitStack, aclosing

import pytest

from runpod_comfy.comfyui.folders import Folders
from runpod_comfy.comfyui.shelf import InputShelf
from runpod_comfy.errors import InputError, TransportError
from runpod_comfy.media.inputs import InputImage


def image(name, data=b"data", subfolder="s"):
    return InputImage(name, data, "image/png", subfolder)


@pytest.fixture
def root(stand_in):
    return stand_in.folder / "input"


@pytest.fixture
def folders(stand_in):
    return Folders(*((stand_in.folder / kind).resolve() for kind in ("input", "output", "temp")))


@pytest.fixture(params=["folder", "server"])
def shelf(request, folders):
    return InputShelf(folders if request.param == "folder" else None)


@pytest.fixture
def local(folders):
    return InputShelf(folders)


def files_in(root):
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*"))


async def test_images_are_in_their_subfolders_while_they_are_held(shelf, stand_in_client, root, png):
    images = [image(f"{n:02}.png", png(size=(8 + n, 8)), "rcc-1 ü") for n in range(6)]
    async with shelf.hold(stand_in_client, images):
        for each in images:
            assert (root / "rcc-1 ü" / each.name).read_bytes() == each.data


async def test_what_was_written_goes_with_the_last_run_that_needs_it(local, stand_in_client, root):
    async with local.hold(stand_in_client, [image("a"), image("b", subfolder="deep/er"), image("c", subfolder="")]):
        async with local.hold(stand_in_client, [image("a")]):
            pass
        assert files_in(root) == ["c", "deep", "deep/er", "deep/er/b", "s", "s/a"]
    assert files_in(root) == []


async def test_a_file_that_is_there_is_not_written_again_and_stays(shelf, stand_in_client, root):
    (root / "s").mkdir()
    (root / "s" / "same").write_bytes(b"data")
    (root / "s" / "other").write_bytes(b"something else")
    before = (root / "s" / "same").stat().st_mtime_ns
    async with shelf.hold(stand_in_client, [image("same"), image("other")]):
        assert (root / "s" / "same").stat().st_mtime_ns == before
        assert (root / "s" / "other").read_bytes() == b"data"
    assert (root / "s" / "same").exists()


@pytest.mark.parametrize("subfolder", ["", "photos"])
async def test_runs_with_other_images_under_one_name_follow_one_another(local, stand_in_client, root, subfolder):
    seen = []

    async def run(data):
        async with local.hold(stand_in_client, [image("input.png", data, subfolder)]):
            await asyncio.sleep(0.01)
            seen.append((data, (root / subfolder / "input.png").read_bytes()))

    await asyncio.gather(*(run(data) for data in (b"1", b"2", b"3", b"1")))
    assert sorted(seen) == [(b"1", b"1"), (b"1", b"1"), (b"2", b"2"), (b"3", b"3")]
    assert files_in(root) == []


async def test_a_folder_holds_the_images_of_its_run_alone(local, stand_in_client, root):
    # LoadImagesFromDir takes all that is there.
    async def run(names):
        async with local.hold(stand_in_client, [image(name, subfolder="photos") for name in names]):
            await asyncio.sleep(0.01)
            assert files_in(root / "photos") == names

    await asyncio.gather(run(["a", "b", "c"]), run(["a"]), run(["b", "c"]))


async def test_images_that_another_process_needs_too_stay_until_it_needs_them_no_more(
    local, folders, stand_in_client, root
):
    # A claim belongs to an open file, so a shelf of its own is as good as a process of its own.
    other = InputShelf(folders)
    images = [image(str(n), subfolder="rcc-x") for n in range(3)]
    async with other.hold(stand_in_client, images):
        async with local.hold(stand_in_client, images):
            pass
        assert len(files_in(root)) == 4
    assert files_in(root) == []
    async with local.hold(stand_in_client, images), AsyncExitStack() as outliving:
        await outliving.enter_async_context(other.hold(stand_in_client, images))
        moved = outliving.pop_all()
    assert len(files_in(root)) == 4
    await moved.aclose()
    assert files_in(root) == []


async def test_images_in_no_folder_go_with_the_process_that_wrote_them(local, folders, stand_in_client, root):
    async with InputShelf(folders).hold(stand_in_client, [image("a", subfolder="")]):
        async with local.hold(stand_in_client, [image("b", subfolder="")]):
            assert files_in(root) == ["a", "b"]
        assert files_in(root) == ["a"]
    assert files_in(root) == []


async def test_processes_that_come_and_go_never_take_each_others_images(folders, stand_in_client, root):
    async def process(shelf):
        for _ in range(30):
            async with shelf.hold(stand_in_client, [image(str(n), subfolder="rcc-x") for n in range(3)]):
                await asyncio.sleep(0)
                assert {"rcc-x/0", "rcc-x/1", "rcc-x/2"} <= set(files_in(root))

    async with asyncio.timeout(30):
        await asyncio.gather(*(process(InputShelf(folders)) for _ in range(3)))
    assert files_in(root) == []


async def test_runs_with_the_same_images_do_not_wait_for_each_other(local, stand_in_client):
    both = asyncio.Barrier(2)

    async def run():
        async with local.hold(stand_in_client, [image("a")]):
            await both.wait()

    async with asyncio.timeout(10):
        await asyncio.gather(run(), run())


async def test_run_cancelled_while_it_waits_or_writes_leaves_the_place_free(local, stand_in_client, root):
    async def run(data):
        async with local.hold(stand_in_client, [image(str(n), data) for n in range(5)]):
            await asyncio.sleep(10)

    for wait_s in (0, 0.001, 0.02):
        tasks = [asyncio.create_task(run(data)) for data in (b"1", b"2")]
        await asyncio.sleep(wait_s)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    async with asyncio.timeout(10), local.hold(stand_in_client, [image("a")]):
        pass
    await asyncio.sleep(0.1)  # a thread that was writing
    assert files_in(root) == []


async def test_image_that_cannot_be_written_is_an_input_error_and_the_place_is_free(local, stand_in_client, root):
    (root / "s").write_bytes(b"a file where the folder would be")
    with pytest.raises(InputError, match="cannot be written"):
        async with local.hold(stand_in_client, [image("a")]):
            pass
    (root / "s").unlink()
    async with local.hold(stand_in_client, [image("a", b"other")]):
        pass


async def test_image_outside_the_folder_is_left_to_the_server_which_refuses_it(local, stand_in_client, stand_in, root):
    (root / "link").symlink_to(stand_in.folder)
    with pytest.raises(Exception, match="400"):
        async with local.hold(stand_in_client, [image("a", subfolder="link")]):
            pass
    assert not (stand_in.folder / "a").exists()


async def test_a_failed_upload_is_one_error_of_our_tree(stand_in, stand_in_client, png):
    await stand_in.stop()
    with pytest.raises(TransportError):
        async with InputShelf().hold(stand_in_client, [image(f"{n}.png", png()) for n in range(5)]):
            pass


async def test_held_images_outlive_a_generator_that_is_closed(local, stand_in_client, root):
    async def events():
        async with local.hold(stand_in_client, [image("a")]):
            yield 1

    async with aclosing(events()) as running:
        await anext(running)
        assert files_in(root) == ["s", "s/a"]
    assert files_in(root) == []
