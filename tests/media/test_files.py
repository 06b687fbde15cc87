"""Names from outside, and bytes on their way to disk."""

import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runpod_comfy.errors import InputError
from runpod_comfy.media.files import check_relative_name, safe_output_path, write_new


@pytest.mark.parametrize(
    "name",
    [
        "../a",
        "/a",
        "a/../../b",
        "..",
        "",
        "a//b",
        "C:\\a",
        "a\\b",
        "nul",
        "COM1.png",
        "a\0b",
        "a\nb",
        "x" * 300,
        "a/. /b",
    ],
)
def test_a_name_that_could_lead_astray_is_refused(name):
    with pytest.raises(InputError, match="The name"):
        check_relative_name(name)


@pytest.mark.parametrize("name", ["a.png", "sub/folder/a b.png", "ünï.png", "..a", "a..b", "console.png"])
def test_a_plain_name_is_taken(name):
    check_relative_name(name)


@given(st.text(max_size=40), st.text(max_size=40) | st.none())
def test_no_name_that_a_worker_sends_leads_out_of_the_folder(name, subfolder):
    folder = Path.cwd() / "out"
    try:
        path = safe_output_path(folder, name, subfolder)
    except InputError:
        return
    assert path.resolve().is_relative_to(folder)
    assert path.resolve() != folder


def test_a_symlink_does_not_lead_out_of_the_folder(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "away").symlink_to(tmp_path)
    (out / "loop").symlink_to(out / "loop")
    for subfolder in ("away", "loop"):
        with pytest.raises(InputError, match="symlink"):
            safe_output_path(out, "a.png", subfolder)


def test_files_never_overwrite_each_other_also_when_many_write_at_once(tmp_path):
    path = tmp_path / "deep" / "a.b.png"
    threads = [threading.Thread(target=write_new, args=(path, bytes([n]) * 1000)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    files = sorted(path.parent.iterdir())
    assert {file.read_bytes() for file in files} == {bytes([n]) * 1000 for n in range(12)}
    assert {file.name for file in files} == {"a.b.png", *(f"a.b_{n}.png" for n in range(1, 12))}


def test_a_name_of_full_length_gets_a_number_too(tmp_path):
    path = tmp_path / ("ü" * 125 + ".png")
    first, second = write_new(path, b"1"), write_new(path, b"2")
    assert first == path
    assert second.name.endswith("_1.png")
    assert second.read_bytes() == b"2"


def test_where_a_file_cannot_be_written_nothing_is_left_behind(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    with pytest.raises(OSError, match="file"):
        write_new(blocked / "a.png", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
