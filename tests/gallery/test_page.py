import json
import re

import pytest
from made_dataset import PROMPTS, image_line

from runpod_comfy.dataset.folder import OutputFolder
from runpod_comfy.dataset.manifest import read_manifest
from runpod_comfy.errors import ConfigurationError
from runpod_comfy.gallery.page import Gallery, page_text, run_of, safe_json
from runpod_comfy.gallery.single import write_single_page


def data_of(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


def test_data_ends_no_script_and_comes_back_as_it_was():
    hostile = {
        "a": "</script><!--<script>",
        "b": "\u2028\u2029&amp;",
        "c": "\ud800 {{script}} \\1",
        "seed": str(2**64 - 1),
    }
    text = safe_json(hostile)
    assert not re.search("[<>&\u2028\u2029]", text)
    assert text.encode()
    assert json.loads(text) == hostile
    page = page_text({"columns": [], "tasks": [], "images": [], "failures": [], **hostile})
    assert page.count("</script>") == 2
    assert data_of(page)["c"] == hostile["c"]


def test_the_policy_allows_this_script_alone_and_what_lies_beside_the_page_while_it_is_made():
    finished = page_text({})
    [policy] = re.findall(r'Content-Security-Policy" content="([^"]*)"', finished)
    assert policy.startswith("default-src 'none'")
    assert re.search(r"script-src 'sha256-[\w+/=]{44}';", policy)
    assert "unsafe" not in policy
    assert re.search(r"script-src 'sha256-[\w+/=]{44}' 'self' file:;", page_text({}, is_live=True))


def test_a_run_without_an_id_is_known_by_its_name_and_seed(tmp_path):
    one, two = (Gallery(root=tmp_path / name, shown_as=name, run={"seed": 5}) for name in ("one", "two"))
    assert one.run_id != two.run_id
    assert len(one.run_id) == 16
    assert one.about()["run_in_selection"] is None


def test_the_page_of_an_empty_folder_can_be_written(tmp_path):
    with OutputFolder(tmp_path) as folder:
        page = Gallery(root=tmp_path, shown_as="out", run={}).write(folder.manifest.tasks)
    assert data_of(page.read_text())["images"] == []


def test_a_row_costs_at_most_500_bytes_beside_its_prompt(tmp_path):
    words = {f"v{n}": "a value" for n in range(8)}
    with OutputFolder(tmp_path) as folder:
        (tmp_path / "images/000").mkdir(parents=True)
        sizes = []
        for count in (0, 200):
            for index in range(count):
                file = f"images/000/{index:06}_0.png"
                (tmp_path / file).touch()
                about = {"variables": {"prompt": next(iter(PROMPTS)), **words}, "columns": {"sku": index}}
                folder.manifest.add(image_line(f"row-{index}", index, 0, file, seed=index, **about))
            page = Gallery(root=tmp_path, shown_as="out", run={}).write(folder.manifest.tasks)
            sizes.append(page.stat().st_size)
    assert sizes[0] < 5_000_000
    assert (sizes[1] - sizes[0]) / 200 <= 500


def test_a_single_file_that_would_be_too_large_is_refused_with_its_size(dataset):
    gallery = Gallery(root=dataset, shown_as="out", run=run_of(dataset))
    tasks = read_manifest(dataset / "manifest.jsonl")
    with pytest.raises(ConfigurationError, match=r"94 images would have \d+ MB"):
        write_single_page(gallery, tasks, max_bytes=100_000)
    assert not (dataset / "gallery-single.html").exists()


def test_a_run_record_that_is_no_json_is_refused(tmp_path):
    assert run_of(tmp_path) == {}
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ConfigurationError, match=r"run\.json is not JSON"):
        run_of(tmp_path)
