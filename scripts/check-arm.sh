#!/bin/sh
# Cross-compile the kernels for AArch64 and test them in an emulator.  Where there is neither, say so and do nothing.
set -eu
cd "$(dirname "$0")/.."
cc=${ARM_CC:-aarch64-linux-gnu-gcc}
for tool in "$cc" qemu-aarch64; do
	if ! command -v "$tool" >/dev/null; then
		echo "check-arm: skipped: $tool is not installed (packages gcc-aarch64-linux-gnu, qemu-user)"
		exit 0
	fi
done
out=build/arm
mkdir -p $out
cflags="-std=c11 -D_GNU_SOURCE -Ilib -ffp-contract=off -Wall -Wextra -O2"
objects=
for source in compute/cpu/coded_neon compute/cpu/coded_base compute/cpu/isa_base compute/math tensor/pack tensor/quant \
	tensor/decode tensor/convert tensor/halves tensor/dtype base/err base/words; do
	object=$out/$(echo $source | tr / _).o
	march=armv8-a
	[ $source != compute/cpu/coded_neon ] || march=armv8.2-a+dotprod
	"$cc" $cflags -march=$march -c -o "$object" lib/$source.c
	objects="$objects $object"
done
"$cc" $cflags -static -o $out/kernels.t tests/arm/kernels.c $objects -lm
exec prove --exec "qemu-aarch64 -cpu max" $out/kernels.t
