import urllib.request

import pytest

from runpod_comfy.bucket import BucketSettings
from runpod_comfy.errors import ConfigurationError
from runpod_comfy.worker.store import store_opener


def get(url):
    with urllib.request.urlopen(url) as answer:  # noqa: S310 - the URL is the storage's
        return answer.read()


def s3_config(url, **more):
    return {"accessId": "id", "accessSecret": "s", "bucketName": "photos", "endpointUrl": url, **more}


@pytest.fixture
def own(storage):
    return BucketSettings(endpoint_url=storage, name="photos", access_key_id="id", secret_access_key="s")


def test_outputs_of_a_job_lie_below_its_id_under_their_own_names(own):
    store = store_opener(own)({"id": "../job-1", "input": {}})
    url = store.put("sub/a_00001_.png", b"data", media_type="image/png")
    assert "/photos/job-1/sub/a_00001_.png?" in url
    assert get(url) == b"data"


def test_request_with_storage_of_its_own_gets_its_outputs_there(storage):
    given = BucketSettings(endpoint_url="http://127.0.0.1:1", name="b", access_key_id="id", secret_access_key="s")
    store = store_opener(given, public_only=False)({"id": "job-2", "s3Config": s3_config(storage)})
    assert get(store.put("a.txt", b"there", media_type="text/plain")) == b"there"


def test_no_bucket_is_opened_where_nobody_names_one():
    assert store_opener(None)({"id": "job-3", "input": {}}) is None


def test_incomplete_storage_of_a_request_is_an_error(storage):
    with pytest.raises(ConfigurationError, match="accessSecret is missing"):
        store_opener(None, public_only=False)({"id": "j", "s3Config": s3_config(storage, accessSecret="")})


@pytest.mark.parametrize("url", ["http://s3.example", "https://127.0.0.1:9000", "https://localhost", "https://[::1]"])
def test_request_cannot_send_the_worker_to_an_address_that_is_not_public(url):
    with pytest.raises(ConfigurationError, match=r"no https address|no public address"):
        store_opener(None)({"id": "j", "s3Config": s3_config(url)})
