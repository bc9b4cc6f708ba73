# The front door. Everything here calls CMake or a script of scripts/; nothing is decided twice.
SHELL := /bin/bash
.DEFAULT_GOAL := build
PREFIX ?= /usr/local
DESTDIR ?=
SECONDS_ARG := $(if $(filter command line,$(origin SECONDS)),$(SECONDS),)

.PHONY: build demo test bench performance chaos fuzz spec install clean deps deps-test

build: build/release/build.ninja
	@cmake --build build/release
build/release/build.ninja:
	@cmake --preset release >/dev/null

deps:
	@scripts/install-deps.sh build run
deps-test:
	@scripts/install-deps.sh build run test

demo: deps build
	@python3 examples/demo/demo.py build/release/amesh

test: deps-test
	@scripts/test.sh $(ONLY)

bench: deps build
	@python3 bench/run.py $(ONLY)

performance:
	@python3 bench/page.py

chaos: deps-test
	-@scripts/fetch-nats-server.sh >/dev/null
	@cmake --preset chaos >/dev/null && cmake --build build/chaos
	@python3 tests/chaos/campaign.py --seconds $(if $(SECONDS_ARG),$(SECONDS_ARG),600) $(if $(SEED),--seed $(SEED)) $(if $(ONLY),--only '$(ONLY)') $(if $(ONCE),--once) $(if $(RESUME),--resume)

fuzz: deps-test
	@RUNS=$(RUNS) scripts/fuzz.sh $(if $(SECONDS_ARG),$(SECONDS_ARG),60) $(ONLY)

spec: deps-test
	@scripts/spec-html.sh build/spec

install: build
	@cmake --install build/release --prefix $(PREFIX)

clean:
	@rm -rf build
