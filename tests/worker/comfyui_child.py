"""A ComfyUI for tests that start one: the stand-in behind ComfyUI's own command line; it can be told to misbehave."""

import argparse
import asyncio
import functools
import os
import signal
import sys
from pathlib import Path

from runpod_comfy.emulator.comfyui import ComfyUIStandIn

parser = argparse.ArgumentParser()
parser.add_argument("--listen")
parser.add_argument("--port", type=int)
parser.add_argument("--disable-auto-launch", action="store_true")
parser.add_argument("--extra-model-paths-config")
parser.add_argument("--fail", action="store_true")
parser.add_argument("--fail-once", type=Path)
parser.add_argument("--die-computing-once", type=Path)
parser.add_argument("--deafen-once", type=Path)
arguments = parser.parse_args()

say = functools.partial(print, flush=True)
say("Starting server")
say("   0.0 seconds (IMPORT FAILED): /comfyui/custom_nodes/broken")
if arguments.extra_model_paths_config:
    say("paths", Path(arguments.extra_model_paths_config).read_text())
if arguments.fail or (arguments.fail_once and not arguments.fail_once.exists()):
    if arguments.fail_once:
        arguments.fail_once.touch()
    sys.exit("RuntimeError: Found no NVIDIA driver")


async def main():
    async with ComfyUIStandIn(Path.cwd(), host=arguments.listen, port=arguments.port) as comfyui:
        if arguments.die_computing_once and not arguments.die_computing_once.exists():
            arguments.die_computing_once.touch()
            say("a node calls exit()")
            comfyui.die_computing()
        if arguments.deafen_once and not arguments.deafen_once.exists():
            arguments.deafen_once.touch()
            while not comfyui.running:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.01)
            await comfyui.stop()
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        await stop.wait()


Path("pid").write_text(str(os.getpid()))
Path("env").write_text("\n".join(os.environ))
asyncio.run(main())
