#!/usr/bin/env bash
# Measure videodit on a machine with one NVIDIA GPU and no network; README.md says what. From anywhere:
#   bash experiments/gpu/run.sh --out DIR [--tiny]
# PYTHON names the interpreter (default: python3), which must have jax.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
python=${PYTHON:-python3}

site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
"$python" "$here/install_missing.py" --wheels "$here/wheels" --into "$site" || echo "run.sh: not all wheels are installed" >&2

export PYTHONPATH="$root:$root/data_pipelines:$root/kernels:$site${PYTHONPATH:+:$PYTHONPATH}"
# PyTorch and JAX share the device in one of the parts.
export XLA_PYTHON_CLIENT_PREALLOCATE=${XLA_PYTHON_CLIENT_PREALLOCATE:-false}
"$python" "$here/measure.py" "$@"
