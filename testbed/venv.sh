#!/usr/bin/env bash
# Makes a Python environment with what a requirements file pins, once per content, and prints its path; progress goes to
# stderr. Its cache is keyed by the file and the Python version, so a fresh clone finds it again.
set -euo pipefail
(($# == 1)) || { echo "usage: venv.sh REQUIREMENTS" >&2; exit 2; }
requirements=$(realpath "$1")
if ! command -v python3 >/dev/null; then
  echo "the testbed needs Python 3.10 or newer; one command that provides it: apt-get install python3 python3-venv" >&2
  exit 1
fi
key=$({ cat "$requirements"; python3 --version; } | sha256sum | cut -c1-16)
dir=${XDG_CACHE_HOME:-$HOME/.cache}/ringfence/venv-$key
if [[ ! -e $dir/complete ]]; then
  mkdir -p "$dir"
  exec 9>"$dir/lock"
  flock 9 # a second caller waits for the first one's result
fi
if [[ ! -e $dir/complete ]]; then
  echo "installing $(grep -c == "$requirements") Python packages, once" >&2
  if ! python3 -m venv --clear "$dir/venv" >"$dir/install.log" 2>&1 9>&-; then
    tail -n 5 "$dir/install.log" >&2
    echo "no Python environment could be made; one command that provides what is missing: apt-get install python3-venv" >&2
    exit 1
  fi
  if ! "$dir/venv/bin/pip" install --disable-pip-version-check -r "$requirements" >>"$dir/install.log" 2>&1 9>&-; then
    tail -n 10 "$dir/install.log" >&2
    echo "PyPI did not provide the packages of $requirements (reachable? a mirror is set with: pip config set global.index-url URL)" >&2
    exit 1
  fi
  touch "$dir/complete"
  printf 'installed the Python packages: %d s\n' "$SECONDS" >&2
fi
echo "$dir/venv"
