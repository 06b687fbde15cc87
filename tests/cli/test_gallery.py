import json
import re
import sys

import pytest


@pytest.fixture
def made(cli):
    """A dataset of two images, made by `batch`."""
    result = cli("batch", "portrait/workflow.json.jinja", "portrait", "--local", "-o", "out", "-q")
    assert result.code == 0
    return cli


def data_of(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page.read_text(), re.DOTALL)[1])


def test_batch_leaves_a_page_and_names_it(made):
    folder = made("batch", "portrait/workflow.json.jinja", "portrait", "--local", "-o", "again", "-n", "2").folder
    page = folder / "again" / "gallery.html"
    data = data_of(page)
    assert (len(data["images"]), data["failures"], data["live"], data["folder"]) == (4, [], None, "again")
    assert len(list((folder / "again" / "__gallery__" / "thumbs").rglob("*.webp"))) == 4


def test_the_page_is_written_anew_with_the_thumbnails_that_are_missing(made):
    result = made("gallery", "out")
    out = result.folder / "out"
    assert result.lines == ["out/gallery.html"]
    assert "next: runpod-comfy pick out selection.json" in result.err
    [first, _] = (out / "__gallery__" / "thumbs").rglob("*.webp")
    first.unlink()
    (out / "gallery.html").unlink()
    result = made("gallery", "out", "--json")
    assert json.loads(result.out)["data"] == {"page": "out/gallery.html", "images": 2, "thumbs_made": 1}
    assert first.exists()
    assert len(data_of(out / "gallery.html")["images"]) == 2


def test_one_file_holds_the_pictures(made):
    result = made("gallery", "out", "--single-file")
    assert result.lines == ["out/gallery-single.html"]
    thumbs = data_of(result.folder / "out" / "gallery-single.html")["thumbs"]
    assert [each[:23] for each in thumbs] == ["data:image/webp;base64,"] * 2


@pytest.mark.usefixtures("made")
def test_the_page_opens_in_a_browser_on_request(shell, folder, tmp_path):
    noted = tmp_path / "opened"
    script = tmp_path / "browser"
    script.write_text(f"#!{sys.executable}\nimport sys\nopen({str(noted)!r}, 'w').write(sys.argv[1])\n")
    script.chmod(0o755)
    # A process of its own: which browser there is is looked up once in each.
    opening = shell("runpod-comfy gallery out --open", env={"BROWSER": f"{script} %s"})
    opening.communicate(timeout=30)
    assert opening.returncode == 0
    assert noted.read_text() == (folder / "out" / "gallery.html").as_uri()


def test_a_folder_that_is_no_dataset_is_refused(cli):
    result = cli("gallery", "portrait")
    assert result.code == 2
    assert "portrait is no dataset" in result.err
