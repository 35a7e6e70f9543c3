# SPDX-License-Identifier: GPL-2.0-or-later

GO      ?= go
COMMIT  := $(shell git describe --always --dirty --abbrev=12 2>/dev/null || echo unknown)
DATE    := $(shell git show -s --format=%cI HEAD 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X slate/netboot/cli.buildCommit=$(COMMIT) -X slate/netboot/cli.buildDate=$(DATE)
CONTROLLER := builder/initramfs/bin/slate-init

export CGO_ENABLED := 0

.PHONY: all build lint size clean
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

size: build
	@wc -c bin/slate bin/slate-init

clean:
	rm -rf bin $(CONTROLLER)
