#!/usr/bin/env bash
# Trains on GKE by XPK: a JobSet, which Kubernetes starts again when a slice is taken away.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

usage() {
  cat <<'HELP'
usage: xpk.sh --name NAME --cluster CLUSTER --type TYPE --image IMAGE [options] -- ARGS OF `videodit train`

  --name NAME          of the workload
  --cluster CLUSTER    made by `xpk cluster create`
  --type TYPE          device type: v5litepod-256, v5p-512, v6e-256, tpu7x-4x4x4
  --image IMAGE        docker image; experiments/launch/Dockerfile says how it is built
  --slices N           several slices, joined by the data centre network (default 1)
  --attempts N         how often to begin at most (default 10)
  --priority P         very-low, low, medium, high or very-high (default: xpk's own)
  --project ID, --zone ZONE    (default: gcloud's own)
  --attach BUCKET      first attach the bucket to the cluster, at /mnt/videodit; once a cluster
  --dry-run            print the commands; run nothing

LIBTPU_INIT_ARGS, where set, takes the place of the flags in libtpu_flags.sh.

example:
  xpk.sh --name xl --cluster my-cluster --type v6e-256 --slices 2 --image IMAGE -- \
    --config configs/dit.py:XL --workdir /mnt/videodit/runs/xl
stop it (it saves first): xpk workload delete --workload NAME --cluster CLUSTER
HELP
}

name='' cluster='' type='' image='' priority='' project='' zone='' attach='' dry_run=''
slices=1 attempts=10
# shellcheck source=common.sh
source "$here/common.sh"
# shellcheck source=libtpu_flags.sh
source "$here/libtpu_flags.sh"

while (($#)); do
  case "$1" in
    --name | --cluster | --type | --image | --slices | --attempts | --priority | --project | --zone | --attach)
      take "$@"
      shift 2
      ;;
    --dry-run) dry_run=yes && shift ;;
    --help | -h) usage && exit 0 ;;
    --) shift && break ;;
    *) mistake "unknown option '$1'; see --help" ;;
  esac
done
require --name "$name" "the name of the workload"
require --cluster "$cluster" "the GKE cluster"
require --type "$type" "the device type, such as v6e-256"
require --image "$image" "the docker image"
count --slices "$slices"
count --attempts "$attempts"
generation=$(generation_of "$type") || mistake "--type '$type' is none of v5litepod-N, v5p-N, v6e-N, tpu7x-T"
check_training "$@"
flags=${LIBTPU_INIT_ARGS:-$(libtpu_flags "$generation")}
where=(--cluster="$cluster" ${project:+--project="$project"} ${zone:+--zone="$zone"})

if [[ -n $attach ]]; then
  run xpk storage attach "$attach" --type=gcsfuse "${where[@]}" --bucket="$attach" --size=1 \
    --mount-point="$MOUNT" --readonly=false --auto-mount=true
fi
# exec: SIGTERM must reach worker.sh. Hosts that outlive another one end with 1, hence the restart on failures; a
# mistake in the arguments is therefore tried again too, until the restarts are used up.
run xpk workload create --workload="$name" "${where[@]}" --device-type="$type" --num-slices="$slices" \
  --docker-image="$image" --max-restarts="$((attempts - 1))" --restart-on-user-code-failure \
  --termination-grace-period-seconds=300 ${priority:+--priority="$priority"} --env="LIBTPU_INIT_ARGS=$flags" \
  --command="cd /videodit && exec bash experiments/launch/worker.sh train $(quoted "$@")"
