# moe-tools.
#
#   make                  build bin/moe-*
#   make demo             install what is missing, build, generate text with two expert servers
#   make check            install what is missing, build, run the tests (T=FILES: those only)
#   make check-long       the tests again under sanitizers, the fuzzers, the slow ones
#   make check-arm        kernels for AArch64, in an emulator
#   make check-cuda       kernels for GPUs, in an emulator (part of make check)
#   make bare             moe-bench and the checks for GPUs with nothing but a C compiler and CUDA (tests/gpu/run)
#   make lint             cppcheck, man pages
#   make install PREFIX=/usr/local DESTDIR=
#   make info             what was found
#
# A new tool is a new folder under tools/, a new room a new folder under lib/, a new test a new file
# under tests/: nothing has to be listed here.

# V=1 shows the commands.  Builds that these targets start themselves use all cores.
VERSION  = 0.1.0
PREFIX  ?= /usr/local
CC      ?= cc
PKGS     = libzmq libcjson libpcre2-8 libutf8proc libxxhash
TOOLS    = $(notdir $(wildcard tools/moe-*))

DEBUG   ?= 0
SAN     ?=# address,undefined or thread: a build of its own under build/san-...
# BARE=1: none of the libraries; headers in their place say so when they are called (tests/gpu/absent).
BARE    ?= 0
bare     = $(filter 1,$(BARE))
B        = build/$(if $(bare),bare-,)$(if $(SAN),san-$(subst $(comma),-,$(SAN)),$(if $(filter 1,$(DEBUG)),debug,release))
BIN      = $(if $(SAN)$(bare),$(B)/bin,bin)
comma   := ,

# Kernels for GPUs are built where there are an nvcc and a GPU, or with CUDA=1 (it takes minutes), and not with sanitizers.  The
# runtime is linked in, so that the tools run where there is no driver.
NVCC    ?= $(shell command -v nvcc 2>/dev/null)
CUDA    ?= $(if $(and $(NVCC),$(wildcard /dev/nvidiactl /dev/nvidia0 /dev/dxg)),1,0)
cuda     = $(if $(SAN),,$(filter 1,$(CUDA)))
cuda_home = $(patsubst %/bin/nvcc,%,$(realpath $(shell command -v $(NVCC) 2>/dev/null)))
cuda_dir = $(firstword $(wildcard $(cuda_home)/targets/$(machine)-linux/$(1) $(cuda_home)/$(1)))

warn     = -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wvla
opt      = $(if $(filter 1,$(DEBUG)),-O1 -g,-O2 -g)
san      = $(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=all)
packages = $(if $(bare),,$(shell pkg-config $(1) $(PKGS) 2>/dev/null))
cppflags = -D_GNU_SOURCE -Ilib $(if $(bare),-Itests/gpu/absent) $(if $(cuda),-DMOE_CUDA -isystem $(call cuda_dir,include)) $(call packages,--cflags) $(CPPFLAGS)
# The answer is the same everywhere only if the compiler fuses nothing by itself.
cflags   = -std=c11 -ffp-contract=off -pthread $(warn) $(opt) $(san) $(CFLAGS)
ldflags  = -pthread $(san) -Wl,--as-needed $(LDFLAGS)
libs     = $(call packages,--libs) -lm $(if $(cuda),-L$(call cuda_dir,lib) -lcudart_static -ldl -lrt -lpthread) $(LDLIBS)

# Code for these GPUs, and for later ones what their driver compiles.  Nothing is fused or approximated.
cuda_archs = 75 80 90
nvccflags = -std=c++17 -O3 -Ilib -fmad=false -prec-div=true -prec-sqrt=true -ftz=false --threads 0 \
	$(foreach a,$(cuda_archs),-gencode arch=compute_$(a),code=sm_$(a)) \
	-gencode arch=compute_$(lastword $(cuda_archs)),code=compute_$(lastword $(cuda_archs)) \
	-Xcompiler -Wall,-Wextra,-ffp-contract=off,-fno-exceptions,-fno-threadsafe-statics $(NVCCFLAGS)

