"""The page as people use it: a real chromium, from disk, without a network."""

import csv
import io
import json
import shlex
from importlib.resources import files

import jsonschema
import pytest
from made_dataset import failure_line, image_line
from PIL import Image

from runpod_comfy.cli.verbs import run_command
from runpod_comfy.dataset.folder import OutputFolder
from runpod_comfy.dataset.manifest import read_manifest
from runpod_comfy.export.selection import read_selection
from runpod_comfy.gallery.live import LiveGallery
from runpod_comfy.gallery.page import Gallery, run_of
from runpod_comfy.gallery.single import write_single_page

# One process of several has them all, and one browser.
pytestmark = [pytest.mark.xdist_group("browser"), pytest.mark.one_python]

IMAGES = 47 * 2 + 1  # 48 tasks of two samples; one of them failed and is one tile
HOSTILE = [
    "<img src=x onerror=\"window.hacked='onerror'\">",
    "</script><script>window.hacked='script'</script>",
    "line\u2028paragraph\u2029 <!--<script> {{data}} {{script}}",
    "javascript:window.hacked=1 \" ' ` ${window.hacked=2} \N{GRINNING FACE} \u202ertl",
]


def text(page, selector):
    return page.run(f"document.querySelector({json.dumps(selector)})?.textContent")


def shown(page):
    """The ids of the tiles in sight, in their order on the screen."""
    return page.run(
        "[...document.querySelectorAll('.tile')].filter(node => !node.style.transform.includes('-9999'))"
        ".map(node => [node.getBoundingClientRect(), node.id.slice(5)])"
        ".sort(([a], [b]) => a.top - b.top || a.left - b.left).map(([, id]) => id)"
    )


def search(page, query):
    """Search and return what the page says of how many there are."""
    field = "document.querySelector('#search')"
    page.run(f"{field}.value = {json.dumps(query)}; {field}.oninput()")
    return text(page, ".count")


def copied(page, button, what):
    """Click a button that copies and return what was copied."""
    page.click(button)
    page.wait(f"document.querySelector('.toasts').textContent === '{what} copied'")
    return page.clipboard()


def to_grid(page):
    page.run("document.querySelector('.scroller').focus()")
    page.press("Home")


def test_the_grid_shows_pictures_from_their_thumbnails_and_failures_with_their_reason(page):
    assert text(page, ".count") == str(IMAGES)
    assert shown(page)[:3] == ["000000_0", "000000_1", "000001_0"]
    page.wait("document.querySelector('#tile-000000_0 img').naturalWidth === 96")
    assert "__gallery__/thumbs/000/000000_0.webp" in page.run("document.querySelector('#tile-000000_0 img').src")
    assert "CUDA out of memory" in page.run("document.querySelector('#tile-000003_x').dataset.reason")


SEARCHES = {
    "fox": "47 of 95",
    "cfg>5": "47 of 95",
    "cfg>=5 sampler=euler": "24 of 95",
    "fox -ink": "23 of 95",
    '"fresh snow" cfg:9': "11 of 95",
    "seed:18446744073709551615": "1 of 95",
    "seed>18446744073709551613": "2 of 95",
    "is:failed": "1 of 95",
    "out of memory": "1 of 95",
    "lora!=film_v2.safetensors": "48 of 95",
    "nonsense=3": "no variable nonsense",
}


def test_search_takes_words_and_conditions(page):
    assert {query: search(page, query) for query in SEARCHES} == SEARCHES


def test_chips_filter_and_count_what_would_be_there(page):
    page.click(".chip[title=euler]")
    assert text(page, ".count") == "32 of 95"
    page.click(".chip[title=uni_pc]")
    assert text(page, ".count") == "64 of 95"
    page.click(".chip[title='7']")
    assert text(page, ".count") == "16 of 95"
    assert page.run("document.querySelector(\".chip[title='3']\").dataset.count") == "16"
    page.click("[data-state=failed]")
    assert text(page, ".count") == "0 of 95"


def test_sorting_and_grouping_put_things_in_their_order(page):
    page.choose("#sort", "cfg")
    page.click("#direction")
    assert page.run(f"document.querySelector('#tile-{shown(page)[0]}').dataset.caption").startswith("cfg 9")
    page.choose("#group", "sampler")
    assert text(page, ".group") == "dpmpp_2m"
    assert page.run("document.querySelector('.group').dataset.count") == "31"
    page.choose("#sort", "seed")  # descending: numbers that JavaScript would round are told apart
    page.choose("#group", "")
    assert shown(page)[:2] == ["000000_0", "000000_1"]


