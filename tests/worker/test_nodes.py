import subprocess
import sys
import threading
from pathlib import Path

import pytest
from PIL import Image

import runpod_comfy.worker.nodes
from runpod_comfy.worker.nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS
from runpod_comfy.worker.nodes.compute_thread import ComputeThread
from runpod_comfy.worker.nodes.load_images_from_dir import (
    LoadImagesFromDir,
    list_images,
    load_fitted,
    resolve_directory,
)

FOLDER = Path(runpod_comfy.worker.nodes.__file__).parent


@pytest.fixture
def input_dir(tmp_path):
    (tmp_path / "input" / "photos").mkdir(parents=True)
    (tmp_path / "secret").mkdir()
    return tmp_path / "input"


@pytest.fixture
def comfyui(input_dir, tmp_path, monkeypatch):
    """The one module of ComfyUI's that the node asks for something."""
    (tmp_path / "folder_paths.py").write_text(f"def get_input_directory():\n    return {str(input_dir)!r}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "folder_paths", raising=False)
    yield input_dir
    sys.modules.pop("folder_paths", None)


def touch(folder, *names):
    for name in names:
        Image.new("RGB", (4, 4)).save(folder / name, "PNG")


def test_comfyui_finds_the_node_and_its_contract():
    assert NODE_CLASS_MAPPINGS["LoadImagesFromDir"] is LoadImagesFromDir
    assert NODE_CLASS_MAPPINGS.keys() == NODE_DISPLAY_NAME_MAPPINGS.keys()
    inputs = LoadImagesFromDir.INPUT_TYPES()
    kinds = {name: about[0] for each in inputs.values() for name, about in each.items()}
    assert kinds == {"directory": "STRING", "image_load_cap": "INT", "start_index": "INT", "load_always": "BOOLEAN"}
    assert LoadImagesFromDir.RETURN_TYPES == ("IMAGE", "MASK", "INT")
    assert callable(getattr(LoadImagesFromDir, LoadImagesFromDir.FUNCTION))


def test_the_thread_that_computes_is_known_to_live_and_to_have_died_once_it_was_seen():
    watched = ComputeThread()
    assert watched.alive() is None
    goes_on = threading.Event()

    def prompt_worker():
        goes_on.wait()

    computing = threading.Thread(target=prompt_worker)
    computing.start()
    assert watched.alive() is True
    goes_on.set()
    computing.join()
    assert watched.alive() is False


def test_the_folder_works_alone_without_this_package_or_torch(tmp_path):
    copy = tmp_path / "runpod_comfy_nodes"
    copy.mkdir()
    for file in FOLDER.glob("*.py"):
        (copy / file.name).write_bytes(file.read_bytes())
    code = (
        "import sys, runpod_comfy_nodes as n; print(*n.NODE_CLASS_MAPPINGS);"
        "assert not {'torch', 'runpod_comfy', 'folder_paths'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {code}"],
                          check=True, capture_output=True, text=True)  # fmt: skip
    assert done.stdout.split() == ["LoadImagesFromDir"]


@pytest.mark.parametrize("name", ["photos", "photos/", "input/photos", "./input/photos", " photos ", "input//photos"])
def test_folder_is_found_by_its_name_below_the_input_folder(input_dir, name):
    assert resolve_directory(name, input_dir) == (input_dir / "photos").resolve()


def test_folder_is_found_by_its_absolute_path_and_the_input_folder_is_one(input_dir):
    assert resolve_directory(str(input_dir / "photos"), input_dir) == (input_dir / "photos").resolve()
    assert resolve_directory("input", input_dir) == resolve_directory("", input_dir) == input_dir.resolve()


@pytest.mark.parametrize(
    "name", ["..", "../secret", "input/../../secret", "/etc", "photos/../../secret", "..\\secret", "a\0b", "link"]
)
def test_folder_outside_the_input_folder_is_refused(input_dir, name):
    (input_dir / "link").symlink_to(input_dir.parent / "secret")
    with pytest.raises(ValueError, match=r"input folder|NUL"):
        resolve_directory(name, input_dir)


def test_missing_folder_and_a_file_are_told_by_name(input_dir):
    touch(input_dir, "file.png")
    for name in ("absent", "file.png"):
        with pytest.raises(ValueError, match=f"no folder '{name}'"):
            resolve_directory(name, input_dir)


