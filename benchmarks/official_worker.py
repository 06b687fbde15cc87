"""RunPod's official ComfyUI worker for `worker_idle`: its own handler, pointed at another ComfyUI."""

import sys

import handler  # of the checkout, which PYTHONPATH names
import runpod

if __name__ == "__main__":
    handler.COMFY_HOST = sys.argv[1]
    runpod.serverless.start({"handler": handler.handler})
