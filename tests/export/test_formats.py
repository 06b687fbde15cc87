import csv
import json
import tomllib

import pytest
from PIL import Image

from runpod_comfy.dataset.captions import Caption
from runpod_comfy.errors import ConfigurationError, InputError
from runpod_comfy.export.placing import Placing, new_folder
from runpod_comfy.export.report import Request
from runpod_comfy.export.source import read_source
from runpod_comfy.export.to_civitai import export_civitai
from runpod_comfy.export.to_csv import export_csv
from runpod_comfy.export.to_hf import export_hf
from runpod_comfy.export.to_kohya import export_kohya

LARGEST_SEED = 2**64 - 1


def lines(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_what_is_on_disk_is_read_and_what_is_not_is_counted(dataset):
    source = read_source(dataset)
    assert (len(source.pictures), source.missing, source.failed) == (6, 0, 1)
    source.pictures[0].path.unlink()
    source = read_source(dataset)
    assert (len(source.pictures), source.missing) == (5, 1)


def test_a_batch_may_be_writing_meanwhile(interrupted):
    assert len(read_source(interrupted).pictures) == 5


@pytest.mark.parametrize("file", ["images/link/secret.png", "images/000/link.png"])
def test_a_manifest_leads_to_no_file_outside(file, dataset, tmp_path):
    (tmp_path / "secret.png").write_bytes(b"key")
    (dataset / "images" / "link").symlink_to(tmp_path)
    (dataset / "images" / "000" / "link.png").symlink_to(tmp_path / "secret.png")
    first = next(line for line in lines(dataset / "manifest.jsonl") if line["schema"] == "image/1")
    with (dataset / "manifest.jsonl").open("a") as manifest:
        manifest.write(json.dumps(first | {"file": file}) + "\n")
    with pytest.raises(InputError):
        read_source(dataset)


def test_files_are_linked_and_copied_only_if_asked_for(dataset, tmp_path):
    source = read_source(dataset)
    export_hf(source, Request(target=tmp_path / "linked"))
    export_hf(source, Request(target=tmp_path / "copied", placing=Placing(copied=True)))
    for picture in source.pictures:
        name = picture.row["file_name"]
        assert (tmp_path / "linked" / name).samefile(picture.path)
        assert not (tmp_path / "copied" / name).samefile(picture.path)
        assert (tmp_path / "copied" / name).read_bytes() == picture.path.read_bytes()


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    def fail():
        with new_folder(tmp_path / "new") as folder:
            (folder / "a").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert not list(tmp_path.iterdir())
    (tmp_path / "new").mkdir()
    with new_folder(tmp_path / "new") as folder:
        (folder / "a").touch()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a"]
    with pytest.raises(ConfigurationError, match="exists already"), new_folder(tmp_path / "new"):
        pass


def test_for_clients_nothing_tells_of_workflow_or_people(dataset, tmp_path):
    source = read_source(dataset, strip_inputs=True)
    export_hf(source, Request(target=tmp_path / "client", placing=Placing(stripped=True), strip_inputs=True))
    written = b"".join(path.read_bytes() for path in (tmp_path / "client").rglob("*") if path.is_file())
    for word in (b"person-", b"anna", b"KSampler", b"class_type", b"base.safetensors"):
        assert word not in written
    rows = lines(tmp_path / "client" / "metadata.jsonl")
    assert set(rows[0]) == {"file_name", "text", "prompt", "cfg", "seed", "row", "sample", "width", "height", "sha256"}
    before = {line["sha256"] for line in lines(dataset / "metadata.jsonl")}
    assert not before & {row["sha256"] for row in rows}
    with Image.open(tmp_path / "client" / rows[0]["file_name"]) as image, Image.open(source.pictures[0].path) as first:
        assert image.tobytes() == first.tobytes()


def test_kohya_finds_captions_of_one_line_beside_images_of_one_folder(dataset, tmp_path):
    export_kohya(read_source(dataset, caption=Caption("prompt ~ ' x'")), Request(target=tmp_path / "k"))
    names = sorted(path.name for path in (tmp_path / "k").iterdir())
    assert names == sorted(
        [f"00000{row}_{n}.{end}" for row in (0, 1, 3) for n in (0, 1) for end in ("png", "txt")] + ["dataset.toml"]
    )
    assert (tmp_path / "k" / "000001_0.txt").read_text("utf-8") == "a mug in “ink” x\n"
    config = tomllib.loads((tmp_path / "k" / "dataset.toml").read_text("utf-8"))
    assert config["datasets"][0]["subsets"][0]["image_dir"] == str(tmp_path / "k")
    assert config["datasets"][0]["resolution"] == 64
    warned = export_kohya(read_source(dataset, caption=Caption("")), Request(target=tmp_path / "empty")).warnings
    assert "2 images have no caption" in warned[0]


def test_civitai_finds_generation_data_and_comfyui_its_workflow(dataset, tmp_path):
    source = read_source(dataset)
    export_civitai(source, Request(target=tmp_path / "c"))
    seed, last = LARGEST_SEED, "Model: base, Version: ComfyUI"
    with Image.open(tmp_path / "c" / "000000_0.png") as made, Image.open(source.pictures[0].path) as first:
        assert made.text["prompt"] == first.text["prompt"]
        assert made.tobytes() == first.tobytes()
        assert made.text["parameters"].split("\n") == [
            '=HYPERLINK("http://evil","a")',
            "Negative prompt: blurry",
            f"Steps: 4, Sampler: Euler a Karras, CFG scale: 7, Seed: {seed}, Size: 64x64, {last}",
        ]
    with Image.open(tmp_path / "c" / "000001_1.png") as made:
        assert made.text["parameters"].startswith("a mug\nin “ink”\n")


def test_a_table_runs_no_formula_and_rounds_no_number(dataset, tmp_path):
    made = export_csv(read_source(dataset), Request(target=tmp_path / "t"))
    with made.path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["seed"] == f"'{LARGEST_SEED}"
    assert not [cell for row in rows for cell in row.values() if cell.startswith(("=", "+", "-", "@", "\t"))]
    assert rows[0]["prompt"] == '\'=HYPERLINK("http://evil","a")'
