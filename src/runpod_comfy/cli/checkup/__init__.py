"""What ``runpod-comfy doctor`` looks at: this machine (``here``), the place to run (``place``), what is in it."""
