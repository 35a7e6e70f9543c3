# SPDX-License-Identifier: GPL-2.0-or-later

GO      ?= go
COMMIT  := $(shell git describe --always --dirty --abbrev=12 2>/dev/null || echo unknown)
DATE    := $(shell git show -s --format=%cI HEAD 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X slate/netboot/cli.buildCommit=$(COMMIT) -X slate/netboot/cli.buildDate=$(DATE)
CONTROLLER := builder/initramfs/bin/slate-init

export CGO_ENABLED := 0

# What the tests and the demo keep between runs: the Debian image.
CACHE ?= $(CURDIR)/.cache
# Where a failed test leaves its console logs, captures and pictures.
ARTIFACTS ?= $(CURDIR)/artifacts
# The lab and the image build need root.
AS_ROOT := $(if $(filter 0,$(shell id -u)),,sudo --preserve-env=PATH)

.PHONY: all build lint unit lab matrix test soak demo bench size clean
all: build

# The controller is embedded in slate, so it is built first.
build:
	$(GO) build -trimpath -ldflags='-s -w' -o $(CONTROLLER) ./installer/init
	mkdir -p bin && cp $(CONTROLLER) bin/slate-init
	$(GO) build -trimpath -ldflags='$(LDFLAGS)' -o bin/slate .

lint:
	@out=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$out" || { echo "gofmt: run gofmt -w on: $$out"; exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...

# Everything: installs what is missing, then formatting and linters, unit tests
# with the race detector, and the machines of the lab.
test:
	testbed/deps.sh test
	$(MAKE) lint unit lab

unit: build
	CGO_ENABLED=1 SLATE_TEST=all $(GO) test -race -timeout 30m $$($(GO) list ./... | grep -v /testbed/e2e)

# The tests run in a network of their own: what needs the real one comes first.
lab: build
	mkdir -p $(ARTIFACTS)
	$(AS_ROOT) bin/slate lab demo --dir $(CACHE)/demo --build-only
	$(AS_ROOT) env SLATE_TEST=all SLATE_BIN=$(CURDIR)/bin/slate SLATE_CACHE=$(CACHE) \
		$(GO) test -count=1 -timeout 60m -parallel 3 -artifacts -outputdir=$(ARTIFACTS) ./testbed/e2e

# Boots every row of the lab matrix, of which make test boots some, and switches
# on 200 simulated machines at once. ROWS is a regular expression of rows.
ROWS ?= .
matrix: build
	testbed/deps.sh matrix
	mkdir -p $(ARTIFACTS)
	$(AS_ROOT) bin/slate lab demo --dir $(CACHE)/demo --build-only
	$(AS_ROOT) env SLATE_TEST=all SLATE_BIN=$(CURDIR)/bin/slate SLATE_CACHE=$(CACHE) \
		$(GO) test -count=1 -v -timeout 90m -parallel 3 -artifacts -outputdir=$(ARTIFACTS) ./testbed/e2e \
		-run 'TestMatrix|TestServerStopped|TestMachineWaitsForItsTurn|TestBootStorm' -matrix '$(ROWS)' -storm 200

# The trials of make lab that are worth many rounds, in full: hours. What was done is
# kept in $(SOAK), so that it can be interrupted and go on; see docs/reliability.md.
SOAK ?= $(CACHE)/soak
soak: build
	testbed/deps.sh test
	$(AS_ROOT) bin/slate lab demo --dir $(CACHE)/demo --build-only --openrc
	$(AS_ROOT) bin/slate --config $(CACHE)/demo/slate.toml build debian --recipe testbed/e2e/testdata/cloud.toml --name cloud --publish stable
	$(AS_ROOT) env SLATE_TEST=all SLATE_SOAK=$(SOAK) SLATE_BIN=$(CURDIR)/bin/slate SLATE_CACHE=$(CACHE) \
		$(GO) test -count=1 -timeout 24h -v -run 'TestConfigured|TestOpenRC|TestMedia|TestCycle|TestPowerCuts|TestInstall|TestUpdate|TestJournal|TestOwnKernel' ./testbed/e2e
	SLATE_SOAK=$(SOAK) $(GO) test -count=1 -timeout 24h -v -run TestKilledAtAnyPoint ./images/store

# Boots two virtual machines from an appliance in the lab, one by BIOS and one by
# UEFI, and shows how they got to their login prompts.
demo:
	testbed/deps.sh demo
	$(MAKE) build
	$(AS_ROOT) bin/slate lab demo --dir $(CACHE)/demo

# Measures against the peers, in one run each; see docs/performance.md.
bench: build
	testbed/deps.sh bench
	$(AS_ROOT) bin/slate lab demo --dir $(CACHE)/demo --build-only
	test -d $(CACHE)/tree || $(AS_ROOT) bin/slate --config $(CACHE)/demo/slate.toml image export demo@stable $(CACHE)/tree --format dir
	$(AS_ROOT) $(GO) test ./tftp -count=1 -run TestPeers -tftp.peers=7 -v
	$(AS_ROOT) $(GO) test ./dhcp -run - -bench . -benchtime 15000x -count 5 -timeout 30m
	test -f $(CACHE)/boot.trace || $(AS_ROOT) $(GO) test ./nfs/nfsbench -count=1 -timeout 15m -run Record -v -record $(CACHE)/boot.trace -tree $(CACHE)/tree
	$(AS_ROOT) $(GO) test ./netboot/httpd/front -count=1 -timeout 20m -run TestPeers -v -front.peers 5
	$(AS_ROOT) testbed/benchtrees.sh $(CACHE)/update
	$(AS_ROOT) env SLATE_BENCH_OLD=$(CACHE)/update/old SLATE_BENCH_NEW=$(CACHE)/update/new \
		$(GO) test ./images/store ./images/transfer -timeout 30m -run - -bench 'Commit$$|Update' -benchtime 3x
	$(AS_ROOT) $(GO) test ./nfs/nfsbench -count=1 -timeout 60m -run Bench -v -nfsbench -rounds 5 -tree $(CACHE)/tree -trace $(CACHE)/boot.trace

size: build
	@wc -c bin/slate bin/slate-init

clean:
	rm -rf bin artifacts $(CONTROLLER)
