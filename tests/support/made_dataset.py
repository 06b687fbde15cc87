"""A dataset's folder with pictures that look like some: landscapes whose colours and shapes follow their variables."""

from __future__ import annotations

import colorsys
import hashlib
import io
import json
import math
import random
from functools import lru_cache
from itertools import product

from PIL import Image, ImageChops, ImageDraw, ImageEnhance, ImageFilter, ImageOps

from runpod_comfy.dataset.folder import OutputFolder
from runpod_comfy.dataset.thumbs import keep_thumb, make_thumbs, missing_thumbs

PROMPTS = {
    "a red fox in fresh snow, low winter sun, film grain": (0.03, "peaks"),
    "harbour at dusk, lanterns on still water": (0.62, "sea"),
    "terraced tea fields in morning fog, aerial": (0.33, "hills"),
    "desert road under a huge moon, long exposure": (0.09, "dunes"),
    "pine forest after rain, shafts of light": (0.40, "peaks"),
    "lavender rows, storm coming from the west": (0.75, "hills"),
    "arctic bay with drifting ice, pale pink sky": (0.90, "sea"),
    "canyon at noon, cobalt shadows": (0.06, "dunes"),
}
SAMPLERS = ("dpmpp_2m", "euler", "uni_pc")
CFGS = (3, 5, 7, 9)
LORAS = ("film_v2.safetensors", "inkwash_0.8.safetensors")


def _rgb(hue, saturation, value):
    return tuple(round(255 * each) for each in colorsys.hsv_to_rgb(hue % 1, saturation, value))


@lru_cache(maxsize=512)
def landscape(prompt, seed, size=(512, 512)):
    """Draw a landscape: sky, sun, ridges that grow darker, and in front what belongs to the prompt's kind."""
    hue, kind = PROMPTS[prompt]
    rng = random.Random(f"{prompt} {seed}")
    hue += rng.uniform(-0.03, 0.03)
    image = ImageOps.colorize(
        Image.linear_gradient("L").resize(size),
        _rgb(hue + 0.5, 0.35, rng.uniform(0.55, 0.95)),
        _rgb(hue, 0.30, 1.0),
        mid=_rgb(hue + 0.55, 0.18, 0.95),
    )
    _draw_sun(image, hue, rng)
    draw = ImageDraw.Draw(image)
    for depth in (0, 0.25, 0.5, 0.75, 1):
        colour = _rgb(hue + 0.08 * depth, 0.25 + 0.45 * depth, 0.86 - 0.62 * depth)
        draw.polygon(_ridge(kind, depth, size, rng), fill=colour)
    width, height = size
    for _ in range(rng.randint(6, 16)):
        x, y, tall = rng.uniform(0, width), height * rng.uniform(0.86, 1.0), height * rng.uniform(0.05, 0.22)
        colour = _rgb(hue + 0.05, 0.6, rng.uniform(0.08, 0.2))
        if kind in {"peaks", "hills"}:
            draw.polygon([(x, y - tall), (x - tall / 4, y), (x + tall / 4, y)], fill=colour)
        else:
            draw.ellipse((x - tall / 3, y - tall / 6, x + tall / 3, y + tall / 6), fill=colour)
    return image


def _draw_sun(image, hue, rng):
    width, height = image.size
    radius = round(height * rng.uniform(0.10, 0.34))
    x, y = round(rng.uniform(0.1, 0.9) * width), round(rng.uniform(0.18, 0.5) * height)
    glow = ImageOps.invert(Image.radial_gradient("L")).resize((radius * 4, radius * 4))
    glow = glow.point(lambda value: max(0, value - 78) * 1.4)
    image.paste(_rgb(hue + 0.04, 0.25, 1.0), (x - 2 * radius, y - 2 * radius), glow)
    half = radius // 2
    ImageDraw.Draw(image).ellipse((x - half, y - half, x + half, y + half), fill=_rgb(hue + 0.08, 0.18, 1.0))


def _ridge(kind, depth, size, rng):
    width, height = size
    calm = 0.1 if kind == "sea" and depth > 0.25 else 1
    jagged = {"peaks": 0.08, "sea": 0.0, "hills": 0.0, "dunes": 0.02}[kind] * height * (1 - depth)
    waves = [
        (rng.uniform(1, 5) * (1 + 2 * depth), rng.uniform(0, 6.3), height * rng.uniform(0.015, 0.06)) for _ in range(3)
    ]
    points = []
    for x in range(0, width + 8, 8):
        wave = sum(high * math.sin(many * x / width * math.pi + phase) for many, phase, high in waves)
        points.append((x, height * (0.46 + 0.48 * depth) + wave * calm - abs(rng.gauss(0, jagged))))
    return [*points, (width, height), (0, height)]


def picture(variables, seed, size=(512, 512)):
    """The landscape as these settings would have drawn it."""
    cfg, sampler = variables["cfg"], variables["sampler"]
    image = landscape(variables["prompt"], seed, size)
    image = ImageEnhance.Color(image).enhance(0.45 + cfg / 11)
    image = ImageEnhance.Contrast(image).enhance(0.8 + cfg / 24)
    if sampler == "euler":
        image = image.filter(ImageFilter.GaussianBlur(size[0] / 220))
    elif sampler == "uni_pc":
        image = ImageOps.posterize(image, 3)
    if variables["lora"] == LORAS[1]:
        grey = ImageOps.colorize(ImageOps.grayscale(image), "#101820", "#f4efe6")
        image = Image.blend(image, grey, 0.8)
    return image


