"""One browser for all tests of the page, and a small dataset to show."""

import pytest
from chromium import Chromium, find_chromium
from made_dataset import PROMPTS, make_dataset

from runpod_comfy.dataset.manifest import read_manifest
from runpod_comfy.gallery.page import Gallery, run_of


def write_page(root):
    return Gallery(root=root, shown_as=root.name, run=run_of(root)).write(read_manifest(root / "manifest.jsonl"))


@pytest.fixture(scope="session")
def dataset(tmp_path_factory):
    """Two prompts in 24 cells of two samples; task 3 failed."""
    root = tmp_path_factory.mktemp("gallery") / "out"
    make_dataset(root, prompts=tuple(PROMPTS)[:2], size=(96, 64), failing={3})
    write_page(root)
    return root


@pytest.fixture(scope="module")
def browser():
    path = find_chromium()
    if path is None:
        pytest.skip("there is no chromium on this machine (apt-get install chromium)")
    made = Chromium(path)
    yield made
    made.close()


@pytest.fixture
def page(browser, dataset):
    """The dataset's page in a browser that has seen nothing yet; at the end nothing may have gone wrong in it."""
    browser.errors.clear()
    browser.requests.clear()
    browser.open(dataset / "gallery.html")
    if browser.run("localStorage.length"):
        browser.run("localStorage.clear()")
        browser.open(dataset / "gallery.html")
    yield browser
    browser.run("localStorage.clear()")
    assert browser.errors == []
    assert [url for url in browser.requests if not url.startswith(("file:", "about:", "data:", "blob:"))] == []
