"""Every example that a verb's help shows is run as it stands, against the emulator; what it writes fits its schema.

A new verb needs nothing here as long as its examples name what the scene below has: `SCENE` files, and the places and
jobs of `STANDS_FOR`. What else it needs, `EXTRA` makes.
"""

import io
import json
import re
import shlex
import shutil
import signal
import sys
from importlib import resources
from pathlib import Path

import jsonschema
import pytest
from PIL import Image, PngImagePlugin

from runpod_comfy.cli.verbs import _VERBS
from runpod_comfy.executors.local import LOCAL_ENDPOINT_ID
from runpod_comfy.profiles import Profile, store_profile

TEMPLATE = """{
"1": {"class_type": "EmptyImage", "inputs": {"width": {{ steps | default(16) }}, "height": 16,
      "batch_size": {{ batch_size }}, "color": {{ cfg | default(1) }}}},
"2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "{{ prompt | default('a fox') }}"}}
}"""
WORKFLOW = {
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "a.safetensors"}},
    "12": {
        "class_type": "LoraLoader",
        "inputs": {
            "model": ["4", 0],
            "clip": ["4", 1],
            "lora_name": "fox.safetensors",
            "strength_model": 0.8,
            "strength_clip": 0.8,
        },
    },
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a fox", "clip": ["12", 1]}},
    "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 16, "height": 16, "batch_size": 1}},
    "3": {
        "class_type": "KSampler",
        "inputs": {
            "model": ["12", 0],
            "positive": ["6", 0],
            "negative": ["6", 0],
            "latent_image": ["5", 0],
            "seed": 7,
            "steps": 8,
            "cfg": 4.0,
            "sampler_name": "euler",
            "scheduler": "normal",
            "denoise": 1.0,
        },
    },
    "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": "a"}},
}
OBJECT_INFO = {
    "EmptyImage": {
        "input": {"required": {name: ["INT", {}] for name in ("width", "height", "batch_size", "color")}},
        "output": ["IMAGE"],
    },
    "SaveImage": {
        "input": {"required": {"images": ["IMAGE"], "filename_prefix": ["STRING", {}]}},
        "output": [],
        "output_node": True,
    },
}

# Exit codes other than 0, by what an example begins with.
CODES = {"runpod-comfy init": 2}  # where nobody can be asked; at a terminal it is tested in test_init.py
WITHOUT_DATASET = {"run", "batch"}  # they make `out` themselves
SERVES = {"emulator"}  # until it is interrupted


def make_selections(here, _):
    images = [json.loads(line) for line in (here / "dataset" / "manifest.jsonl").read_text("utf-8").splitlines()]
    chosen = [
        {"file": each["file"], "task": each["task"], "sample": each["sample"], "stars": 3, "rejected": False}
        for each in images
        if each["schema"] == "image/1"
    ]
    for name in ("selection", "mine", "theirs"):
        text = json.dumps({"schema": "selection/1", "run": None, "images": chosen})
        (here / f"{name}.json").write_text(text)


def make_portrait(_, cli):
    shutil.rmtree("out", ignore_errors=True)
    assert cli("run", "portrait/workflow.json.jinja", "portrait/chelsea.jpg", "-o", "out").code == 0


# By verb: makes what its examples need beyond the scene, in the folder where they run.
EXTRA = {
    "template create": lambda here, _: (here / "workflow.json.jinja").unlink(),
    "pick": make_selections,
    "rerun": make_portrait,
}


@pytest.fixture(scope="session")
def scene(tmp_path_factory):
    """A folder with everything that examples name."""
    root = tmp_path_factory.mktemp("scene")
    (root / "workflow.json.jinja").write_text(TEMPLATE)
    (root / "workflow.json").write_text(json.dumps(WORKFLOW))
    (root / "products.csv").write_text("id,prompt\na,a mug\nb,a jar\n")
    (root / "prompts.txt").write_text("a mug\na jar\n")
    (root / "object_info.json").write_text(json.dumps(OBJECT_INFO))
    (root / "key.txt").write_text("rpa_KEY\n")
    (root / "photos").mkdir()
    for path in ("me.jpg", "photos/1.jpg", "photos/2.jpg"):
        Image.new("RGB", (16, 16)).save(root / path)
    info = PngImagePlugin.PngInfo()
    info.add_text("prompt", json.dumps(WORKFLOW))
    Image.new("RGB", (16, 16)).save(root / "picture.png", pnginfo=info)
    shutil.copytree(Path(__file__).parents[2] / "examples" / "portrait", root / "portrait")
    return root


def verbs():
    return [*(name for name in _VERBS if name != "template"), *(f"template {each}" for each in TEMPLATE_VERBS)]


TEMPLATE_VERBS = ("create", "show", "validate")


def examples(cli, verb):
    """The examples that the help of a verb shows."""
    shown = [line.strip() for line in cli(*verb.split(), "--help").lines]
    return [line for line in shown if re.match(rf"runpod-comfy {verb}(\s|$)", line)]


def words_of(example, stands_for):
    """What a shell would make of an example: patterns, `$(cat FILE)`, `< FILE` and `> FILE` among it."""
    words, stdin = [], None
    text = re.sub(r"\$\(cat (\S+)\)", lambda found: Path(found[1]).read_text().strip(), example)
    text = text.partition(" > ")[0]
    text, _, file = text.partition(" < ")
    if file:
        stdin = Path(file.strip()).read_text()
    for word in shlex.split(text)[1:]:
        real = word
        for name, meant in stands_for.items():
            real = real.replace(name, meant)
        words += sorted(map(str, Path().glob(real))) if "*" in real else [real]
    return words, stdin


