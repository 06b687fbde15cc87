"""The installed wheel, with the source tree absent: the example runs and makes its pictures."""

import subprocess
import sys
import sysconfig
from pathlib import Path

import runpod_comfy

home = Path(runpod_comfy.__file__).resolve()
assert home.is_relative_to(Path(sysconfig.get_paths()["purelib"]).resolve()), home
assert (home.parent / "py.typed").is_file()
assert not {name.partition(".")[0] for name in sys.modules} & {"runpod", "aiohttp", "PIL"}

command = Path(sys.executable).with_name("runpod-comfy")


def run(*words: str) -> str:
    """Run the command and return what it printed."""
    return subprocess.run([command, *words], check=True, text=True, stdout=subprocess.PIPE).stdout


assert runpod_comfy.__version__ in run("--version")
run("example")
photos = sorted(str(path) for path in Path("portrait").glob("*.jpg"))
assert len(photos) == 2, photos
images = run("run", "portrait/workflow.json.jinja", *photos, "--num-samples", "4", "--batch-size", "2").split()
assert len(images) == 4, images
assert all(Path(image).read_bytes().startswith(b"\x89PNG") for image in images)
run("batch", "portrait/workflow.json.jinja", "portrait", "--output-dir", "dataset")
assert "</html>" in Path("dataset/gallery.html").read_text("utf-8")
print("1 passed, 0 failed")
