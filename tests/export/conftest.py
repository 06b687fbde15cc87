"""Datasets as runs leave them: finished with a row that failed, and interrupted."""

import asyncio
import shutil

import pytest

from runpod_comfy import LocalWorkflowExecutor, WorkflowTemplate
from runpod_comfy.dataset.folder import OutputFolder
from runpod_comfy.dataset.plan import make_tasks
from runpod_comfy.dataset.rows import Row, Table
from runpod_comfy.dataset.runner import DatasetRunner, RunOptions
from runpod_comfy.dataset.template_copy import copy_template

TEXT = """{
  "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "base.safetensors"}},
  "2": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": {{ batch_size }}}},
  "3": {"class_type": "KSampler", "inputs": {"seed": {{ seed }}, "steps": 4, "cfg": {{ cfg | default(7) }},
        "sampler_name": "euler_ancestral", "scheduler": "karras", "denoise": 1, "model": ["1", 0],
        "positive": ["4", 0], "negative": ["5", 0], "latent_image": ["2", 0]}},
  "4": {"class_type": "CLIPTextEncode", "inputs": {"text": "{{ prompt }}", "clip": ["1", 1]}},
  "5": {"class_type": "CLIPTextEncode", "inputs": {"text": "blurry", "clip": ["1", 1]}},
  "6": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["1", 2]}},
  "9": {"class_type": "SaveImage", "inputs": {"images": ["6", 0], "filename_prefix": "x"}}
}"""
LARGEST_SEED = 2**64 - 1
FORMULA = '=HYPERLINK("http://evil","a")'


@pytest.fixture(scope="session")
def _made(tmp_path_factory):
    template, root = WorkflowTemplate.from_string(TEXT, name="t.jinja"), tmp_path_factory.mktemp("made") / "out"
    values = [
        {"prompt": FORMULA, "sku": "anna", "seed": str(LARGEST_SEED)},
        {"prompt": "a mug\nin “ink”", "cfg": 7.5, "sku": "=1+1"},
        {"prompt": "a cup", "cfg": "not a number", "sku": "ben"},
        {"prompt": "", "cfg": 5},
    ]
    rows = tuple(Row(id=f"person-{n}", line=n + 2, values=each) for n, each in enumerate(values))
    tasks = make_tasks(Table(rows=rows), template=template, num_samples=2, run_seed=3)
    with LocalWorkflowExecutor() as executor, OutputFolder(root) as folder:
        copy_template(template, {}, root)
        folder.write_run({"schema": "run/1", "id": folder.new_run_id(), "version": "0"})
        runner = DatasetRunner(executor, template, folder, options=RunOptions(batch_size=2))
        asyncio.run(runner.run(tasks))
    return root


@pytest.fixture
def dataset(_made, tmp_path):
    """A dataset of six images, of three rows; a fourth row failed."""
    return shutil.copytree(_made, tmp_path / "out")


@pytest.fixture
def interrupted(dataset):
    """The same, as a kill leaves it: the last line cut off, no metadata yet, a file that no line tells of."""
    manifest = dataset / "manifest.jsonl"
    lines = manifest.read_bytes().splitlines(keepends=True)
    last = max(number for number, line in enumerate(lines) if b'"image/1"' in line)
    manifest.write_bytes(b"".join(lines[:last]) + lines[last][:-20])
    (dataset / "metadata.jsonl").unlink()
    (dataset / "README.md").unlink()
    (dataset / "images" / "000" / ".0123456789ab.part").write_bytes(b"half")
    return dataset
