#!/usr/bin/env bash
# Provides what `make demo` and `make test` need and the machine lacks: the control plane (built from source) and the
# real sushy-emulator (from PyPI); for the tests also upstream's fence-agents-remediation and kubectl (built from source),
# Debian's fence agents, ipmitool, ipmi_sim and snmpd. Progress and what
# is missing, with the one command that provides it, go to stderr.
set -euo pipefail
cd "$(dirname "$0")"

packages() { # packages PROGRAM=PACKAGE…: installs the packages whose program is missing
  local wanted=() pair root=()
  for pair; do
    # ipmi_sim and the fence agents are in sbin, which an ordinary user's PATH may lack.
    PATH=$PATH:/usr/sbin:/sbin command -v "${pair%=*}" >/dev/null || wanted+=("${pair#*=}")
  done
  ((${#wanted[@]})) || return 0
  ((EUID == 0)) || root=(sudo)
  local command=("${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y "${wanted[@]}")
  if ! command -v apt-get >/dev/null || { ((EUID != 0)) && ! command -v sudo >/dev/null; }; then
    echo "missing: ${wanted[*]}; one command that provides them, as root on Debian: apt-get install ${wanted[*]}" >&2
    return 1
  fi
  echo "installing the Debian packages ${wanted[*]}" >&2
  local log
  log=$(mktemp)
  if ! { "${command[@]}" || { "${root[@]}" apt-get update && "${command[@]}"; }; } >"$log" 2>&1; then
    tail -n 10 "$log" >&2
    echo "Debian's packages could not be installed; one command that provides them: ${root:+sudo }apt-get install ${wanted[*]}" >&2
    return 1
  fi
  rm -f "$log"
  printf 'installed the Debian packages: %d s\n' "$SECONDS" >&2
}

case ${1:-} in
  demo) debian=() programs=() ;;
  # fence-agents holds no programs in newer Debians, only dependencies; fence_ipmilan stands for it.
  test) debian=(fence_ipmilan=fence-agents ipmitool=ipmitool ipmi_sim=openipmi snmpget=snmp snmpd=snmpd) programs=(kubectl upstream) ;;
  *) echo "usage: setup.sh demo|test" >&2; exit 2 ;;
esac

# What takes minutes runs beside the others.
{
  controlplane/build.sh || exit 1
  for program in "${programs[@]}"; do ./program.sh "$program" || exit 1; done
} >/dev/null &
build=$!
trap 'kill "$build" 2>/dev/null || true' EXIT
failed=0
packages "${debian[@]}" || failed=1
./venv.sh emulators/sushy/requirements.txt >/dev/null || failed=1
wait "$build" || failed=1
trap - EXIT
exit "$failed"
