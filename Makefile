# moe-tools.  make | make check | make demo | make install PREFIX= DESTDIR= | make info
#
# A new tool is a new folder under tools/, a new room a new folder under lib/, a new test a new file
# under tests/: nothing has to be listed here.

VERSION  = 0.1.0
PREFIX  ?= /usr/local
CC      ?= cc
PKGS     = libzmq libcjson libpcre2-8 libutf8proc libxxhash
TOOLS    = $(notdir $(wildcard tools/moe-*))

DEBUG   ?= 0
SAN     ?=# address,undefined or thread: a build of its own under build/san-...
B        = build/$(if $(SAN),san-$(subst $(comma),-,$(SAN)),$(if $(filter 1,$(DEBUG)),debug,release))
BIN      = $(if $(SAN),$(B)/bin,bin)
comma   := ,

NVCC    ?= $(shell command -v nvcc 2>/dev/null)
CUDA    ?= $(if $(wildcard lib/compute/cuda/*.cu),$(if $(NVCC),1,0),0)

warn     = -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wvla
opt      = $(if $(filter 1,$(DEBUG)),-O1 -g,-O2 -g)
san      = $(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=all)
cppflags = -D_GNU_SOURCE -Ilib $(shell pkg-config --cflags $(PKGS) 2>/dev/null) $(CPPFLAGS)
# The answer is the same everywhere only if the compiler fuses nothing by itself.
cflags   = -std=c11 -ffp-contract=off -pthread $(warn) $(opt) $(san) $(CFLAGS)
ldflags  = -pthread $(san) -Wl,--as-needed $(LDFLAGS)
libs     = $(shell pkg-config --libs $(PKGS) 2>/dev/null) -lm $(LDLIBS)

# lib/compute/cpu/isa_*.c is one source compiled per instruction set by including kernels.inc with its own flags.
isa_x86  = $(if $(filter x86_64 amd64,$(shell uname -m)),1)
$(B)/lib/compute/cpu/isa_avx2.o:   isaflags = $(if $(isa_x86),-mavx2 -mfma -mf16c -O3)
$(B)/lib/compute/cpu/isa_avx512.o: isaflags = $(if $(isa_x86),-mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx2 -mfma -mf16c -mprefer-vector-width=512 -O3)
$(B)/lib/compute/cpu/isa_base.o:   isaflags = -O3

lib_o  = $(patsubst %.c,$(B)/%.o,$(wildcard lib/*/*.c lib/*/cpu/*.c))
lib    = $(B)/libmoecore.a
tool_o = $(patsubst %.c,$(B)/%.o,$(wildcard tools/$(1)/*.c))
units  = $(patsubst tests/unit/%.c,$(B)/tests/%.t,$(wildcard tests/unit/*.c))

all: $(TOOLS:%=$(BIN)/%)

.SECONDEXPANSION:
$(BIN)/%: $$(call tool_o,$$*) $(lib)
	@mkdir -p $(@D)
	$(CC) $(ldflags) -o $@ $^ $(libs)

$(lib): $(lib_o)
	@rm -f $@
	$(AR) rcs $@ $^

$(B)/%.o: %.c $(B)/flags
	@mkdir -p $(@D)
	$(CC) $(cppflags) $(cflags) $(isaflags) -MMD -MP -c -o $@ $<

$(B)/tests/%.t: tests/unit/%.c $(lib) $(B)/flags
	@mkdir -p $(@D)
	$(CC) $(cppflags) $(cflags) -MMD -MP -MF $(@:.t=.d) $(ldflags) -o $@ $< $(lib) -lcmocka $(libs)

# Changes when compiler or flags do, so that nothing needs a clean in between.
$(B)/flags: force
	@mkdir -p $(@D)
	@echo '$(CC) $(cppflags) $(cflags) $(ldflags) $(libs)' | cmp -s - $@ || echo '$(CC) $(cppflags) $(cflags) $(ldflags) $(libs)' >$@
force:

unit: $(units)

clean:
	rm -rf build bin

.PHONY: all unit clean force
-include $(lib_o:.o=.d) $(foreach t,$(TOOLS),$(patsubst %.o,%.d,$(call tool_o,$(t)))) $(units:.t=.d)