def check(envelope, verb):
    jsonschema.validate(envelope, schema("envelope"))
    data = schema(f"data-{verb.replace(' ', '-')}")
    if data is not None:
        jsonschema.validate(envelope["data"], data)
        assert set(envelope["data"]) <= set(data["properties"])


def schema(name):
    file = resources.files("runpod_comfy") / "schemas" / f"{name}.json"
    if not file.is_file():
        return None
    found = json.loads(file.read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(found)
    return found


@pytest.fixture
def stands_for(cli, scene, tmp_path, monkeypatch, request):
    """What the places and jobs that examples name are here: an emulated endpoint, a stand-in ComfyUI, a job's id."""
    rest, stand_in, _ = map(request.getfixturevalue, ("rest", "stand_in", "runpod_emulator"))
    monkeypatch.setenv("RUNPOD_COMFY_CONFIG", str(tmp_path / "config" / "config.toml"))
    monkeypatch.setenv("BROWSER", "true")  # the program that does nothing
    for profile in ("home", "work"):
        store_profile(Profile(name=profile, comfyui=stand_in.url))
    made = json.loads(cli("run", str(scene / "workflow.json.jinja"), "-o", str(tmp_path / "first"), "--json").out)
    job = made["data"]["job_id"]
    for worker in {"w1", *worker_ids()}:
        rest.answers[f"/serverless/local/workers/{worker}/logs"] = "data: {}\n\n"
    (scene / "jobs.txt").write_text(f"{job}\n")
    return {
        "4m7x2k9q": LOCAL_ENDPOINT_ID,
        "http://127.0.0.1:8188": stand_in.url,
        "3799d236-1058-4c97-8910-98d0244ba0fd-e1": job,
        "0c5a…-e1": job,
    }


@pytest.mark.parametrize("verb", [each for each in verbs() if each not in SERVES])
def test_every_example_of_the_help_runs(verb, cli, scene, monkeypatch, request):
    stands_for, tmp_path = request.getfixturevalue("stands_for"), request.getfixturevalue("tmp_path")
    shown = examples(cli, verb)
    assert len(shown) >= 2
    takes_json = "--json " in cli(*verb.split(), "--help").out
    for number, example in enumerate(shown):
        here = tmp_path / f"example-{number}"
        shutil.copytree(scene, here)
        monkeypatch.chdir(here)
        if verb not in WITHOUT_DATASET:
            for name in ("out", "dataset") if "out" in example or "dataset" in example else ():
                assert cli("batch", "workflow.json.jinja", "products.csv", "-o", name, "--local").code == 0
        if verb in EXTRA:
            EXTRA[verb](here, cli)
        words, stdin = words_of(example, stands_for)
        is_last = number == len(shown) - 1
        if takes_json and is_last and "--json" not in words:
            words.append("--json")
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin or ""))
        done = cli(*words)
        assert done.code == CODES.get(example, 0), f"{example}\n{done.out}\n{done.err}"
        assert "Traceback" not in done.err
        if "--json" in words:
            check(json.loads(done.out), verb)


def worker_ids():
    """The workers that the ledger knows of."""
    from runpod_comfy.cli.jobs import open_own_ledger  # noqa: PLC0415 - as the command does

    ledger = open_own_ledger()
    try:
        return {each.worker_id for each in ledger.times().values()}
    finally:
        ledger.close()


@pytest.mark.parametrize("verb", sorted(SERVES))
def test_every_example_of_a_server_starts_one(verb, cli, stand_in, shell):
    for example in examples(cli, verb):
        words, _ = words_of(example, {"http://127.0.0.1:8188": stand_in.url})
        process = shell(
            shlex.join(["exec", "runpod-comfy", *words, *([] if "--port" in words else ["--port", "0"])])[5:]
        )
        assert process.stdout.readline().startswith("export ")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
        assert process.returncode == 0


def test_events_are_lines_of_their_schema_and_the_envelope_comes_last(cli, scene):
    done = cli("run", str(scene / "workflow.json.jinja"), "-n", 3, "-b", 2, "--local", "--events")
    *events, envelope = map(json.loads, done.lines)
    for event in events:
        jsonschema.validate(event, schema("event"))
    assert [event["event"] for event in events].count("output") == 4
    assert Path(next(event["path"] for event in events if event["event"] == "output")).is_file()
    check(envelope, "run")


def test_a_failure_is_an_envelope_too(cli):
    envelope = json.loads(cli("run", "absent.json.jinja", "--json").out)
    jsonschema.validate(envelope, schema("envelope"))
    assert envelope["error"]["code"] == "template_error"


def test_every_schema_is_one_and_every_verb_has_one():
    names = {file.name.removesuffix(".json") for file in (resources.files("runpod_comfy") / "schemas").iterdir()}
    for name in names:
        schema(name)
    assert {f"data-{verb.replace(' ', '-')}" for verb in verbs() if verb not in SERVES} - names <= WITHOUT_SCHEMA


WITHOUT_SCHEMA = {"data-completion"}  # verbs without --json


def test_help_json_names_options_and_examples(cli, scene):
    described = json.loads(cli("run", str(scene / "workflow.json.jinja"), "--help-json").out)
    options = {each["name"]: each for each in described["params"]}
    assert "--cfg" in options["template_variable_cfg"]["opts"]
    assert described["examples"][0].startswith("runpod-comfy run ")
    everything = json.loads(cli("--help-json").out)
    assert set(everything["commands"]) == set(_VERBS)
    assert set(everything["commands"]["template"]["commands"]) == set(TEMPLATE_VERBS)
