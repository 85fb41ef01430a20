# The short way to what CMake does here (CMakePresets.json) and to what scripts/ does. `make help` lists the targets.
# Each target first installs the Debian packages that are missing: scripts/setup, which says nothing when none are.

PREFIX ?= /usr/local
RELEASE := build/release
CMAKE = cmake --preset

.DEFAULT_GOAL := all
.PHONY: all demo check bench install format tidy coverage clean help

all: ## build the libraries, the server and the examples (build/release)
	@scripts/setup build
	@mkdir -p build
	@$(CMAKE) release >build/release.log 2>&1 || { cat build/release.log; exit 1; }
	@cmake --build $(RELEASE)

demo: all ## three nodes on this machine: import, kill one, bring it back, compare
	@scripts/demo $(RELEASE)

check: ## everything that CI runs
	@scripts/setup check
	@scripts/check

bench: all ## the benchmarks
	@cmake --build $(RELEASE) --target benchmarks
	@for bench in $(RELEASE)/bin/bench-*; do [ -x "$$bench" ] || continue; echo "== $${bench##*/}"; "$$bench" || exit 1; done

install: all ## install into PREFIX (/usr/local), DESTDIR is honoured
	@cmake --install $(RELEASE) --prefix $(PREFIX) >$(RELEASE)/install.log || { cat $(RELEASE)/install.log; exit 1; }
	@if [ -z "$(DESTDIR)" ] && [ "$$(id -u)" = 0 ]; then ldconfig; fi
	@echo "installed into $(DESTDIR)$(PREFIX)"

format: ## run clang-format on every C file
	@scripts/setup check
	@scripts/tidy --format

tidy: ## the style, layering and symbol checks
	@scripts/setup check
	@$(CMAKE) gcc >/dev/null && cmake --build build/gcc --target layers >/dev/null
	@scripts/tidy --symbols build/gcc

coverage: ## lines and branches that the tests take, per layer
	@scripts/setup check
	@scripts/coverage

clean: ## remove everything that was built
	@rm -rf build

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1: /p' Makefile | while IFS=: read -r name text; do printf '  make %-10s%s\n' "$$name" "$$text"; done
