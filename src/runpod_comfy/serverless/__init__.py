"""RunPod's HTTP API for queue-based endpoints, and nothing else."""