# lib/compute/cpu/isa_*.c is one source compiled per instruction set by including kernels.inc with its own flags;
# coded_*.c does the same with coded.inc, pairs_*.c with product.inc.
machine  = $(shell uname -m)
isa_avx2   = $(if $(filter x86_64 amd64,$(machine)),-mavx2 -mfma -mf16c)
isa_avx512 = $(if $(isa_avx2),$(isa_avx2) -mavx512f -mavx512bw -mavx512vl -mavx512dq -mprefer-vector-width=512)
isa_objects = $(1)/lib/compute/cpu/isa_$(2).o $(1)/lib/compute/cpu/coded_$(2).o
define isa_rules
$(call isa_objects,$(1),avx2):   isaflags = $$(isa_avx2) $(2)
$(call isa_objects,$(1),avx512): isaflags = $$(isa_avx512) $(2)
$(call isa_objects,$(1),base):   isaflags = $(2)
$(1)/lib/compute/cpu/coded_avx2vnni.o:   isaflags = $$(if $$(isa_avx2),$$(isa_avx2) -mavxvnni) $(2)
$(1)/lib/compute/cpu/coded_avx512vnni.o: isaflags = $$(if $$(isa_avx2),$$(isa_avx512) -mavx512vnni) $(2)
$(1)/lib/compute/cpu/coded_neon.o:       isaflags = $$(if $$(filter aarch64,$$(machine)),-march=armv8.2-a+dotprod) $(2)
$(1)/lib/compute/cpu/pairs_avx512bf16.o: isaflags = $$(if $$(isa_avx2),$$(isa_avx512) -mavx512bf16) $(2)
# So is lib/tensor/search_*.c.  -Wno-psabi: how vectors cross calls is no matter where none does.
$(1)/lib/tensor/search_avx2.o:   isaflags = $$(if $$(isa_avx2),-mavx2) $(2) -Wno-psabi
$(1)/lib/tensor/search_avx512.o: isaflags = $$(if $$(isa_avx2),-mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx2) $(2) -Wno-psabi
$(1)/lib/tensor/search_base.o:   isaflags = $(2) -Wno-psabi
endef
$(eval $(call isa_rules,$(B),-O3))
# Its loops are to become vectors.
$(B)/lib/tensor/halves.o: isaflags = -O3

