import urllib.request

import pytest

from runpod_comfy.bucket import Bucket, BucketSettings, object_key
from runpod_comfy.errors import ConfigurationError, TransportError

ENV = {
    "BUCKET_ENDPOINT_URL": "https://s3.example/photos",
    "BUCKET_ACCESS_KEY_ID": "id",
    "BUCKET_SECRET_ACCESS_KEY": "s",
}


def settings(url, **more):
    return BucketSettings(
        **{"endpoint_url": url, "name": "photos", "access_key_id": "id", "secret_access_key": "s", **more}
    )


def get(url):
    with urllib.request.urlopen(url) as answer:  # noqa: S310 - the URL is the storage's
        return answer.read(), answer.headers["Content-Type"]


@pytest.mark.parametrize("size_bytes", [3, 70_000_000])  # the second in several parts
def test_what_is_put_can_be_fetched_by_its_url_alone(storage, size_bytes):
    data = b"\x89PN" * (size_bytes // 3)
    url = Bucket(settings(storage, prefix="team")).put("job-1/sub/ä (1).png", data, media_type="image/png")
    assert url.startswith(f"{storage}/photos/team/job-1/sub/")
    assert get(url) == (data, "image/png")


def test_bucket_that_is_not_there_is_an_error_that_names_it_and_no_key(storage):
    with pytest.raises(TransportError, match=r"'absent' at .* did not take 'k': NoSuchBucket") as failure:
        Bucket(settings(storage, name="absent", secret_access_key="hidden")).put("k", b"1", media_type="text/plain")
    assert "hidden" not in str(failure.value)


def test_storage_that_does_not_answer_is_an_error(unused_tcp_port):
    with pytest.raises(TransportError, match="did not take 'k'"):
        Bucket(settings(f"http://127.0.0.1:{unused_tcp_port}")).put("k", b"1", media_type="text/plain")


def test_no_bucket_is_configured_where_no_variable_is_set():
    assert BucketSettings.from_env({}) is None
    assert BucketSettings.from_env({"BUCKET_ENDPOINT_URL": " "}) is None
    assert BucketSettings.from_s3_config(None) is None
    assert BucketSettings.from_s3_config({}) is None


@pytest.mark.parametrize("missing", ENV)
def test_incomplete_credentials_are_an_error_that_names_what_is_missing(missing):
    with pytest.raises(ConfigurationError, match=f"incomplete: {missing} is missing"):
        BucketSettings.from_env({**ENV, missing: ""})


def test_s3_config_of_a_request_is_read_and_told_what_it_lacks():
    config = {"accessId": "id", "accessSecret": "s", "bucketName": "photos", "endpointUrl": "https://s3.example"}
    assert BucketSettings.from_s3_config(config) == settings("https://s3.example")
    with pytest.raises(ConfigurationError, match="accessSecret is missing"):
        BucketSettings.from_s3_config({**config, "accessSecret": None})
    with pytest.raises(ConfigurationError, match="no object"):
        BucketSettings.from_s3_config("https://s3.example")


@pytest.mark.parametrize(
    ("url", "name", "host", "region"),
    [
        ("https://photos.s3.eu-central-1.amazonaws.com", "", "https://s3.eu-central-1.amazonaws.com", "eu-central-1"),
        ("https://photos.s3.amazonaws.com/", "photos", "https://s3.amazonaws.com", "us-east-1"),
        (
            "https://s3.ap-south-1.amazonaws.com/photos",
            "",
            "https://s3.ap-south-1.amazonaws.com",
            "ap-south-1",
        ),
        ("https://photos.nyc3.digitaloceanspaces.com", "", "https://nyc3.digitaloceanspaces.com", "nyc3"),
        ("https://0a1b.r2.cloudflarestorage.com", "photos", "https://0a1b.r2.cloudflarestorage.com", "us-east-1"),
        ("https://photos.minio.example", "photos", "https://minio.example", "us-east-1"),
        ("http://127.0.0.1:9000/photos", "", "http://127.0.0.1:9000", "us-east-1"),
    ],
)
def test_bucket_and_region_are_read_from_the_usual_addresses(url, name, host, region):
    found = BucketSettings.from_env({**ENV, "BUCKET_ENDPOINT_URL": url, "BUCKET_NAME": name})
    assert (found.endpoint_url, found.name, found.region) == (host, "photos", region)


@pytest.mark.parametrize(
    "url", ["s3.example/photos", "ftp://s3.example/photos", "https://", "https://u:p@s3.example/b", "https://h:x/b"]
)
def test_address_that_cannot_be_right_is_refused_without_being_repeated(url):
    with pytest.raises(ConfigurationError, match=r"no https://… address") as failure:
        BucketSettings.from_env({**ENV, "BUCKET_ENDPOINT_URL": url})
    assert "u:p" not in str(failure.value)


def test_bucket_without_a_name_is_an_error_that_says_where_to_put_it():
    with pytest.raises(ConfigurationError, match="set BUCKET_NAME"):
        BucketSettings.from_env({**ENV, "BUCKET_ENDPOINT_URL": "https://s3.eu-central-1.amazonaws.com"})


def test_keys_are_shown_nowhere():
    secret = settings("https://s3.example", access_key_id="AKIA-hidden", secret_access_key="hidden")
    assert "hidden" not in repr(secret)
    assert "hidden" not in repr(Bucket(secret))


@pytest.mark.parametrize(
    ("parts", "key"),
    [
        (("job", "", "a.png"), "job/a.png"),
        (("../job", "..\\x\\..", "/a\0\n.png"), "job/x/a.png"),
        (("job", "sub/below", "ü" * 300), "job/sub/below/" + "ü" * 100),
    ],
)
def test_key_of_an_object_stays_below_its_job(parts, key):
    assert object_key(*parts) == key
