# The commands of this project. Each says what it lacks, and rustup fetches the toolchain by itself.

CARGO_TARGET_DIR ?= $(CURDIR)/target
export CARGO_TARGET_DIR

# cargo as rustup installs it, also where the shell's profile was not read again since.
export PATH := $(PATH):$(HOME)/.cargo/bin

.PHONY: build demo lint test tools

# Release binaries: sns-relay, sns-nas, sns-demo.
build: tools
	cargo build --release --workspace --locked

# One NAS, three devices, the real relay, simulated push services. KEEP=1 leaves it up, with lines
# to try.
demo: build
	@"$(CARGO_TARGET_DIR)/release/sns-demo" $(if $(filter-out 0,$(KEEP)),--keep)

test: tools
	cargo test --workspace --locked

# Format, lints, documentation; a warning is a failure.
lint: tools
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items --locked

# Says what is missing before a compiler says it worse.
tools:
	@command -v cargo >/dev/null || { echo "cargo is missing: https://rustup.rs"; exit 1; }
	@command -v cc >/dev/null || { echo "cc is missing: sudo apt install build-essential"; exit 1; }
	@cargo --version || { echo "rustup cannot fetch the toolchain of rust-toolchain.toml"; exit 1; }