def encoded(image, kind="PNG"):
    data = io.BytesIO()
    image.save(data, kind, **({"quality": 86} if kind == "JPEG" else {"compress_level": 1}))
    return data.getvalue()


def image_line(key, index, sample, file, data=b"", *, variables=None, columns=None, seed=1, **about):
    """A manifest's line for an image that is on disk."""
    return {
        "schema": "image/1",
        "task": key,
        "index": index,
        "batch": sample,
        "row_id": key,
        "sample": sample,
        "file": file,
        "name": f"ComfyUI_{sample:05}_.png",
        "kind": "images",
        "sha256": hashlib.sha256(data).hexdigest(),
        "size_bytes": len(data),
        "width": 8,
        "height": 8,
        "media_type": "image/png",
        "variables": variables or {},
        "columns": columns or {},
        "seed": str(seed),
        "node": {"id": "9", "title": "Save Image"},
        **about,
    }


def failure_line(
    key, index, *, variables=None, columns=None, message="CUDA out of memory. Tried to allocate 2.25 GiB", **about
):
    """A manifest's line for a try that failed."""
    return {
        "schema": "failure/1",
        "task": key,
        "index": index,
        "row_id": key,
        "line": index + 2,
        "try": 2,
        "error": {"code": "job_failed", "message": message, "node_id": "31", "node_type": "KSampler"},
        "job_id": f"job-{index}",
        "variables": variables or {},
        "columns": columns or {},
        **about,
    }


def job_line(key, index):
    return {"schema": "job/1", "task": key, "index": index, "job_id": f"job-{index}", "first_batch": 0, "at": 1.0}


def cells(prompts):
    """Every combination, as task key, row id, variables and columns."""
    for number, prompt in enumerate(prompts):
        for lora, sampler, cfg in product(LORAS, SAMPLERS, CFGS):
            cell = {"cfg": cfg, "sampler": sampler, "lora": lora}
            row_id = f"88-{400 + number}"
            columns = {"sku": f"SKU-{number % 4}"}
            yield f"{row_id} {json.dumps(cell, sort_keys=True)}", row_id, {"prompt": prompt, **cell}, columns


def make_dataset(root, *, prompts=tuple(PROMPTS), samples=2, size=(256, 256), failing=()):
    """Write a folder as `batch` leaves it; `failing` are the numbers of tasks that failed."""
    with OutputFolder(root) as folder:
        folder.write_run({"schema": "run/1", "id": "00c0ffee00c0ffee", "num_samples": samples, "batch_size": samples})
        for index, (key, row_id, variables, columns) in enumerate(cells(prompts)):
            about = {"row_id": row_id, "variables": variables, "columns": columns}
            folder.manifest.add(job_line(key, index))
            if index in failing:
                folder.manifest.add(failure_line(key, index, **about))
                continue
            for sample in range(samples):
                # The first row's are the largest there are.
                seed = 2**64 - 1 - sample if index == 0 else 3871203311 + sample
                data = encoded(picture(variables, sample, size))
                file = _write(root, index, sample, data, "png")
                keep_thumb(root, index, sample, data)
                width, height = size
                line = image_line(key, index, sample, file, data, seed=seed, width=width, height=height, **about)
                folder.manifest.add(line)
            folder.manifest.add({"schema": "batch/1", "task": key, "index": index, "batch": 0, "batches": 1})


def make_large_dataset(root, *, rows=2000, samples=4, side=512):
    """Write a folder of thousands of images: a few hundred are drawn, each of the others is one of them shifted."""
    prompts = list(PROMPTS)
    words = [word for each in prompts for word in each.split()]
    with OutputFolder(root) as folder:
        folder.write_run({"schema": "run/1", "id": "b" * 16, "num_samples": samples, "batch_size": samples})
        for index in range(rows):
            rng = random.Random(index)
            prompt, key = prompts[index % len(prompts)], f"row-{index:05}"
            variables = {
                # As long as what people write, and each row's its own.
                "prompt": f"{prompt}, {' '.join(rng.choices(words, k=60))}",
                "cfg": CFGS[index // 8 % 4],
                "sampler": SAMPLERS[index // 32 % 3],
                "lora": LORAS[index // 96 % 2],
                "steps": 20 + index % 12,
            }
            about = {"variables": variables, "columns": {"sku": f"SKU-{index}"}}
            folder.manifest.add(job_line(key, index))
            for sample in range(samples):
                base = landscape(prompt, (index + sample) % 24, (side, side))
                data = encoded(ImageChops.offset(base, rng.randrange(side), 0), "JPEG")
                file = _write(root, index, sample, data, "jpg")
                seed = rng.randrange(2**32)
                line = image_line(key, index, sample, file, data, seed=seed, width=side, height=side, **about)
                folder.manifest.add(line)
            folder.manifest.add({"schema": "batch/1", "task": key, "index": index, "batch": 0, "batches": 1})
        make_thumbs(root, missing_thumbs(root, folder.manifest.tasks))


def _write(root, index, sample, data, ending):
    file = f"images/{index // 1000:03}/{index:06}_{sample}.{ending}"
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_bytes(data)
    return file
