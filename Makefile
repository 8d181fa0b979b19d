# Each target needs nothing else first: what it misses it builds or installs, once, under ~/.cache/ringfence.
.PHONY: demo test lint bench sim crash torture mutants crds setup-demo setup-test build-demo build-test

# Brings up a cluster and a rack, hangs a node, fences it, and prints what happened and the oracle's verdict.
demo:
	@$(MAKE) --no-print-directory -j2 setup-demo build-demo
	@cargo run --quiet --package testbed -- demo

test:
	@$(MAKE) --no-print-directory -j2 setup-test build-test
	# Most tests wait for a control plane or a BMC, not for a core.
	RUST_TEST_THREADS=10 cargo test --workspace --no-fail-fast

# The operator under virtual time, by the hundred thousand (SEEDS=…); SEED=7 replays one and prints what happened.
sim:
	SEEDS="$${SEEDS:-100000}" cargo test --profile sim --test sim -- --nocapture

# kill -9 of the operator at every await point of one remediation; `make test` takes some of them.
crash: setup-test
	cargo test --package ringfence --test controller -- --ignored --nocapture every_await_point

# Remediations while everything goes wrong, on a real control plane: SEED, MINUTES (`docs/torture.md`).
torture: setup-test build-demo
	@cargo run --quiet --package testbed -- torture --seed "$${SEED:-1}" --minutes "$${MINUTES:-40}" --machines 36

# What the tests don't notice if it is changed: hours, and `cargo install cargo-mutants` first (`docs/mutants.md`).
mutants:
	cargo mutants --package ringfence --file 'src/decide/**' --file src/release.rs --file 'src/isolate/**' --file src/act.rs \
		-- --lib --test cases --test model --test release --test isolators --test agents --test sim

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	PATH="$$(testbed/venv.sh .ci/requirements.txt)/bin:$$PATH" cargo deny --all-features check bans licenses sources

# The speed of a remediation, p50 over several runs with default Kubernetes timings; and of our fence agents beside Debian's.
bench: setup-test build-demo
	@cargo run --quiet --package testbed -- bench
	cargo build --release --bin ringfence
	@cargo run --quiet --package testbed -- bench agents --operator "$${CARGO_TARGET_DIR:-target}/release/ringfence"

crds:
	cargo run --quiet -- crds crds

setup-demo:
	@testbed/setup.sh demo
setup-test:
	@testbed/setup.sh test
build-demo:
	cargo build --workspace
build-test:
	cargo test --workspace --no-run
