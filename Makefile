# Targets for people and for CI. `make` alone lists them.

SHELL       := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test ci build profile bench crash chaos gen fmt lint fuzz cover tools install-parts clean

# Rounds of kill and restart, plugins to kill, and seconds per fuzz target.
ROUNDS   ?= 1000
KILLS    ?= 10000
FUZZTIME ?= 30s
# Where the demo finds the plugins that it packs, and options for it (--keep).
PLUGINS  := bin/plugins
DEMO     ?=
# Scenarios of test/load whose processor time the compiler is to save.
PROFILED := vend vend-agentkms kbs-resource kbs-handshake-new route
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)

LDFLAGS  := -s -w -X main.version=$(VERSION)
GO_BUILD := CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)'

help: ## list the targets
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: install-parts build ## build everything and tell the whole story with real parts
	@for source in plugins/sshcert plugins/bait sdk/plugin/kbs/testdata/hello; do \
		name=$$(basename $$source); mkdir -p $(PLUGINS)/$$name; \
		CGO_ENABLED=0 go build -trimpath -o $(PLUGINS)/$$name/$$name-$$(go env GOOS)-$$(go env GOARCH) ./$$source; \
		cp $$source/plugin.json $(PLUGINS)/$$name/; \
	done
	@mkdir -p $(PLUGINS)/honeytoken && cp -r plugins/honeytoken/{plugin.json,src} $(PLUGINS)/honeytoken/
	@bin/sallyport demo $(DEMO)

test: ## vet, and all tests with the race detector: run it before pushing
	@.ci/test

ci: ## exactly what CI runs: generated code, format, lint, builds, fuzzing, tests
	@.ci/run

build: ## build bin/sallyport
	@mkdir -p bin
	@$(GO_BUILD) -o bin/sallyport ./cmd/sallyport

profile: ## measure anew what the compiler optimizes a release by (docs/performance.md)
	@dir=$$(mktemp -d); trap 'rm -rf "$$dir"' EXIT; go build -trimpath -o "$$dir/load" ./test/load; \
	for scenario in $(PROFILED); do \
		"$$dir/load" $$scenario --duration 8s --profile "$$dir/$$scenario" >"$$dir/log" || { cat "$$dir/log"; exit 1; }; \
	done; \
	go run -C tools ./profile "$$PWD/cmd/sallyport/default.pgo" $(PROFILED:%="$$dir/%")

bench: ## run all benchmarks once; compare two runs with benchstat (docs/performance.md)
	@go test -run '^$$' -bench . -benchmem -benchtime 1s -p 1 ./... | grep -v -e '^?' -e 'no test files'

crash: install-parts build ## kill the server ROUNDS times and prove that nothing is lost
	@ROUNDS=$(ROUNDS) go test -count 1 -timeout 0 -v ./test/crash/...

chaos: ## kill plugins KILLS times under load and prove that nothing is left
	@KILLS=$(KILLS) go test -count 1 -timeout 0 -v -run '^TestHost_Chaos$$' ./internal/plugin

gen: ## write all generated code anew
	@.ci/gen

fmt: ## format all Go code
	@.ci/gofiles | xargs "$$(tools/build small)/gofumpt" -w

lint: ## check format, vet and lint
	@.ci/lint

fuzz: ## fuzz every target for FUZZTIME
	@FUZZTIME=$(FUZZTIME) .ci/fuzz

cover: ## write coverage.out and print the total
	@go test -coverpkg ./internal/...,./sdk/... -coverprofile coverage.out ./...
	@go tool cover -func coverage.out | tail -1

tools: ## build the developer tools into a cache directory and print it
	@tools/build

install-parts: ## install what tests and demo use, or say what to install
	@.ci/parts

clean: ## remove what was built here
	@rm -rf bin dist coverage.out
