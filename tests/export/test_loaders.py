"""Each format opened by the program that it is for. The only module that loads `datasets`: it takes a second."""

import gc
import json
import warnings

import datasets
import pandas as pd
import pytest
import webdataset
from PIL import Image
from pyarrow import parquet

from runpod_comfy.dataset.captions import Caption
from runpod_comfy.export import to_parquet, to_webdataset
from runpod_comfy.export.report import Request
from runpod_comfy.export.source import read_source
from runpod_comfy.export.to_csv import export_csv
from runpod_comfy.export.to_hf import export_hf, refresh_in_place
from runpod_comfy.export.to_parquet import export_parquet
from runpod_comfy.export.to_webdataset import export_webdataset

pytestmark = pytest.mark.one_python

LARGEST_SEED = 2**64 - 1
COLUMNS = {"text", "sku", "prompt", "cfg", "seed", "row", "sample", "id", "width", "height", "sha256"}


@pytest.fixture(autouse=True)
def _quiet(monkeypatch, tmp_path):
    datasets.disable_progress_bars()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def load(*args, **options):
    return datasets.load_dataset(*args, **options, cache_dir=str(datasets.config.HF_DATASETS_CACHE))


def check(loaded, count=6):
    assert set(loaded) == {"train"}
    train = loaded["train"]
    assert (train.num_rows, set(train.column_names)) == (count, COLUMNS | {"image"})
    assert all(image.size == (64, 64) for image in train["image"])
    assert str(LARGEST_SEED) in train["seed"]
    assert "a mug\nin “ink”" in train["prompt"]


def test_a_dataset_opens_as_it_is(dataset):
    check(load(str(dataset)))
    check(load("imagefolder", data_dir=str(dataset)))


def test_an_interrupted_one_opens_once_it_is_exported_and_lacks_only_what_was_cut(interrupted, tmp_path):
    export_hf(read_source(interrupted), Request(target=tmp_path / "hf"))
    check(load(str(tmp_path / "hf")), count=5)
    refresh_in_place(read_source(interrupted), caption=None)
    check(load(str(interrupted)), count=5)


def test_a_killed_one_opens_with_what_its_metadata_tells(dataset):
    metadata = dataset / "metadata.jsonl"
    metadata.write_text("".join(metadata.read_text("utf-8").splitlines(keepends=True)[:3]), "utf-8")
    check(load(str(dataset)), count=3)
    check(load("imagefolder", data_dir=str(dataset)), count=3)


def test_captions_beside_the_images_are_not_taken_for_data(dataset):
    for path in (dataset / "images").rglob("*.png"):
        path.with_suffix(".txt").write_text("a caption")
    check(load(str(dataset)))
    check(load("imagefolder", data_dir=str(dataset)))


def test_a_caption_becomes_the_column_text_for_good(dataset):
    caption = "(sku | default('')) ~ '!'"
    refresh_in_place(read_source(dataset, caption=Caption(caption)), caption=caption)
    assert json.loads((dataset / "run.json").read_text())["caption"] == caption
    assert set(load(str(dataset))["train"]["text"]) == {"anna!", "=1+1!", "!"}


def test_parquet_holds_images(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(to_parquet, "_GROUP_ROWS", 2)
    monkeypatch.setattr(to_parquet, "_FILE_BYTES", 10_000)
    source = read_source(dataset)
    export_parquet(source, Request(target=tmp_path / "pq"))
    files = sorted((tmp_path / "pq" / "data").iterdir())
    assert len(files) > 1
    assert parquet.ParquetFile(files[0]).metadata.row_group(0).num_rows <= 2
    check(load(str(tmp_path / "pq")))
    frame = pd.read_parquet(tmp_path / "pq" / "data")
    assert [each["bytes"] for each in frame["image"]] == [picture.path.read_bytes() for picture in source.pictures]
    assert list(frame["seed"][:2]) == [str(LARGEST_SEED)] * 2


def test_webdataset_reads_its_shards(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(to_webdataset, "SAMPLES_IN_SHARD", 4)
    source = read_source(dataset)
    made = export_webdataset(source, Request(target=tmp_path / "wds"))
    assert made.path.name == "{00000..00001}.tar"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves the last shard open
        samples = list(webdataset.WebDataset(str(made.path), shardshuffle=False).decode("pil"))
        gc.collect()
    assert [each["__key__"] for each in samples] == [f"{number:09}" for number in range(6)]
    assert samples[0]["png"].size == (64, 64)
    assert samples[2]["txt"] == "a mug\nin “ink”"
    assert samples[0]["json"]["seed"] == str(LARGEST_SEED)
    frame = pd.concat([pd.read_parquet(tmp_path / "wds" / f"0000{number}.parquet") for number in (0, 1)])
    assert (len(frame), set(frame.columns)) == (6, COLUMNS | {"key", "file_name"})


def test_pandas_reads_metadata_and_table(dataset, tmp_path):
    export_csv(read_source(dataset), Request(target=tmp_path / "csv"))
    table = pd.read_csv(tmp_path / "csv" / "images.csv", dtype={"seed": str})
    flat = pd.read_json(dataset / "metadata.jsonl", lines=True, dtype={"seed": str})
    assert len(table) == len(flat) == 6
    assert set(table["seed"].str.removeprefix("'")) == set(flat["seed"])
    assert str(LARGEST_SEED) in set(flat["seed"])
    with Image.open(tmp_path / "csv" / table["file_name"][0]) as image:
        assert image.size == (64, 64)
