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
    """Draw a landscape: sky, sun, ridges that grow darker, and what the prompt's kind has in front."""
    hue, kind = PROMPTS[prompt]
    rng = random.Random(f"{prompt} {seed}")
    width, height = size
    hue += rng.uniform(-0.03, 0.03)
    sky = ImageOps.colorize(
        Image.linear_gradient("L").resize(size),
        _rgb(hue + 0.5, 0.35, rng.uniform(0.55, 0.95)),
        _rgb(hue, 0.30, 1.0),
        mid=_rgb(hue + 0.55, 0.18, 0.95),
    )
    radius = round(height * rng.uniform(0.10, 0.34))
    glow = ImageOps.invert(Image.radial_gradient("L")).resize((radius * 4, radius * 4)).point(lambda v: max(0, v - 78) * 2)
    at = (round(rng.uniform(0.1, 0.9) * width), round(rng.uniform(0.18, 0.5) * height))
    sky.paste(_rgb(hue + 0.04, 0.25, 1.0), (at[0] - 2 * radius, at[1] - 2 * radius), ImageEnhance.Brightness(glow).enhance(0.7))
    draw = ImageDraw.Draw(sky)
    draw.ellipse((at[0] - radius // 2, at[1] - radius // 2, at[0] + radius // 2, at[1] + radius // 2), fill=_rgb(hue + 0.08, 0.18, 1.0))
    layers = 5
    for layer in range(layers):
        depth = layer / (layers - 1)
        base = height * (0.46 + 0.12 * layer)
        waves = [(rng.uniform(1, 5) * (1 + layer / 2), rng.uniform(0, 6.3), height * rng.uniform(0.015, 0.06)) for _ in range(3)]
        jag = {"peaks": 0.08, "sea": 0.0, "hills": 0.0, "dunes": 0.02}[kind]
        points = []
        for x in range(0, width + 8, 8):
            y = base + sum(size_ * math.sin(many * x / width * math.pi + phase) for many, phase, size_ in waves) * (0.1 if kind == "sea" and layer > 1 else 1)
            points.append((x, y - abs(rng.gauss(0, jag * height * (1 - depth))) ))
        draw.polygon([*points, (width, height), (0, height)], fill=_rgb(hue + 0.02 * layer, 0.25 + 0.45 * depth, 0.86 - 0.62 * depth))
    for _ in range(rng.randint(6, 16)):
        x, tall = rng.uniform(0, width), height * rng.uniform(0.05, 0.22)
        y = height * rng.uniform(0.86, 1.0)
        colour = _rgb(hue + 0.05, 0.6, rng.uniform(0.08, 0.2))
        if kind in {"peaks", "hills"}:
            draw.polygon([(x, y - tall), (x - tall / 4, y), (x + tall / 4, y)], fill=colour)
        else:
            draw.ellipse((x - tall / 3, y - tall / 6, x + tall / 3, y + tall / 6), fill=colour)
    return sky


def picture(prompt, seed, cfg, sampler, lora, size=(512, 512)):
    """The landscape as these settings would have drawn it."""
    image = landscape(prompt, seed, size)
    image = ImageEnhance.Color(image).enhance(0.45 + cfg / 11)
    image = ImageEnhance.Contrast(image).enhance(0.8 + cfg / 24)
    if sampler == "euler":
        image = image.filter(ImageFilter.GaussianBlur(size[0] / 220))
    elif sampler == "uni_pc":
        image = ImageOps.posterize(image, 3)
    if lora == LORAS[1]:
        grey = ImageOps.colorize(ImageOps.grayscale(image), "#101820", "#f4efe6")
        image = Image.blend(image, grey, 0.8)
    return image


def encoded(image, kind="PNG"):
    data = io.BytesIO()
    image.save(data, kind, **({"quality": 86} if kind == "JPEG" else {"compress_level": 1}))
    return data.getvalue()


def image_line(key, index, sample, file, data, *, row_id, size, variables, columns, seed):
    return {
        "schema": "image/1", "task": key, "index": index, "batch": sample, "row_id": row_id, "sample": sample, "file": file,
        "name": f"ComfyUI_{sample:05}_.png", "kind": "images", "sha256": hashlib.sha256(data).hexdigest(),
        "size_bytes": len(data), "width": size[0], "height": size[1], "media_type": "image/png", "variables": variables,
        "columns": columns, "seed": str(seed), "node": {"id": "9", "title": "Save Image"},
    }  # fmt: skip


def failure_line(key, index, *, row_id, variables, columns, message="CUDA out of memory. Tried to allocate 2.25 GiB"):
    return {
        "schema": "failure/1", "task": key, "index": index, "row_id": row_id, "line": index + 2, "try": 2,
        "error": {"code": "job_failed", "message": message, "node_id": "31", "node_type": "KSampler"},
        "job_id": f"job-{index}", "variables": variables, "columns": columns,
    }  # fmt: skip


def cells(prompts):
    """Every combination, as task key, row id, variables and columns."""
    for number, prompt in enumerate(prompts):
        for lora, sampler, cfg in product(LORAS, SAMPLERS, CFGS):
            cell = {"cfg": cfg, "sampler": sampler, "lora": lora}
            row_id = f"88-{400 + number}"
            columns = {"sku": f"SKU-{number % 4}"}
            yield f"{row_id} {json.dumps(cell, sort_keys=True)}", row_id, {"prompt": prompt, **cell}, columns


def make_dataset(root, *, prompts=tuple(PROMPTS), samples=2, size=(256, 256), run_id="00c0ffee00c0ffee", failing=()):
    """Write a folder as `batch` leaves it; `failing` are the numbers of tasks that failed."""
    with OutputFolder(root) as folder:
        folder.write_run({"schema": "run/1", "id": run_id, "num_samples": samples, "batch_size": samples, "seed": 5})
        for index, (key, row_id, variables, columns) in enumerate(cells(prompts)):
            folder.manifest.add({"schema": "job/1", "task": key, "index": index, "job_id": f"job-{index}", "first_batch": 0, "at": 1.0})
            if index in failing:
                folder.manifest.add(failure_line(key, index, row_id=row_id, variables=variables, columns=columns))
                continue
            for sample in range(samples):
                seed = 2**64 - 1 - sample if index == 0 else 3871203311 + sample
                data = encoded(picture(variables["prompt"], sample, variables["cfg"], variables["sampler"], variables["lora"], size))
                file = f"images/{index // 1000:03}/{index:06}_{sample}.png"
                (root / file).parent.mkdir(parents=True, exist_ok=True)
                (root / file).write_bytes(data)
                keep_thumb(root, index, sample, data)
                folder.manifest.add(image_line(key, index, sample, file, data, row_id=row_id, size=size, variables=variables, columns=columns, seed=seed))
            folder.manifest.add({"schema": "batch/1", "task": key, "index": index, "batch": 0, "batches": 1})


def make_large_dataset(root, *, rows=2000, samples=4, side=512):
    """Write a folder of thousands of images: a few hundred drawn, and each of the others one of them shifted."""
    prompts = list(PROMPTS)
    with OutputFolder(root) as folder:
        folder.write_run({"schema": "run/1", "id": "b" * 16, "num_samples": samples, "batch_size": samples, "seed": 5})
        for index in range(rows):
            rng = random.Random(index)
            prompt = prompts[index % len(prompts)]
            # As long as what people write, and each row's its own.
            words = " ".join(rng.choices([word for each in prompts for word in each.split()], k=60))
            variables = {"prompt": f"{prompt}, {words}", "cfg": CFGS[index // 8 % 4], "sampler": SAMPLERS[index // 32 % 3], "lora": LORAS[index // 96 % 2], "steps": 20 + index % 12}
            key = row_id = f"row-{index:05}"
            folder.manifest.add({"schema": "job/1", "task": key, "index": index, "job_id": f"job-{index}", "first_batch": 0, "at": 1.0})
            columns = {"sku": f"SKU-{index}"}
            if index % 97 == 13:
                folder.manifest.add(failure_line(key, index, row_id=row_id, variables=variables, columns=columns))
                continue
            for sample in range(samples):
                base = landscape(prompt, (index + sample) % 24, (side, side))
                image = ImageChops.offset(base, rng.randrange(side), 0)
                data = encoded(image, "JPEG")
                file = f"images/{index // 1000:03}/{index:06}_{sample}.jpg"
                (root / file).parent.mkdir(parents=True, exist_ok=True)
                (root / file).write_bytes(data)
                folder.manifest.add(image_line(key, index, sample, file, data, row_id=row_id, size=(side, side), variables=variables, columns=columns, seed=rng.randrange(2**32)))
            folder.manifest.add({"schema": "batch/1", "task": key, "index": index, "batch": 0, "batches": 1})
        make_thumbs(root, missing_thumbs(root, folder.manifest.tasks))