lib_o  = $(patsubst %.c,$(B)/%.o,$(wildcard lib/*/*.c lib/*/cpu/*.c $(if $(cuda),lib/compute/cuda/*.c))) \
	$(if $(cuda),$(patsubst %.cu,$(B)/%.cu.o,$(wildcard lib/compute/cuda/*.cu)))
lib    = $(B)/libmoecore.a
tool_o = $(patsubst %.c,$(B)/%.o,$(wildcard tools/$(1)/*.c))
units  = $(patsubst tests/unit/%.c,$(B)/tests/%.t,$(wildcard tests/unit/*.c))

V       ?= 0
say      = $(if $(filter 0,$(V)),@printf '  %-6s %s\n' $(1) $(2);)
jobs     = -j$(shell nproc 2>/dev/null || echo 2)

all: $(TOOLS:%=$(BIN)/%)

.SECONDEXPANSION:
$(BIN)/%: $$(call tool_o,$$*) $(lib)
	@mkdir -p $(@D)
	$(call say,LINK,$@)$(CC) $(ldflags) -o $@ $^ $(libs)

# Cbc solves mixed-integer programs for moe-policy alone.
$(BIN)/moe-policy: private libs += -lCbcSolver
$(B)/tests/plan_whole.t: private with = $(B)/tools/moe-policy/whole.o -lCbcSolver
$(B)/tests/plan_whole.t: $(B)/tools/moe-policy/whole.o
# libmicrohttpd is for those that --metrics tells of.
$(BIN)/moe-serve $(BIN)/moe-route $(B)/tests/http_serve.t: private libs += -lmicrohttpd

$(lib): $(lib_o)
	@rm -f $@
	$(call say,AR,$@)$(AR) rcs $@ $^

$(B)/%.o: %.c $(B)/flags
	@mkdir -p $(@D)
	$(call say,CC,$<)$(CC) $(cppflags) $(cflags) $(isaflags) -MMD -MP -c -o $@ $<

$(B)/tests/%.t: tests/unit/%.c $(lib) $(B)/flags
	@mkdir -p $(@D)
	$(call say,TEST,$<)$(CC) $(cppflags) $(cflags) -MMD -MP -MF $(@:.t=.d) $(ldflags) -o $@ $< $(with) $(lib) -lcmocka $(libs)

$(B)/%.cu.o: %.cu $(B)/nvccflags
	@mkdir -p $(@D)
	$(call say,NVCC,$<)$(NVCC) $(nvccflags) -MMD -MP -MF $(@:.o=.d) -c -o $@ $<
$(B)/nvccflags: force
	@mkdir -p $(@D)
	@echo '$(NVCC) $(nvccflags)' | cmp -s - $@ || echo '$(NVCC) $(nvccflags)' >$@

# The CUDA backend with an emulated GPU, for machines with none: the same sources, compiled by g++ (tests/emulator/emulator.h).
# Of the library only what depends on CUDA is compiled again.  Not with sanitizers, which do not follow its fibers.
E = $(B)/emulated
emulated_c = $(wildcard lib/compute/cuda/*.c lib/compute/device.c)
emulated_cc = $(wildcard lib/compute/cuda/*.cu tests/emulator/*.cc)
emulated_o = $(patsubst %,$(E)/%.o,$(emulated_c) $(emulated_cc))
emulated_cpp = -D_GNU_SOURCE -Itests/emulator -Ilib -DMOE_CUDA $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
emulated_cxx = -std=c++17 -ffp-contract=off -Wall -Wextra -Wno-unknown-pragmas -O2 -g $(san)
cuda_units = $(if $(SAN),,$(patsubst tests/cuda/%,$(B)/tests/cuda_%.t,$(basename $(wildcard tests/cuda/*.c tests/cuda/*.cc))))
$(E)/%.c.o: %.c $(B)/flags
	@mkdir -p $(@D)
	$(call say,CC,$@)$(CC) $(emulated_cpp) $(cflags) -MMD -MP -c -o $@ $<
$(E)/%.o: % $(B)/flags
	@mkdir -p $(@D)
	$(call say,CXX,$@)$(CXX) $(emulated_cpp) $(emulated_cxx) -MMD -MP -x c++ -c -o $@ $<
$(B)/tests/cuda_%.t: $(E)/tests/cuda/%.c.o $(emulated_o) $(lib)
	@mkdir -p $(@D)
	$(call say,TEST,$@)$(CXX) $(ldflags) -o $@ $^ -lcmocka $(libs)
$(B)/tests/cuda_%.t: $(E)/tests/cuda/%.cc.o $(emulated_o) $(lib)
	@mkdir -p $(@D)
	$(call say,TEST,$@)$(CXX) $(ldflags) -o $@ $^ -lcmocka $(libs)

# Programs that need a GPU, and nothing else builds: make build/release/gpu/bench_products
$(B)/gpu/%: tests/gpu/%.c $(lib) $(B)/flags
	@mkdir -p $(@D)
	$(call say,CC,$<)$(CC) $(cppflags) $(cflags) $(ldflags) -o $@ $< $(lib) -lcublasLt $(libs) -L$(call cuda_dir,lib) -Wl,-rpath,$(call cuda_dir,lib)

$(E)/bin/moe-route: private libs += -lmicrohttpd
$(E)/bin/%: $$(call tool_o,$$*) $(emulated_o) $(lib)
	@mkdir -p $(@D)
	$(call say,LINK,$@)$(CXX) $(ldflags) -o $@ $^ $(libs)

# The same for the tests of what a GPU computes, which are those of the emulated one.
gpu_units = $(addprefix $(B)/gpu/,$(addsuffix .t,$(if $(cuda),cuda_ops cuda_products) pool_pager pool_experts engine_offload))
$(B)/gpu/cuda_%.t: tests/cuda/%.c $(lib) $(B)/flags
	@mkdir -p $(@D)
	$(call say,TEST,$@)$(CC) $(cppflags) $(cflags) $(ldflags) -o $@ $< $(lib) $(libs)
$(B)/gpu/%.t: tests/unit/%.c $(lib) $(B)/flags
	@mkdir -p $(@D)
	$(call say,TEST,$@)$(CC) $(cppflags) $(cflags) $(ldflags) -o $@ $< $(lib) $(libs)
bare:
	@$(MAKE) --no-print-directory BARE=1 CUDA=1 bare-built
bare-built: $(BIN)/moe-bench $(gpu_units) $(if $(cuda),$(B)/gpu/bench_products)

# Changes when compiler or flags do, so that nothing needs a clean in between.
$(B)/flags: force
	@mkdir -p $(@D)
	@echo '$(CC) $(cppflags) $(cflags) $(ldflags) $(libs)' | cmp -s - $@ || echo '$(CC) $(cppflags) $(cflags) $(ldflags) $(libs)' >$@
force:

# What was built, for results that are compared later; only this file is compiled anew when it changes.
commit := $(shell git rev-parse --short HEAD 2>/dev/null)
$(B)/tools/moe-bench/commit.o: isaflags = -DMOE_COMMIT='"$(commit)"'
$(B)/tools/moe-bench/commit.o: $(B)/commit
$(B)/commit: force
	@mkdir -p $(@D)
	@echo '$(commit)' | cmp -s - $@ || echo '$(commit)' >$@

unit: $(units)

# Programs that only tests use, and fuzz targets (clang).
helpers = $(patsubst tests/tools/%.c,$(B)/tests/tools/%,$(wildcard tests/tools/*.c))
$(B)/tests/tools/%: tests/tools/%.c $(lib) $(B)/flags
	@mkdir -p $(@D)
	$(call say,TEST,$<)$(CC) $(cppflags) $(cflags) -MMD -MP -MF $@.d $(ldflags) -o $@ $< $(lib) $(libs)

FUZZ_CC ?= clang
FUZZ_SECONDS ?= 20
fuzzers = $(patsubst tests/fuzz/%.c,build/fuzz/%,$(wildcard tests/fuzz/*.c))
fuzz_o  = $(patsubst %.c,build/fuzz/o/%.o,$(wildcard lib/*/*.c lib/*/cpu/*.c))
$(eval $(call isa_rules,build/fuzz/o,))
build/fuzz/o/%.o: %.c
	@mkdir -p $(@D)
	$(call say,FUZZCC,$<)$(FUZZ_CC) $(cppflags) -std=c11 -ffp-contract=off -O1 -g -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all $(isaflags) -MMD -MP -c -o $@ $<
build/fuzz/libmoecore.a: $(fuzz_o)
	@rm -f $@
	$(call say,AR,$@)$(AR) rcs $@ $^
build/fuzz/%: tests/fuzz/%.c build/fuzz/libmoecore.a
	$(call say,FUZZ,$@)$(FUZZ_CC) $(cppflags) -std=c11 -O1 -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -o $@ $^ $(libs)

# Each target runs from its kept corpus for FUZZ_SECONDS; what it finds new stays out of the tree.
fuzz: $(fuzzers)
	@scripts/fuzz.sh $(FUZZ_SECONDS) $(fuzzers)

DEPS ?= 1
deps:
	@scripts/deps.sh install
deps-if-missing:
	@[ "$(DEPS)" = 0 ] || scripts/deps.sh present >/dev/null || scripts/deps.sh install

# Make reads pkg-config's answers when it starts, so what deps installed is seen by a make of its own.
demo: deps-if-missing
	@$(MAKE) --no-print-directory $(jobs) all
	@scripts/demo.sh

# Sanitizers make these take minutes, and unit tests show them the same code: of offloading, benchmarks, searches, and that bits are equal.
slow = tests/e2e/580-bits.t tests/e2e/600-offload.t tests/e2e/610-offload-policy.t tests/cli/550-bench.t tests/cli/210-policy-hardware.t \
	$(B)/tests/plan_search.t $(B)/tests/plan_eplb.t
# A thread sanitizer has nothing to look for where one thread plans, or refuses input before others start; many processes that generate text
# are too slow with it, and what their threads do the tests of net and run have.
single = tests/e2e/620-replicas.t tests/e2e/630-reload.t tests/e2e/640-spare.t tests/e2e/670-chaos.t \
	tests/cli/2%.t tests/cli/310-shard-bad.t tests/e2e/540-malformed.t $(addprefix $(B)/tests/,plan_%.t schedule_%.t text_%.t compute_quant.t)
threaded = $(filter-out $(if $(SAN),$(slow)) $(if $(filter thread,$(SAN)),$(single)),$(1))
tests = $(or $(T),$(call threaded,$(wildcard tests/tree/*.t) $(units) $(cuda_units) $(wildcard tests/cli/*.t tests/e2e/*.t tests/launch/*.t)))
check: deps-if-missing
	@$(MAKE) --no-print-directory $(jobs) check-built
check-cuda:
	@$(MAKE) --no-print-directory $(jobs) T="$(cuda_units) tests/e2e/610-cuda.t" check-built
check-built: all $(call threaded,$(units) $(cuda_units)) $(helpers) $(if $(SAN),,$(E)/bin/moe-route)
	@MOE_SAN=$(SAN) MOE_BIN=$(abspath $(BIN)) MOE_TESTS=$(abspath $(B)/tests) MOE_EMULATED=$(abspath $(E)/bin) $(sanenv) prove -j2 --timer $(tests)

sanenv = ASAN_OPTIONS=detect_leaks=1:abort_on_error=0 UBSAN_OPTIONS=print_stacktrace=1 \
	TSAN_OPTIONS=suppressions=$(CURDIR)/tests/tsan.supp:halt_on_error=1

check-long: deps-if-missing
	@$(MAKE) --no-print-directory $(jobs) check-built
	@$(MAKE) --no-print-directory $(jobs) SAN=address,undefined check-built
	@$(MAKE) --no-print-directory $(jobs) SAN=thread check-built
	@MOE_LONG=1 $(MAKE) --no-print-directory $(jobs) check-built
	@$(MAKE) --no-print-directory $(jobs) FUZZ_SECONDS=120 fuzz

# Kernels for AArch64, cross-compiled and emulated.
check-arm:
	@scripts/check-arm.sh

lint:
	@scripts/lint.sh

# Units go where systemd looks for them, and name the programs where they are; the rest of share/ is to be copied and changed.
shared = $(filter-out %.service,$(wildcard share/*/*))
units_at = $(DESTDIR)$(PREFIX)/lib/systemd/system
install: all
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(PREFIX)/share/man/man5 $(DESTDIR)$(PREFIX)/share/man/man7
	install -m 755 $(TOOLS:%=bin/%) $(DESTDIR)$(PREFIX)/bin
	for s in 1 5 7; do install -m 644 man/*.$$s $(DESTDIR)$(PREFIX)/share/man/man$$s || exit 1; done
	for f in $(shared:share/%=%); do install -D -m 644 share/$$f $(DESTDIR)$(PREFIX)/share/moe-tools/$$f || exit 1; done
	install -d $(units_at)
	for u in $(notdir $(wildcard share/systemd/*.service)); do \
		sed 's,/usr/local/bin/,$(PREFIX)/bin/,' share/systemd/$$u >$(units_at)/$$u && chmod 644 $(units_at)/$$u || exit 1; done

uninstall:
	cd $(DESTDIR)$(PREFIX)/bin && rm -f $(TOOLS)
	cd $(DESTDIR)$(PREFIX)/share/man && rm -f $(foreach m,$(notdir $(wildcard man/*.[157])),man$(subst .,,$(suffix $(m)))/$(m))
	rm -rf $(DESTDIR)$(PREFIX)/share/moe-tools
	cd $(units_at) && rm -f $(notdir $(wildcard share/systemd/*.service))

info:
	@echo "version    $(VERSION)"
	@echo "compiler   $(CC): $$($(CC) --version 2>/dev/null | head -n 1)"
	@for p in $(PKGS); do echo "library    $$p $$(pkg-config --modversion $$p 2>/dev/null || echo missing)"; done
	@echo "cuda       $(if $(cuda),$(NVCC) for $(cuda_archs:%=sm_%); $(call cuda_dir,lib)/libcudart_static.a is linked in,$(if $(NVCC),$(NVCC) is there and no GPU: CUDA=1 builds for $(cuda_archs:%=sm_%),no nvcc))"
	@echo "tools      $(TOOLS)"
	@echo "build      $(B) -> $(BIN)"

clean:
	rm -rf build bin

# Objects are kept.
.SECONDARY:

.PHONY: all unit fuzz deps deps-if-missing demo check check-built check-cuda bare bare-built check-long check-arm lint install uninstall info clean force
-include $(lib_o:.o=.d) $(foreach t,$(TOOLS),$(patsubst %.o,%.d,$(call tool_o,$(t)))) $(units:.t=.d) $(fuzz_o:.o=.d) $(helpers:=.d) \
	$(emulated_o:.o=.d) $(patsubst $(B)/tests/cuda_%.t,$(E)/tests/cuda/%.c.d,$(cuda_units)) $(patsubst $(B)/tests/cuda_%.t,$(E)/tests/cuda/%.cc.d,$(cuda_units))
