"""Write what docs/ says that the code knows better: the commands, the error codes, and llms.txt.

`python .ci/pages.py` writes; a test compares. In a page, such a part stands between two comments.
"""

import re
from pathlib import Path

import click
import yaml

from runpod_comfy.cli import verbs
from runpod_comfy.error_codes import CODES

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
_WIDTH = 96
_PAID = {
    "no": "Nothing was paid for.",
    "maybe": "GPU time may have been paid for.",
    "yes": "GPU time was paid for.",
}


def made_parts() -> dict[str, str]:
    """Return what each part says, by its name in the pages."""
    return {"commands": "\n\n".join(_commands()), "error codes": "\n\n".join(_error_codes())}


def made_pages() -> dict[Path, str]:
    """Return the text of each page that has such a part, and of llms.txt."""
    pages = {}
    for name, part in made_parts().items():
        begin, end = f"<!-- from the code: {name} -->\n", "<!-- to here -->"
        [path] = [each for each in sorted(DOCS.rglob("*.md")) if begin in each.read_text("utf-8")]
        before, rest = path.read_text("utf-8").split(begin)
        pages[path] = f"{before}{begin}\n{part}\n\n{end}{rest.partition(end)[2]}"
    return pages | {DOCS / "llms.txt": _llms()}


def _commands() -> list[str]:
    parts = []
    context = click.Context(verbs._command, info_name=verbs.COMMAND_NAME)  # noqa: SLF001 - the command has no other name
    for name in verbs._command.list_commands(context):  # noqa: SLF001 - likewise
        parts += _command(name, verbs._command.get_command(context, name), context, level=2)  # noqa: SLF001 - likewise
    return parts


def _command(name: str, command: click.Command | None, parent: click.Context, *, level: int) -> list[str]:
    assert command is not None
    context = command.make_context(name, [], parent, resilient_parsing=True, terminal_width=_WIDTH)
    parts = [f"{'#' * level} {context.command_path.removeprefix(parent.find_root().info_name + ' ')}"]
    parts.append(f"```text\n{_without_trailing_space(command.get_help(context))}\n```")
    if isinstance(command, click.Group):
        for each in command.list_commands(context):
            parts += _command(each, command.get_command(context, each), context, level=level + 1)
    return parts


def _error_codes() -> list[str]:
    parts = []
    for code, each in CODES.items():
        python = f" In Python `{each.error}`." if each.error else ""
        about = f"*Exit code {each.exit_code}. {_PAID[each.paid]}{python}*"
        parts.append(f"### `{code}`\n\n{each.means} {each.next_step}\n\n{about}")
    return parts


def _llms() -> str:
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))
    base = site["repo_url"].replace("github.com", "raw.githubusercontent.com") + "/main/docs/"
    lines = [f"# {site['site_name']}", "", f"> {site['site_description']}", ""]
    for entry in site["nav"]:
        [(title, target)] = entry.items()
        pages = [{title: target}] if isinstance(target, str) else target
        lines += [f"## {title}", ""] if isinstance(target, list) else []
        lines += [
            f"- [{name}]({base}{file}): {_first_sentence(DOCS / file)}" for page in pages for name, file in page.items()
        ]
        lines.append("")
    return "\n".join(lines)


def _first_sentence(page: Path) -> str:
    paragraphs = page.read_text("utf-8").split("\n\n")[1:]
    paragraph = next(part for part in paragraphs if not part.startswith(("#", "<", "`", "|")))
    text = re.sub(r"\[([^]]+)\]\([^)]+\)", r"\1", " ".join(paragraph.split()))
    return re.split(r"(?<=[.])\s", text.replace("**", ""))[0]


def _without_trailing_space(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


if __name__ == "__main__":
    for page, text in made_pages().items():
        page.write_text(text, "utf-8")
