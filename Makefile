# Two commands do everything: `make run` and `make test`.

SHELL := /bin/bash
CARGO ?= cargo
NPM ?= npm
# Arguments for the gateway: make run ARGS="--http 127.0.0.1:9443"
ARGS ?=
# Where cargo builds.
TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
# Where the picture of the page and the screenshots of the tests go.
export ARTIFACTS ?= $(CURDIR)/artifacts

.PHONY: picture run build web test tools test-tools format lint test-rust test-web test-browser bench bench-join perf soak clean

run: build
	$(RELEASE) $(ARGS)

build: web
	$(CARGO) build --release --locked -p wzp-gateway

web: tools web-client/node_modules/.stamp
	cd web-client && $(NPM) run --silent build

web-client/node_modules/.stamp: web-client/package-lock.json
	cd web-client && $(NPM) ci --no-audit --no-fund --loglevel=error
	@touch $@

tests/node_modules/.stamp: tests/package-lock.json
	cd tests && $(NPM) ci --no-audit --no-fund --loglevel=error
	@touch $@

# libopus is compiled from the source that its crate carries, which takes cmake and a C compiler.
tools:
	@command -v $(CARGO) >/dev/null || { echo "Rust is missing: https://rustup.rs" >&2; exit 1; }
	@command -v node >/dev/null || { echo "Node 20.19 or newer is missing: https://nodejs.org" >&2; exit 1; }
	@node -e 'const [a,b]=process.versions.node.split(".").map(Number); process.exit(a>20||(a===20&&b>=19)?0:1)' \
		|| { echo "Node $$(node --version) is too old: 20.19 or newer is needed" >&2; exit 1; }
	@if ! command -v cmake >/dev/null || ! command -v cc >/dev/null; then \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends cmake gcc g++ make libc6-dev >/dev/null; \
		else echo "cmake and a C compiler are missing: apt-get install cmake gcc g++" >&2; exit 1; fi; fi

# Browsers and media tools of the tests, from Debian.
TEST_PACKAGES := chromium:chromium firefox-esr:firefox-esr ffmpeg:ffmpeg ip:iproute2 nc:netcat-openbsd python3:python3
test-tools: tools
	@missing=""; for pair in $(TEST_PACKAGES); do command -v "$${pair%%:*}" >/dev/null || missing="$$missing $${pair##*:}"; done; \
	if [ -n "$$missing" ]; then \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing fonts-dejavu-core >/dev/null; \
		else echo "missing for the tests:$$missing (apt-get install$$missing)" >&2; exit 1; fi; fi

test: format lint test-rust test-web test-browser

format: test-tools
	$(CARGO) fmt --all --check

# Clippy's driver is the compiler with more lints, so what it checks it also builds: one compilation serves the lints and all tests.
LINTED := RUSTC_WORKSPACE_WRAPPER=clippy-driver CLIPPY_ARGS=-D__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__

lint: web
	$(LINTED) $(CARGO) build --workspace --all-targets --locked
	@if command -v cargo-deny >/dev/null; then $(CARGO) deny --log-level error check bans licenses sources; else echo "cargo-deny is not installed: its check is left out"; fi

test-rust: lint test-tools tests/node_modules/.stamp
	@if command -v cargo-nextest >/dev/null; then $(LINTED) $(CARGO) nextest run --workspace --locked --no-fail-fast; else $(LINTED) $(CARGO) test --workspace --locked; fi
	$(LINTED) $(CARGO) test --workspace --locked --doc

test-web: web
	cd web-client && $(NPM) run --silent check

# One file at a time: two cores are full with the browsers of one.
PAGE_TESTS := node --test --test-timeout=600000
test-browser: lint test-tools tests/node_modules/.stamp
	mkdir -p $(ARTIFACTS)
	cd tests && WZP_GATEWAY=$(TARGET)/debug/wzp-gateway $(NPM) test --silent
	cd web-client && export WZP_GATEWAY=$(TARGET)/debug/wzp-gateway WZP_ARTIFACTS=$(ARTIFACTS)/page && \
		$(PAGE_TESTS) --test-concurrency=1 page/tests/*.test.mjs page/tests/call/*.test.mjs

# The picture in the README, from the tests' screenshots.
picture: test-browser
	cp $(ARTIFACTS)/page/gateway-four-desktop-light.png docs/page.png

# Hours, not minutes: a call of ten for five minutes under loss, nine pictures in one page, the memory of a call of four over half
# an hour, two natives behind a lossy relay for five minutes, every property test with many more cases, and the long tests of the
# browsers.
soak: web test-tools tests/node_modules/.stamp
	$(CARGO) build --locked --release -p wzp-gateway
	cd tests && WZP_GATEWAY=$(RELEASE) $(NPM) run --silent soak
	cd web-client && WZP_GATEWAY=$(RELEASE) $(NPM) run --silent soak -- $${SOAK_MINUTES:-30} both
	WZP_SOAK=1 PROPTEST_CASES=$${PROPTEST_CASES:-100000} WZP_SIMULATIONS=$(SIMULATIONS) $(CARGO) test --release -p wzp-proto -p wzp-gateway -- --include-ignored
	WZP_SOAK=1 $(MAKE) test-browser

# Seeds of the simulation in the long runs.
SIMULATIONS ?= 3000
RELEASE = $(TARGET)/release/wzp-gateway

# Everything that has a number, against that number, for a machine that does nothing else: tests/perf.
perf: build test-tools tests/node_modules/.stamp
	WZP_GATEWAY=$(RELEASE) WZP_SIMULATIONS=$(SIMULATIONS) CARGO="$(CARGO)" tests/perf

# For WebRTC, `wzp-gateway bench forward` measures the whole gateway with real viewers.
bench:
	$(CARGO) bench -p wzp-gateway
	WZP_PLI_ROUNDS=20 WZP_PLI_P99_MS=20 $(CARGO) test --release -p wzp-gateway --test native_door request_of_a_viewer -- --nocapture

# How long newcomers wait for their first picture, with a table. WZP_CHECK=1 fails if a target is missed.
bench-join: test-tools tests/node_modules/.stamp web
	@if [ -z "$$WZP_GATEWAY" ]; then $(CARGO) build --locked --release -p wzp-gateway; fi
	@cd tests && WZP_GATEWAY=$${WZP_GATEWAY:-$(RELEASE)} WZP_CHECK=$(WZP_CHECK) node bench/join.mjs

clean:
	$(CARGO) clean
	rm -rf target web-client/dist web-client/node_modules tests/node_modules artifacts