def test_images_come_in_natural_order_and_nothing_else_does(input_dir):
    folder = input_dir / "photos"
    touch(folder, "10.png", "2.png", "1.PNG", "a10.webp", "a9.jpg", ".hidden.png")
    (folder / "notes.txt").write_text("no image")
    (folder / "below.png").mkdir()
    assert [path.name for path in list_images(folder)] == ["1.PNG", "2.png", "10.png", "a9.jpg", "a10.webp"]


def test_start_and_cap_select_a_part(input_dir):
    folder = input_dir / "photos"
    touch(folder, *(f"{n}.png" for n in range(5)))
    names = [path.name for path in list_images(folder, start=1, cap=2)]
    assert names == ["1.png", "2.png"]
    assert len(list_images(folder, cap=99)) == 5
    with pytest.raises(ValueError, match=r"start_index is 5 and .* has 5 image"):
        list_images(folder, start=5)


def test_empty_folder_is_an_error(input_dir):
    with pytest.raises(ValueError, match="'photos' has no images"):
        list_images(input_dir / "photos")


def test_image_of_another_size_is_scaled_and_cropped_around_its_centre(tmp_path):
    image = Image.new("RGB", (300, 100), "red")
    image.paste("lime", (100, 0, 200, 100))
    image.save(tmp_path / "wide.png")
    picture, alpha = load_fitted(tmp_path / "wide.png", (50, 50))
    assert (picture.size, alpha) == ((50, 50), None)
    assert {picture.getpixel((x, y)) for x in (3, 25, 46) for y in (3, 25, 46)} == {(0, 255, 0)}


def test_photo_is_turned_upright_once(tmp_path):
    image = Image.new("RGB", (40, 20), "red")
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert load_fitted(tmp_path / "turned.jpg", None)[0].size == (20, 40)


def test_transparency_is_kept_apart_and_leaves_colours_alone(tmp_path):
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    picture, alpha = load_fitted(tmp_path / "clear.png", (4, 4))
    assert picture.getpixel((1, 1)) == (255, 0, 0)
    assert alpha.getpixel((1, 1)) == 0


def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path):
    Image.new("I;16", (8, 8), 257 * 100).save(tmp_path / "deep.png")
    assert load_fitted(tmp_path / "deep.png", None)[0].getpixel((0, 0)) == (100, 100, 100)


@pytest.mark.parametrize("data", [b"", b"no image", b"\x89PNG\r\n\x1a\n"])
def test_damaged_image_is_told_by_name(tmp_path, data):
    (tmp_path / "bad.png").write_bytes(data)
    with pytest.raises(ValueError, match=r"'bad\.png' cannot be read"):
        load_fitted(tmp_path / "bad.png", None)


def test_node_is_validated_before_it_is_queued(comfyui):
    assert LoadImagesFromDir.VALIDATE_INPUTS("photos") == "The folder 'photos' has no images (.bmp, .gif, .jpeg, .jpg, .png, .tif, .tiff, .webp)."  # fmt: skip  # noqa: E501 - the whole text
    assert "not below" in LoadImagesFromDir.VALIDATE_INPUTS("../secret")
    touch(comfyui / "photos", "a.png")
    assert LoadImagesFromDir.VALIDATE_INPUTS("photos") is True
    assert "start_index" in LoadImagesFromDir.VALIDATE_INPUTS("photos", 0, 1)
    assert LoadImagesFromDir.VALIDATE_INPUTS(None) is True


def test_cache_key_is_the_contents_and_not_the_names(comfyui):
    (comfyui / "again").mkdir()
    for folder, name in (("photos", "a.png"), ("again", "b.png")):
        touch(comfyui / folder, name)
    same = LoadImagesFromDir.IS_CHANGED("photos")
    assert LoadImagesFromDir.IS_CHANGED("again") == same == LoadImagesFromDir.IS_CHANGED("photos")
    Image.new("RGB", (4, 4), "red").save(comfyui / "again" / "b.png")
    assert LoadImagesFromDir.IS_CHANGED("again") != same
    always = LoadImagesFromDir.IS_CHANGED("photos", load_always=True)
    assert always != always  # noqa: PLR0124 - that is what NaN is for
