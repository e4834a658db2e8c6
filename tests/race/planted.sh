#!/bin/sh
# ThreadSanitizer with our suppressions must still find a race in our own code: one is planted and looked for.
cd "$(dirname "$0")/../.." || exit 1
work=$(mktemp -d "${TMPDIR:-/tmp}/moe-race.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
make -s DEPS=0 SAN=thread build/san-thread/libmoecore.a || exit 1
cc -std=c11 -D_GNU_SOURCE -Ilib -g -O1 -fsanitize=thread -pthread tests/race/planted.c build/san-thread/libmoecore.a \
	-o "$work/planted" $(pkg-config --libs libzmq libcjson libpcre2-8 libutf8proc libxxhash) -lm || exit 1
TSAN_OPTIONS="suppressions=tests/tsan.supp:halt_on_error=1:exitcode=66" "$work/planted" >"$work/out" 2>&1
status=$?
if [ $status -eq 66 ] && grep -q 'data race' "$work/out"; then
	echo "the planted race was found"
else
	echo "the planted race was not found (exit status $status)"
	tail -n 20 "$work/out"
	exit 1
fi