def test_keys_move_star_reject_and_undo(page):
    to_grid(page)
    page.press("ArrowRight", "4", "ArrowRight", " ", "ArrowRight", "X", "u", "X")
    assert [page.run(f"document.querySelector('#tile-{each}').dataset.mark") for each in shown(page)[:4]] == [
        "",
        "★★★★",
        "★",
        "✕",
    ]
    page.press("u", "u")
    assert page.run("document.querySelectorAll('.tile[data-mark]:not([data-mark=\"\"])').length") == 1
    assert page.run("document.querySelector('[data-state=starred]').dataset.count") == "1"


def test_stars_are_there_again_and_belong_to_their_run(page, dataset, tmp_path):
    to_grid(page)
    page.press("5")
    page.open(dataset / "gallery.html")
    assert page.run("document.querySelector('#tile-000000_0').dataset.mark") == "★★★★★"
    other = tmp_path / "other"
    with OutputFolder(other) as folder:
        folder.write_run({"id": "f" * 16, "num_samples": 1})
        line = image_line("r", 0, 0, "images/000/000000_0.png")
        folder.manifest.add(line)
        (other / "images/000").mkdir(parents=True)
        (other / "images/000/000000_0.png").write_bytes((dataset / "images/000/000000_0.png").read_bytes())
        Gallery(root=other, shown_as="other", run=folder.run).write(folder.manifest.tasks)
    page.open(other / "gallery.html")
    assert page.run("document.querySelector('#tile-000000_0').dataset.mark") == ""
    # It has no thumbnail either: the file itself is shown.
    page.wait("document.querySelector('#tile-000000_0 img').naturalWidth === 96")


def test_the_viewer_shows_everything_and_copies_prompt_seed_and_command(page):
    to_grid(page)
    page.press("Enter")
    assert "a red fox in fresh snow" in text(page, ".details")
    page.wait("document.querySelector('.viewer .layer img').naturalWidth === 96")
    assert "/images/000/000000_0.png" in page.run("document.querySelector('.viewer .layer img').src")
    assert copied(page, "#copy-prompt", "Prompt") == "a red fox in fresh snow, low winter sun, film grain"
    assert copied(page, "#copy-seed", "Seed") == str(2**64 - 1)
    assert copied(page, "#copy-rerun", "Command") == "runpod-comfy rerun out#000000_0"
    page.press("ArrowRight", "3")
    assert text(page, ".details h2") == "000000_1"
    page.press("Escape")
    assert page.run("document.querySelector('dialog')") is None
    assert page.run("document.querySelector('.tile.current').dataset.mark") == "★★★"


def test_a_failed_row_tells_why_and_how_to_try_again(page):
    page.click("[data-state=failed]")
    page.press("Home", "Enter")
    assert "CUDA out of memory" in text(page, ".reason")
    assert "KSampler #31" in text(page, ".details")
    assert copied(page, "#copy-rerun", "Command") == "runpod-comfy rerun out#000003"


def test_two_variables_against_each_other_in_pages(page):
    page.press("x")
    page.choose("#axis-x", "cfg")
    page.choose("#axis-y", "sampler")
    page.choose("#axis-page", "prompt")
    labels = "[...document.querySelectorAll('.axis.{}')].map(node => node.textContent)"
    assert page.run(labels.format("x")) == ["3", "5", "7", "9"]
    assert page.run(labels.format("y")) == ["dpmpp_2m", "euler", "uni_pc"]
    assert len(shown(page)) == 12
    assert page.run("document.querySelector('#tile-000000_0').dataset.of") == "1/4"
    assert text(page, "#page-value").startswith("a red fox")
    page.press("]")
    assert text(page, "#page-value").startswith("harbour")
    page.click("#swap")
    assert page.run(labels.format("y")) == ["3", "5", "7", "9"]
    page.click(".axis.y")
    assert page.run(labels.format("y")) == ["5", "7", "9"]
    page.click("#unhide")
    page.choose("#cell", "all")
    assert len(shown(page)) == 48
    # A link to this view opens it again.
    page.wait("location.hash.includes('view=xy')")
    page.call("Page.reload")
    page.wait("document.readyState === 'complete' && document.querySelector('.axis.x')")
    assert page.run(labels.format("x")) == ["dpmpp_2m", "euler", "uni_pc"]
    assert text(page, "#page-value").startswith("harbour")


def test_a_cell_without_a_picture_says_what_failed(page):
    search(page, "fox lora:film sampler=dpmpp_2m")
    page.press("x")
    page.choose("#axis-x", "cfg")
    page.choose("#axis-y", "sample")
    assert "000003_x" not in shown(page)  # it has no sample: along other axes it is
    page.choose("#axis-y", "sampler")
    assert shown(page) == ["000000_0", "000001_0", "000002_0", "000003_x"]


