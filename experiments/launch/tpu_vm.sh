#!/usr/bin/env bash
# Trains on TPU VMs: a queued resource, ssh to all workers, and a new resource when one is taken away.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

usage() {
  cat <<'HELP'
usage: tpu_vm.sh --name NAME --zone ZONE --type TYPE --bucket BUCKET [options] -- ARGS OF `videodit train`

  --name NAME       of the queued resource, and of its nodes
  --zone ZONE       e.g. us-east5-b
  --type TYPE       accelerator type: v5litepod-8, v5p-512, v6e-256
  --bucket BUCKET   mounted on every host at /mnt/videodit; --workdir must lie there
  --runtime IMAGE   software version of the TPU VM (default: that of the generation)
  --slices N        several slices, joined by the data centre network (default 1)
  --spot            spot capacity: cheaper, taken away at any time
  --project ID      (default: gcloud's own)
  --attempts N      how often to begin at most (default 10)
  --poll SECONDS    between two looks at the state (default 30)
  --delete          delete the queued resource at the end
  --dry-run         print the commands; run nothing

LIBTPU_INIT_ARGS, where set, takes the place of the flags in libtpu_flags.sh. HEAD is what runs: commit first.

example:
  tpu_vm.sh --name xl --zone us-east5-b --type v6e-256 --spot --bucket my-bucket -- \
    --config configs/dit.py:XL --workdir /mnt/videodit/runs/xl
HELP
}

name='' zone='' type='' bucket='' runtime='' project='' spot='' delete='' dry_run=''
slices=1 attempts=10 poll=30
# shellcheck source=common.sh
source "$here/common.sh"
# shellcheck source=libtpu_flags.sh
source "$here/libtpu_flags.sh"

while (($#)); do
  case "$1" in
    --name | --zone | --type | --bucket | --runtime | --project | --slices | --attempts | --poll)
      take "$@"
      shift 2
      ;;
    --spot | --delete) printf -v "${1#--}" yes && shift ;;
    --dry-run) dry_run=yes && shift ;;
    --help | -h) usage && exit 0 ;;
    --) shift && break ;;
    *) mistake "unknown option '$1'; see --help" ;;
  esac
done
require --name "$name" "the name of the queued resource"
require --zone "$zone" "where the TPU is"
require --type "$type" "the accelerator type, such as v6e-256"
require --bucket "$bucket" "the bucket that all hosts share"
count --slices "$slices"
count --attempts "$attempts"
[[ $poll =~ ^[0-9]+$ ]] || mistake "--poll takes a whole number of seconds, not '$poll'"
generation=$(generation_of "$type") || mistake "--type '$type' is none of v5litepod-N, v5p-N, v6e-N"
case "$generation" in # cloud.google.com/tpu/docs/runtimes
  v5e) runtime=${runtime:-v2-alpha-tpuv5-lite} ;;
  v5p) runtime=${runtime:-v2-alpha-tpuv5} ;;
  v6e) runtime=${runtime:-v2-alpha-tpuv6e} ;;
  tpu7x) mistake "Google offers tpu7x through GKE alone: use xpk.sh" ;;
esac
check_training "$@"
flags=${LIBTPU_INIT_ARGS:-$(libtpu_flags "$generation")}
where=(--zone="$zone" ${project:+--project="$project"})
nodes=("$name")
if ((slices > 1)); then
  nodes=()
  for ((i = 0; i < slices; i++)); do nodes+=("$name-$i"); done # as --node-prefix names them
fi
archive=${TMPDIR:-/tmp}/videodit-$name.tar

queued() { run gcloud compute tpus queued-resources "$1" "$name" "${where[@]}" "${@:2}"; }

state() { # empty where there is no such queued resource
  queued describe --format='value(state.state)' 2>/dev/null || true
}

create() {
  local which=(--node-id="$name")
  if ((slices > 1)); then which=(--node-count="$slices" --node-prefix="$name"); fi
  queued create --accelerator-type="$type" --runtime-version="$runtime" "${which[@]}" ${spot:+--spot}
}

remove() { queued delete --force --quiet; }

# Waits until the queued resource is ACTIVE, and creates it where there is none; 1 where it fails.
acquire() {
  if [[ -n $dry_run ]]; then
    state && create && state
    return
  fi
  local now
  now=$(state)
  case "$now" in FAILED | SUSPENDING | SUSPENDED) remove && now= ;; esac
  if [[ -z $now ]] && ! create; then
    if ((attempt == 1)); then mistake "gcloud made no queued resource; its message is above"; fi
    return 1
  fi
  while :; do
    now=$(state)
    case "$now" in
      ACTIVE) return 0 ;;
      FAILED | SUSPENDING | SUSPENDED) return 1 ;;
    esac
    say "$name is ${now:-not there yet}"
    sleep "$poll"
  done
}

# Runs a function for every node at once. Status 2, a user's mistake, outweighs what it did to the other slices.
each_node() {
  local node job status=0 one jobs=()
  if [[ -n $dry_run ]]; then
    for node in "${nodes[@]}"; do "$@" "$node"; done
    return
  fi
  for node in "${nodes[@]}"; do
    "$@" "$node" &
    jobs+=($!)
  done
  for job in "${jobs[@]}"; do
    one=0
    wait "$job" || one=$?
    if ((one != 0 && status != 2)); then status=$one; fi
  done
  return "$status"
}

remote() { # remote COMMAND NODE
  run gcloud compute tpus tpu-vm ssh "$2" "${where[@]}" --worker=all --command="$1"
}

send() { run gcloud compute tpus tpu-vm scp "$archive" "$1:videodit.tar" "${where[@]}" --worker=all; }

prepare() {
  local worker="bash experiments/launch/worker.sh"
  each_node send &&
    each_node remote "tar -xf videodit.tar && cd videodit && $worker setup && $worker mount $(quoted "$bucket")"
}

train() {
  each_node remote \
    "cd videodit && LIBTPU_INIT_ARGS=$(quoted "$flags") bash experiments/launch/worker.sh train $(quoted "$@")"
}

finish() {
  if [[ -z $dry_run ]]; then rm -f "$archive"; fi
  if [[ -n $delete ]]; then
    remove
  else
    say "$name still costs money; delete it with:"
    dry_run=yes remove >&2
  fi
}

git -C "$here" diff --quiet HEAD || say "changes that are not committed do not run"
run git -C "$(cd "$here/../.." && pwd)" archive --prefix=videodit/ --output="$archive" HEAD
for ((attempt = 1; attempt <= attempts; attempt++)); do
  status=0
  if ! acquire; then
    say "attempt $attempt of $attempts: $name was not granted"
    if ((attempt < attempts)); then sleep "$poll"; fi
    continue
  fi
  if prepare; then train "$@" || status=$?; else status=1; fi
  if [[ -n $dry_run ]]; then
    state
    break
  fi
  # The state follows a preemption with some delay.
  if ((status != 0)); then sleep "$poll"; fi
  now=$(state)
  if ((status == 0)) && [[ $now == ACTIVE || -z $now ]]; then break; fi
  if ((status == 2)) && [[ $now == ACTIVE ]]; then
    finish
    mistake "the training refuses its arguments; its message is above"
  fi
  say "attempt $attempt of $attempts ended with status $status; $name is ${now:-gone}"
  status=1
  if [[ $now != ACTIVE && -n $now ]]; then remove; fi
done
if ((attempt > attempts)); then say "gave up after $attempts attempts" && status=1; fi
finish
exit "$status"
