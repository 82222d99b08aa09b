# The commands of this repository; `make` lists them. GNU make 3.81 or later, on Linux and macOS.

SHELL := /bin/sh
TARGET := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)
BIN := $(TARGET)/debug
CHART := charts/vpptoken-operator
CONTROL_PLANE := $(BIN)/control-plane

# Test targets that bring a control plane of their own or need none: all but the ones called "it".
SMALL := $(filter-out it,$(sort \
  $(basename $(notdir $(wildcard tests/*.rs emulator/tests/*.rs tests/*/tests/*.rs))) \
  $(notdir $(patsubst %/main.rs,%,$(wildcard tests/*/main.rs)))))

.DEFAULT_GOAL := help
.PHONY: help demo demo-up test proof bench mutants generate deny msrv clean check in-control-plane announce

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: announce ## Show the main job end to end, and check that what is shown happens
	cargo build --locked --workspace --bins
	BIN=$(BIN) $(CONTROL_PLANE) run -- tests/demo/demo.sh

demo-up: announce ## The same set-up, left running until Ctrl-C
	cargo build --locked --workspace --bins
	BIN=$(BIN) $(CONTROL_PLANE) run -- tests/demo/demo.sh --stay

test: announce check ## Format, lints, documentation, unit tests, and integration tests on a real control plane
	@$(CONTROL_PLANE) run -- $(MAKE) --no-print-directory in-control-plane

check:
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --document-private-items
	cargo build --locked --workspace --bins --tests
	$(CONTROL_PLANE) tools
	cargo test --locked --workspace --lib --bins $(addprefix --test ,$(SMALL))
	cargo test --locked --workspace --doc

# Runs inside `control-plane run`, which puts kubectl, helm and KUBECONFIG into the environment. The tests mostly wait, for
# polls, for syncs, for each other, so there are more of them at a time than processors.
in-control-plane:
	helm lint --strict $(CHART)
	helm lint --strict $(CHART) --values examples/values.yaml
	RUST_TEST_THREADS=$${RUST_TEST_THREADS:-12} cargo test --locked --workspace --test it

# By default an hour at most on two cores: every life with one fault at every call and every lag, then pairs of faults and
# random histories as far as their time goes. FULL=1 runs 100,000 random histories and eight hours of pairs. LIFE=renew runs
# one life.
PROOF := $(TARGET)/proof/proof
proof: ## The operator itself in virtual time: its calls fail, its processes die, people interfere; no rule is ever broken
	cargo build --locked --profile proof -p proof
	$(PROOF) lives $(if $(LIFE),--life $(LIFE)) --pairs-seconds $(if $(FULL),28800,480)
	$(if $(LIFE),,$(PROOF) random --histories 100000 $(if $(FULL),,--seconds 420))

# SIZES="100x1 2000x20": so many VppTokens in so many tenants, one size after the other; "100x1a" is one Apple ID. The usual
# sizes take about an hour: a thousand in one tenant alone take ten minutes, because Graph allows no more, and the same again
# when all are due for a sync.
bench: announce ## Measure the release build: how long a change takes to reach Graph, and what many VppTokens cost
	cargo build --locked --workspace --bins
	@$(CONTROL_PLANE) run -- cargo bench --locked --bench latency --bench scale

# ONLY=src/schedule.rs for one file, ONLY=next_after for one function. The settings are in .cargo/mutants.toml. The second pass
# has the mutants that the first one missed.
MUTANTS := cargo mutants --output $(TARGET) $(if $(ONLY),--re '$(ONLY)')
mutants: ## Change the code in small ways and see that the tests notice (needs cargo-mutants)
	@command -v cargo-mutants >/dev/null || { echo "cargo-mutants is missing: cargo install --locked cargo-mutants" >&2; exit 1; }
	@mkdir -p $(TARGET)
	@PROPTEST_CASES=$${PROPTEST_CASES:-32} $(MUTANTS) --cargo-arg=--lib; status=$$?; \
	  out=$(TARGET)/mutants.out; first=0; \
	  case $$status in 2 | 3) first=$$(cat $$out/caught.txt | wc -l); \
	    $(MUTANTS) --iterate --baseline skip --timeout 180 --test-package proof --cargo-arg=--lib -- --test short; \
    status=$$? ;; esac; \
	  case $$status in 0 | 2 | 3) ;; *) exit $$status ;; esac; \
	  caught=$$((first + $$(cat $$out/caught.txt $$out/timeout.txt | wc -l))); missed=$$(cat $$out/missed.txt | wc -l); \
	  total=$$((caught + missed)); [ $$total -eq 0 ] || echo "caught $$caught of $$total: $$((100 * caught / total)) %"; \
	  cat $$out/missed.txt; [ $$missed -eq 0 ]

generate: announce ## Write the CustomResourceDefinitions from src/api into crds/ and the chart
	cargo build --locked --workspace --bins
	$(BIN)/vpptoken-operator crds --dir crds
	$(BIN)/vpptoken-operator crds --dir $(CHART)/crds

deny: ## Check licences, sources and bans of all dependencies (needs cargo-deny)
	@command -v cargo-deny >/dev/null || { echo "cargo-deny is missing: cargo install --locked cargo-deny" >&2; exit 1; }
	cargo deny check bans licenses sources

# The oldest Rust that Cargo.toml promises, in a folder of its own, so that the usual build is left as it is.
MSRV = $(shell sed -n 's/^rust-version = "\(.*\)"$$/\1/p' Cargo.toml)
msrv: ## Check that the workspace builds with the rust-version of Cargo.toml (needs rustup and that toolchain)
	@command -v rustup >/dev/null || { echo "rustup is missing: this check needs it to run Rust $(MSRV)" >&2; exit 1; }
	@toolchain=$$(rustup toolchain list | sed -n 's/^\($(subst .,\.,$(MSRV))\(\.[0-9]*\)\{0,1\}-[^ ]*\).*/\1/p' | head -n 1); \
	  [ -n "$$toolchain" ] || { \
	  echo "Rust $(MSRV) is missing: rustup toolchain install $(MSRV) --profile minimal" >&2; exit 1; }; \
	  echo "rustup run $$toolchain cargo check"; \
	  CARGO_TARGET_DIR=$(TARGET)/msrv rustup run "$$toolchain" cargo check --locked --workspace --all-targets

clean: ## Remove what was built here (the control plane's binaries stay in the cache folder)
	cargo clean

announce:
	@command -v cargo >/dev/null || { \
	  echo "cargo is missing: install Rust (rustup installs it), then run this again." >&2; exit 1; }
	@case $$(uname) in Darwin) cache=$$HOME/Library/Caches ;; *) cache=$$HOME/.cache ;; esac; \
	  cache=$${XDG_CACHE_HOME:-$$cache}/vpptoken-operator; \
	  echo "Builds this workspace into $(TARGET)/, and what of etcd, kube-apiserver, kube-controller-manager, kubectl and"; \
	  echo "helm, and for the tests kstatus, is not there yet into $$cache (once, some minutes)."; \
	  echo "Nothing else is installed."; \
	  [ -d "$$cache" ] || [ -n "$$KUBEBUILDER_ASSETS" ] || command -v go >/dev/null || \
	  echo "Go is not on PATH: without it, only a download of these binaries can help (KUBEBUILDER_ASSETS names your own)."
