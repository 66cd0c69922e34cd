#!/usr/bin/env bash
# What every host of a TPU slice does; tpu_vm.sh, xpk.sh and sky.yaml call it.
#
#   worker.sh setup            .venv with the pinned packages and the `tpu` extra
#   worker.sh mount BUCKET     the bucket at /mnt/videodit, once
#   worker.sh train ARGS...    `videodit train --distributed ARGS...`
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

MOUNT=/mnt/videodit
GCSFUSE=3.8.0

fail() { # 1, never 2: no mistake of the user's, so that the launcher tries again (make itself ends with 2)
  echo "videodit launch: $1 on $(hostname)" >&2
  exit 1
}

setup() {
  local python=python3
  if ! python3 -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'; then
    # TPU VM images come with an older Python; uv brings one without touching the system's.
    python3 -m pip install --quiet --user uv || fail "uv could not be installed"
    python3 -m uv python install --quiet 3.12 || fail "Python 3.12 could not be installed"
    python=$(python3 -m uv python find 3.12)
  fi
  make setup PYTHON="$python" || fail "make setup failed"
  .venv/bin/python -m pip install --quiet -e '.[tpu]' || fail "the tpu extra could not be installed"
}

mount_bucket() {
  if mountpoint --quiet "$MOUNT"; then return; fi
  if ! command -v gcsfuse >/dev/null; then
    local package=gcsfuse_${GCSFUSE}_amd64.deb
    curl -fsSL -o "/tmp/$package" \
      "https://github.com/GoogleCloudPlatform/gcsfuse/releases/download/v$GCSFUSE/$package" ||
      fail "gcsfuse could not be fetched"
    sudo dpkg --install "/tmp/$package" || fail "gcsfuse could not be installed"
  fi
  sudo mkdir -p "$MOUNT"
  sudo chown "$(id -u):$(id -g)" "$MOUNT"
  # No cached metadata: a host must see at once what another one wrote. Checkpoints become valid by a rename.
  gcsfuse --implicit-dirs --rename-dir-limit=10000 --metadata-cache-ttl-secs=0 \
    --metadata-cache-negative-ttl-secs=0 "$1" "$MOUNT" ||
    fail "the bucket $1 could not be mounted at $MOUNT"
}

train() {
  # A run whose launcher lost its connection still holds the TPU: it saves and ends first.
  local waited=0
  while pkill -TERM -f 'bin/videodit train'; do
    ((waited += 5)) && ((waited <= 600)) || fail "an earlier run does not end"
    sleep 5
  done
  .venv/bin/videodit train --distributed "$@" &
  local child=$! status=0 machine_stops=
  # SIGTERM to this script means that the machine goes away; to the training alone, that somebody stops the run.
  trap 'machine_stops=1; kill -TERM "$child" 2>/dev/null || true' TERM
  wait "$child" || status=$?
  while kill -0 "$child" 2>/dev/null; do
    status=0
    wait "$child" || status=$?
  done
  # The training ends 0 after it saved, but it is not done: 143 makes the launcher resume elsewhere.
  if [[ -n $machine_stops ]]; then status=143; fi
  exit "$status"
}

case "${1:-}" in
  setup) setup ;;
  mount) mount_bucket "${2:?worker.sh mount needs a bucket}" ;;
  train) shift && train "$@" ;;
  *) echo "videodit launch: worker.sh takes setup, mount or train, not '${1:-}'" >&2 && exit 2 ;;
esac
