# A thin layer over CMakePresets.json: each target first installs what it needs and is missing.
#
#   make            build into build/release
#   make demo       train the example model with 4 ranks
#   make test       build and run all tests
#   make crash-all  kill a rank at every instruction of every call: takes weeks. CRASH_SHARE=3/20 does
#                   one share of 20; CRASH_PROGRESS=FILE goes on where it was ended
#   make crash-changes  the same wherever an instruction changes the arena: takes more than an hour. The
#                   tests try a sample of the long calls; .ci/run all of them but messages and requests
#   make chaos      ranks that die, stop and are replaced at random: 10 minutes each with 4, 8 and 16
#   make model-all  check the models of the protocol in their larger forms: takes long
#   make bench      measure, beside other libraries
#   make install    PREFIX=/usr/local, DESTDIR= for packagers
#   make debug asan tsan clang
#                   the tests, built with assertions, under sanitizers, by clang
#   make format-check       compare all sources with .clang-format
#   make clean      remove build/, demo-output/ and bench-output/
#
# JOBS=N sets how many compilers run at a time.
PREFIX ?= /usr/local
JOBS ?= $(shell nproc)
export JOBS

.PHONY: all demo test crash-all crash-changes chaos model-all bench install debug asan tsan clang format-check clean
.NOTPARALLEL:

all:
	@scripts/dependencies.sh build
	@scripts/build.sh release

demo:
	@scripts/dependencies.sh build demo
	@scripts/build.sh release serry_command train
	@scripts/demo.sh build/release

test:
	@scripts/dependencies.sh build test
	@scripts/test.sh release

crash-all:
	@scripts/dependencies.sh build test
	@scripts/build.sh release crash
	@build/release/tests/crash all --all

crash-changes:
	@scripts/dependencies.sh build test
	@scripts/test.sh release -C changes -L changes

model-all:
	@scripts/dependencies.sh build test
	@docs/model/check.sh all

chaos:
	@scripts/dependencies.sh build test
	@scripts/build.sh release chaos
	@for ranks in 4 8 16; do \
	    build/release/tests/chaos --ranks $$ranks --seconds 600 || exit 1; done

bench:
	@scripts/dependencies.sh build bench
	@scripts/build.sh release serry_command benchmarks
	@mkdir -p bench-output
	@build/release/tools/serry bench --csv bench-output/cells.csv --plot bench-output/latency.svg \
	    >bench-output/table.txt; code=$$?; cat bench-output/table.txt; exit $$code

install:
	@scripts/dependencies.sh build
	@scripts/build.sh release serry serry_static serry_command serry_man benchmarks
	@DESTDIR='$(DESTDIR)' cmake --install build/release --prefix '$(PREFIX)' \
	    >build/release/install.log
	@echo "Installed into $(DESTDIR)$(PREFIX); build/release/install_manifest.txt lists the files"
	@if [ -z '$(DESTDIR)' ] && [ "$$(id -u)" = 0 ]; then ldconfig; fi

debug asan tsan:
	@scripts/dependencies.sh build test
	@scripts/test.sh $@

clang:
	@scripts/dependencies.sh build test clang
	@scripts/test.sh clang

format-check:
	@scripts/dependencies.sh format
	@find bench examples include shm src tests tools \( -name '*.[ch]' -o -name '*.cc' \) -print0 \
	    | xargs -0 clang-format --dry-run -Werror

clean:
	rm -rf build demo-output bench-output
