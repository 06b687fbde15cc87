import pytest
from hypothesis import given
from hypothesis import strategies as st

from runpod_comfy.media.wire import from_base64, to_base64


@given(st.binary())
def test_base64_comes_back_as_it_went(data):
    assert from_base64(to_base64(data)) == data
    assert from_base64("data:image/png;base64," + to_base64(data), allow_data_uri=True) == data


@pytest.mark.parametrize("text", ["AAA", "A*==", "AAAA\n", "====", "data:image/png;base64,AAAA"])
def test_what_is_no_base64_is_refused(text):
    with pytest.raises(ValueError, match=r".+"):
        from_base64(text)