def test_the_flip_book_moves_along_the_axes(page):
    page.press("x")
    page.choose("#axis-x", "cfg")
    page.choose("#axis-y", "sampler")
    page.run("document.querySelector('.scroller').focus()")
    page.press("f", "ArrowRight", "ArrowDown")
    values = "[...document.querySelectorAll('.book output')].map(node => node.textContent)"
    assert page.run(values) == ["5", "euler"]
    page.run(
        "(() => { const bar = document.querySelector('.book input'); bar.value = 3; bar.oninput({target: bar}); })()"
    )
    assert page.run(values) == ["9", "euler"]


def test_two_pictures_are_compared_in_four_ways(page):
    to_grid(page)
    page.press("c", "ArrowRight", "ArrowRight", "c")
    assert page.run("document.querySelector('.compare .stage').dataset.mode") == "two"
    assert page.run("[...document.querySelectorAll('.differs .name')].map(node => node.textContent)") == ["seed", "cfg"]
    assert page.run("[...document.querySelectorAll('.differs b')].map(node => node.textContent)")[:2] == [
        str(2**64 - 1),
        "3871203311",
    ]
    visible = "getComputedStyle(document.querySelector('.compare .layer.{}')).visibility"
    page.click("#mode-blink")
    assert (page.run(visible.format("a")), page.run(visible.format("b"))) == ("visible", "hidden")
    page.call("Input.dispatchKeyEvent", type="keyDown", key="b", text="b")
    assert (page.run(visible.format("a")), page.run(visible.format("b"))) == ("hidden", "visible")
    page.call("Input.dispatchKeyEvent", type="keyUp", key="b")
    page.click("#mode-swipe")
    assert "50%" in page.run("document.querySelector('.compare .layer.b').style.clipPath")
    page.click("#mode-difference")
    assert page.run("getComputedStyle(document.querySelector('.compare .layer.b')).mixBlendMode") == "difference"
    page.press("+")
    transforms = page.run("[...document.querySelectorAll('.compare img')].map(node => node.style.transform)")
    assert transforms[0] == transforms[1]
    assert "scale(1.5)" in transforms[0]
    page.press("Escape")


def test_long_texts_are_compared_word_by_word(page):
    search(page, "cfg:3 sample:0 sampler:euler lora:film")
    to_grid(page)
    page.press("c", "ArrowRight", "c")
    words = "[...document.querySelectorAll('.words {}')].map(node => node.textContent)"
    assert page.run(words.format("del")) == ["a red fox in fresh snow, low winter sun, film grain"]
    assert page.run(words.format("ins")) == ["harbour at dusk, lanterns on still water"]


def test_a_selection_is_saved_as_json_and_as_a_table_and_read_again(page, tmp_path):
    to_grid(page)
    page.press("5", "ArrowRight", "X", "ArrowRight", "2")
    page.click("#export")
    page.click("#export-json")
    saved = json.loads(page.download())
    key = json.dumps({"cfg": 3, "lora": "film_v2.safetensors", "sampler": "dpmpp_2m"}, sort_keys=True)
    assert saved["schema"] == "selection/1"
    assert saved["run"] == "00c0ffee00c0ffee"
    assert [(each["sample"], each["stars"], each["rejected"]) for each in saved["images"]] == [
        (0, 5, False),
        (1, 0, True),
        (0, 2, False),
    ]
    assert saved["images"][0] == {
        "file": "images/000/000000_0.png",
        "task": f"88-400 {key}",
        "sample": 0,
        "stars": 5,
        "rejected": False,
    }
    # As published, and as `pick` reads it.
    mine = tmp_path / "mine.json"
    mine.write_text(json.dumps(saved))
    jsonschema.validate(saved, json.loads((files("runpod_comfy") / "schemas" / "selection.json").read_text()))
    assert len(read_selection(mine, run_id="00c0ffee00c0ffee")) == 3
    page.click("#export-csv")
    rows = list(csv.DictReader(io.StringIO(page.download().removeprefix("\ufeff"))))
    assert [(row["stars"], row["seed"], row["cfg"]) for row in rows] == [
        ("5", str(2**64 - 1), "3"),
        ("0", str(2**64 - 2), "3"),
        ("2", "3871203311", "5"),
    ]
    assert copied(page, "#copy-ids", "Ids") == "000000_0\n000001_0"
    # Somebody else's: the most stars count, and what one of the two rejects is rejected.
    saved["images"][2]["stars"] = 4
    saved["images"][0] |= {"stars": 1}
    theirs = tmp_path / "theirs.json"
    theirs.write_text(json.dumps(saved))
    node = page.call("Runtime.evaluate", expression="document.querySelector('#import-file')")["result"]["objectId"]
    page.call("DOM.setFileInputFiles", files=[str(theirs)], objectId=node)
    page.wait("document.querySelector('.toasts.shown')?.textContent.startsWith('3 of 3 choices')")
    assert [page.run(f"document.querySelector('#tile-{each}').dataset.mark") for each in shown(page)[:3]] == [
        "★★★★★",
        "✕",
        "★★★★",
    ]


