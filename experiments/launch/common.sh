# Functions shared by tpu_vm.sh and xpk.sh. Source this file after setting dry_run, which may be empty.

MOUNT=/mnt/videodit # where every host sees the bucket; worker.sh and sky.yaml name it too

say() { echo "videodit launch: $*" >&2; }

mistake() {
  say "$*"
  exit 2
}

# The arguments as one line that a shell reads back as the same arguments.
quoted() {
  local arg line=
  for arg in "$@"; do
    if [[ $arg =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]]; then line+=" $arg"; else line+=" ${arg@Q}"; fi
  done
  echo "${line:1}"
}

run() {
  if [[ -n $dry_run ]]; then quoted "$@"; else "$@"; fi
}

# take "$@": sets the variable that bears the option's name to the option's value.
take() {
  if (($# < 2)) || [[ $2 == --* ]]; then mistake "$1 needs a value; see --help"; fi
  printf -v "${1#--}" %s "$2"
}

require() { # require OPTION VALUE WHAT
  if [[ -z $2 ]]; then mistake "$1 is missing: $3; see --help"; fi
}

count() { # count OPTION VALUE
  if [[ ! $2 =~ ^[1-9][0-9]*$ ]]; then mistake "$1 takes a whole number from 1 up, not '$2'"; fi
}

# The training's own arguments: a configuration, and a workdir that all hosts share.
check_training() {
  local arg previous= config= workdir=
  for arg in "$@"; do
    case "$previous" in --config) config=$arg ;; --workdir) workdir=$arg ;; esac
    case "$arg" in
      --config=*) config=${arg#*=} ;;
      --workdir=*) workdir=${arg#*=} ;;
      --distributed) mistake "leave out --distributed: the launcher adds it" ;;
    esac
    previous=$arg
  done
  require --config "$config" "put the arguments of \`videodit train\` after --"
  require --workdir "$workdir" "put the arguments of \`videodit train\` after --"
  if [[ $workdir != "$MOUNT"/* ]]; then
    mistake "--workdir must lie under $MOUNT, where every host sees the bucket, not '$workdir'"
  fi
}
