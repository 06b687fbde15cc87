"""The entry point that RunPod's Hub looks for; the image starts the same through docker/start.sh."""

from runpod_comfy.worker.__main__ import main

if __name__ == "__main__":
    main()