def test_foreign_text_stays_text_wherever_it_is_shown(page, tmp_path):
    root = tmp_path / "<img src=x onerror=hacked=3>'$(x)"
    with OutputFolder(root) as folder:
        folder.write_run({"id": "a" * 16, "num_samples": 1})
        for index, words in enumerate(HOSTILE):
            about = {
                "row_id": words,
                "variables": {"prompt": words, words: 1, "lora": f"{words}{index % 2}"},
                "columns": {"__proto__": words},
            }
            file = f"images/000/{index:06}_0.png"
            folder.manifest.add(image_line(f"{index} {words}", index, 0, file, **about))
            (root / "images/000").mkdir(parents=True, exist_ok=True)
            (root / file).write_bytes(b"no picture")
        folder.manifest.add(failure_line("f", 9, message=HOSTILE[1], **about))
        page_path = Gallery(root=root, shown_as=root.name, run=folder.run).write(folder.manifest.tasks)
    page.open(page_path)
    assert text(page, ".count") == "5"
    assert page.run("document.title").startswith("<img src=x")
    to_grid(page)
    for words in HOSTILE:
        page.press("Enter")
        assert page.run("document.querySelector('.details dd').textContent") == words
        page.press("Escape", "ArrowRight")
    page.press("Home", "c", "ArrowRight", "c", "Escape", "x", "f", "Escape")
    page.press("Home", "1")
    page.click("#export")
    assert shlex.split(copied(page, "#copy-pick", "Command"))[:3] == ["runpod-comfy", "pick", root.name]
    assert page.run("typeof window.hacked") == "undefined"
    assert page.run("document.querySelectorAll('script, img[onerror]').length") == 1


def test_an_open_page_learns_what_a_running_batch_makes(page, dataset):
    # As in the middle of a batch: a page, a state that says there is one part, and that part.
    gallery = Gallery(root=dataset, shown_as="out", run=run_of(dataset))
    tasks = read_manifest(dataset / "manifest.jsonl")
    first, second = dict(list(tasks.items())[:10]), dict(list(tasks.items())[10:12])
    written = (dataset / "gallery.html").read_text()
    try:
        live = LiveGallery(gallery, first)
        live._begin(first)
        page.open(dataset / "gallery.html")
        assert text(page, ".count") == "19"
        assert text(page, ".live") == "Running"
        live._add_part(list(second.items()))
        page.run("runpodComfyGallery.ask()")
        page.wait("document.querySelector('.count').textContent === '23'")
        live._end(tasks)
        page.run("runpodComfyGallery.ask()")
        page.wait("document.querySelector('.live').hidden")
    finally:
        (dataset / "gallery.html").write_text(written)


def test_the_single_file_shows_its_own_pictures(page, dataset, tmp_path):
    tasks = read_manifest(dataset / "manifest.jsonl")
    single = write_single_page(Gallery(root=dataset, shown_as="out", run=run_of(dataset)), tasks)
    alone = tmp_path / "alone.html"
    single.rename(alone)
    page.open(alone)
    page.wait("document.querySelector('#tile-000000_0 img').naturalWidth === 96")
    page.press("Home", "Enter")
    page.wait("document.querySelector('.viewer .layer img').naturalWidth === 96")


def test_a_narrow_window_shows_pictures_and_filters_on_demand(page):
    page.resize(400, 800)
    try:
        page.wait("document.querySelectorAll('.tile').length > 4")
        assert page.run("document.documentElement.scrollWidth") == 400
        page.click(".filters-toggle")
        page.wait("document.querySelector('.facets').getBoundingClientRect().left === 0")
    finally:
        page.resize(1400, 900)


def test_the_largest_seed_survives_manifest_page_and_the_copied_command(page, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.csv").write_text(f"id,seed\nbig,{2**64 - 1}\n")
    (tmp_path / "t.json.jinja").write_text(
        '{"1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 255}},'
        ' "2": {"class_type": "FixtureSleep",'
        ' "inputs": {"image": ["1", 0], "seconds": 0, "steps": 1, "seed": {{ seed }}}},'
        ' "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "p"}}}'
    )
    assert run_command(["batch", "t.json.jinja", "rows.csv", "--local", "-o", "my out", "-q"]) == 0
    page.open(tmp_path / "my out" / "gallery.html")
    page.press("Home", "Enter")
    command = shlex.split(copied(page, "#copy-rerun", "Command"))
    assert command == ["runpod-comfy", "rerun", "my out#000000_0"]
    assert run_command([*command[1:], "--local", "-o", "again"]) == 0
    assert "identical pixels" in capfd.readouterr().err
    with Image.open(tmp_path / "again" / "000000_0.png") as again:
        assert json.loads(again.text["prompt"])["2"]["inputs"]["seed"] == 2**64 - 1
