import pytest

from runpod_comfy.ledger import keepable_variables


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("api_key", "x"),
        ("apiKey", "x"),
        ("API-KEY", "x"),
        ("hf_token", "x"),
        ("password", "x"),
        ("comfy_org_api_key", "x"),
        ("extra", {"inner": {"accessToken": "x"}}),
        ("extra", [{"authorization": "x"}]),
        ("note", "use hf_abcdefghijklmnop please"),
        ("note", "rpa_0123456789ABCDEF"),
        ("note", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abc"),
        ("note", "the key is my-own-runpod-key, yes"),
        ("mask", "iVBORw0KGgo" * 2000),
        ("value", float("nan")),
        ("value", b"bytes"),
        ("value", {1, 2}),
        ("value", "lone \ud800"),
    ],
    ids=lambda each: str(each)[:30].encode("ascii", "replace").decode(),
)
def test_what_may_be_a_secret_is_withheld(name, value):
    kept, withheld = keepable_variables({name: value, "steps": 8}, secrets=["my-own-runpod-key"])
    assert (kept, withheld) == ({"steps": 8}, (name,))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("prompt", 'a "noir" portrait of a monkey with a keyboard'),
        ("keyframes", [0, 8, 16]),
        ("tokenizer", "clip-l"),
        ("author", "somebody"),
        ("steps", 8),
        ("upscale", True),
        ("size", {"width": 512, "height": 768}),
        ("none", None),
    ],
)
def test_ordinary_variables_are_kept(name, value):
    assert keepable_variables({name: value}) == ({name: value}, ())
