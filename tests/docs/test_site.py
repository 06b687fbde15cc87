"""What the site's generator does not see: pages left out, links to nothing, settings that nobody reads."""

import importlib.util
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))
TOP = ["README.md", "SECURITY.md", "docker/README.md"]
EXTENSIONS = {"admonition", "attr_list", "md_in_html", "tables", "toc", "pymdownx.highlight", "pymdownx.superfences"}


def leaves(nav):
    for entry in nav:
        for target in entry.values():
            yield from [target] if isinstance(target, str) else leaves(target)


def names(listed):
    return {each if isinstance(each, str) else next(iter(each)) for each in listed}


def links(text):
    """The targets of a page's links and pictures; those in code are none."""
    prose = re.sub(r"^```.*?^```|`[^`\n]+`", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"\]\(([^)\s]+)\)", prose)


def test_every_page_is_in_the_navigation_once():
    assert sorted(leaves(SITE["nav"])) == [page.relative_to(DOCS).as_posix() for page in PAGES]


def test_the_settings_are_those_that_zensical_reads():
    assert set(SITE) == {
        "site_name",
        "site_description",
        "repo_url",
        "repo_name",
        "use_directory_urls",
        "copyright",
        "nav",
        "theme",
        "plugins",
        "markdown_extensions",
    }
    assert names(SITE["plugins"]) == {"search", "mkdocstrings"}
    assert names(SITE["markdown_extensions"]) == EXTENSIONS
    assert set(SITE["theme"]) == {"name", "font", "features", "palette"}


@pytest.mark.parametrize("name", [*TOP, *(page.relative_to(ROOT).as_posix() for page in PAGES)])
def test_what_a_page_links_to_or_shows_is_there(name):
    page = ROOT / name
    for target in links(page.read_text("utf-8")):
        path = target.partition("#")[0]
        assert not path or re.match(r"https?:", path) or (page.parent / path).is_file(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_leads_nowhere_outside_the_site(page):
    for target in links(page.read_text("utf-8")):
        assert target.startswith(("http", "#")) or ".." not in target, target


def test_what_the_code_knows_better_is_as_the_code_has_it():
    spec = importlib.util.spec_from_file_location("pages", ROOT / ".ci" / "pages.py")
    pages = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pages)
    made = pages.made_pages()
    assert len(made) == 3
    for path, text in made.items():
        assert path.read_text("utf-8") == text, f"{path.name}: run python .ci/pages.py"


def test_every_picture_is_shown_somewhere():
    shown = {target for name in [*TOP, *PAGES] for target in links((ROOT / name).read_text("utf-8"))}
    pictures = {path.name for path in (DOCS / "img").iterdir()}
    assert pictures <= {Path(target).name for target in shown}
