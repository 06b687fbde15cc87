"""RunPod Serverless and ComfyUI on this machine: servers, not mocks, with the real ones' sharp edges."""
