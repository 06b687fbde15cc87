"""Names for variables: short where that is enough, with the node's title in front where it is not."""

from __future__ import annotations

import keyword
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from runpod_comfy.workflow.authoring.places import Place

__all__ = ["is_taken", "name_places", "same_value", "slug"]

# Words that mean something else to Jinja.
_TAKEN: Final = frozenset(
    [
        "range",
        "dict",
        "lipsum",
        "cycler",
        "joiner",
        "namespace",
        "loop",
        "self",
        "super",
        "caller",
        "varargs",
        "kwargs",
        "true",
        "false",
        "none",
    ]
)
_GIVEN: Final = frozenset({"input_images", "input_images_dir", "batch_size"})
_SYNONYMS: Final = {
    **dict.fromkeys(("positive", "positive_prompt", "prompt_positive", "pos_prompt"), "prompt"),
    **dict.fromkeys(("negative", "negative_prompt", "prompt_negative", "neg_prompt"), "negative_prompt"),
}


def slug(title: str) -> str:
    """Return a title as a name.

    >>> slug("Base Sampler (1st pass)"), slug("2 people"), slug("…")
    ('base_sampler_1st_pass', 'v_2_people', '')
    """
    word = re.sub(r"\W+", "_", title.lower()).strip("_")
    if not word:
        return ""
    if not word.isidentifier():
        word = f"v_{word}"
    if not word.isidentifier():
        return ""
    return f"{word}_value" if is_taken(word) else word


def is_taken(name: str) -> bool:
    """Whether a name means something else to Jinja or to Python, so that no template can use it.

    >>> is_taken("not"), is_taken("loop"), is_taken("prompt")
    (True, True, False)
    """
    return name in _TAKEN or keyword.iskeyword(name)


def name_places(places: Iterable[Place], *, reserved: Iterable[str] = ()) -> Mapping[str, list[Place]]:
    """Return the places by the variable that fills them.

    Places of one kind and name that hold the same value share a variable, so that rendering its default gives the
    same graph. Of those with different values the first keeps the short name.
    """
    named: dict[str, list[Place]] = {}
    taken = set(reserved)
    for place in places:
        base = _base(place)
        if base in _GIVEN:
            # These are given by whoever runs the template: one that holds another value stays as it is.
            same = named.get(base, ())
            if place.kind == "image" or all(same_value(each, place) for each in same):
                named.setdefault(base, []).append(place)
            continue
        shared = next((name for name, each in named.items() if _shares(each[0], place, base)), None)
        if shared is not None:
            named[shared].append(place)
            continue
        name = _free(base, place, taken | named.keys() | _GIVEN)
        named[name] = [place]
    return named


def _base(place: Place) -> str:
    if place.kind == "text" and place.title:
        title = slug(place.title)
        return _SYNONYMS.get(title, title) or place.base
    return place.base


def _shares(first: Place, place: Place, base: str) -> bool:
    return _base(first) == base and first.kind == place.kind and same_value(first, place)


def same_value(one: Place, other: Place) -> bool:
    """Whether two places hold the same value: 1, 1.0 and true are three."""
    return type(one.value) is type(other.value) and one.value == other.value


def _free(base: str, place: Place, taken: Iterable[str]) -> str:
    if base not in taken:
        return base
    title = slug(place.title)
    if title and place.kind != "text" and (longer := f"{title}_{base}") not in taken:
        return longer
    number = 2
    while f"{base}_{number}" in taken:
        number += 1
    return f"{base}_{number}"
