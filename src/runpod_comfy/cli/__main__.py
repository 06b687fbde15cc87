"""``python -m runpod_comfy.cli``, the same as ``runpod-comfy``."""

from runpod_comfy.cli import main

if __name__ == "__main__":
    main()
