#!/usr/bin/env bash
# Starts the worker, which starts ComfyUI. Arguments go to RunPod's SDK: `--rp_serve_api --rp_api_host 0.0.0.0` serves
# its local API. Variables: docs/worker.md.
set -euo pipefail

# glibc's allocator keeps what models leave behind; tcmalloc gives it back.
if [ -z "${LD_PRELOAD:-}" ]; then
  tcmalloc="$(ldconfig -p 2>/dev/null | awk '/libtcmalloc.so/ { print $NF; exit }')" || tcmalloc=""
  if [ -n "$tcmalloc" ]; then
    export LD_PRELOAD="$tcmalloc"
  fi
fi

exec "${WORKER_PYTHON:-python3}" -m runpod_comfy.worker "$@"
