# The commands of this project. Each says what it lacks, and rustup fetches the toolchain by itself.

CARGO_TARGET_DIR ?= $(CURDIR)/target
export CARGO_TARGET_DIR

# cargo as rustup installs it, also where the shell's profile was not read again since.
export PATH := $(PATH):$(HOME)/.cargo/bin

# Where Python keeps the SMTP server of the tests and the demo.
PYTHON := $(CARGO_TARGET_DIR)/python
AS_ROOT := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

.PHONY: bench build demo lint postgres smtp smtp-fetch test tools

# Release binaries: sns-relay, sns-nas, sns-demo.
build: tools
	cargo build --release --workspace --locked

# One NAS, its daemon, three devices and a mail address, the real relay, simulated push services
# and a real SMTP server. KEEP=1 leaves it up, with lines to try.
demo: build smtp
	@"$(CARGO_TARGET_DIR)/release/sns-demo" $(if $(filter-out 0,$(KEEP)),--keep)

# What the relay costs, into docs/performance.md and target/bench.json; nginx and valgrind are used where
# they are installed, and their rows say so where not. Exit 1 where a target is missed.
bench: tools
	cargo build --release --locked -p sns-relay -p sns-loadtest
	@[ "$$(nproc)" -ge 2 ] || { echo "two cores are missing: one for the relay, one for its senders"; exit 1; }
	@PATH="$(PATH):/usr/sbin" command -v nginx >/dev/null || echo "nginx is missing, its rows stay empty: sudo apt install nginx-light"
	@command -v valgrind >/dev/null || echo "valgrind is missing, its rows stay empty: sudo apt install valgrind"
	@"$(CARGO_TARGET_DIR)/release/sns-loadtest" bench --json "$(CARGO_TARGET_DIR)/bench.json" \
		--write docs/performance.md

test: tools smtp postgres
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

# A real SMTP server (aiosmtpd) for the tests and the demo, in a folder of its own: from PyPI, or else
# Debian's package of it.
smtp:
	@"$(PYTHON)/bin/python" -c "import aiosmtpd" 2>/dev/null || $(MAKE) --no-print-directory smtp-fetch

smtp-fetch:
	@echo "fetching the SMTP server of the tests and the demo: aiosmtpd, into $(PYTHON)"
	@{ python3 -m venv --clear "$(PYTHON)" >/dev/null 2>&1 \
		&& "$(PYTHON)/bin/pip" --quiet --disable-pip-version-check install aiosmtpd==1.4.6; } \
	|| { echo "python3-venv or PyPI is missing: installing Debian's python3-aiosmtpd" \
		&& $(AS_ROOT) apt-get -q update \
		&& $(AS_ROOT) apt-get -q -y install python3-venv python3-aiosmtpd \
		&& /usr/bin/python3 -m venv --clear --system-site-packages "$(PYTHON)"; }
	@"$(PYTHON)/bin/python" -c "import aiosmtpd"

# A real PostgreSQL server for the tests, which start one of their own: Debian's package where no
# server is there. The cluster that comes with the package is not used.
postgres:
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null \
	|| { echo "PostgreSQL's server is missing: installing Debian's postgresql" \
		&& $(AS_ROOT) apt-get -q update \
		&& $(AS_ROOT) apt-get -q -y install --no-install-recommends postgresql; }
