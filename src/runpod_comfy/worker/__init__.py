"""What runs on the GPU machine, beside ComfyUI."""
