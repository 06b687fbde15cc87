"""Time, processor time and memory of a client; imported as a file, so that it works under any interpreter."""

import json
import resource
import sys
import time
from pathlib import Path

TEMPLATE = (
    '{"3": {"class_type": "KSampler", "inputs": {"seed": 1, "dir": "{{ input_images_dir }}", "n": {{ batch_size }}}}}'
)


def arguments():
    """Return what the benchmark asks for."""
    return json.loads(sys.argv[1])


def tell(**figures):
    """Print the figures."""
    print(json.dumps(figures), flush=True)


def rss_mb():
    """Return the memory in use now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


class Usage:
    """What happened from one moment on."""

    def __init__(self):
        self.idle_mb = rss_mb()
        self.wall_s = time.monotonic()
        self.cpu_s = time.process_time()
        self.system_s = resource.getrusage(resource.RUSAGE_SELF).ru_stime

    def figures(self):
        """Return wall and processor seconds since, and the peak of memory above the start, in MB."""
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
        return {
            "wall_s": time.monotonic() - self.wall_s,
            "cpu_s": time.process_time() - self.cpu_s,
            "system_s": resource.getrusage(resource.RUSAGE_SELF).ru_stime - self.system_s,
            "peak_mb": peak_mb,
            "above_idle_mb": peak_mb - self.idle_mb,
        }
