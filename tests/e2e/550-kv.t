#!/bin/sh
# What keys and values are kept as: its memory, its answers, and that it never shows how they were computed.
. "$(dirname "$0")/../lib.sh"

model=$top/models/kjv-mixtral
long=$(sed -n '1,60p' "$top/models/kjv-mixtral/README.md" | tr -d '"\\\n\t')
printf '{"prompt":"In the beginning God created the heaven and the earth. And the earth was without form, and void."}\n{"prompt":"%s"}\n' \
	"$long" >"$work/score.jsonl"
printf '{"prompt":"In the beginning","max_tokens":20,"temperature":0}\n{"prompt":"%s","max_tokens":20,"temperature":0}\n' \
	"$long" >"$work/requests.jsonl"

# run OPTION... <requests >answers
run() {
	moe-route -q "$@" "$model" <"$work/$in" >"$work/out" 2>"$work/err" && return 0
	head -3 "$work/err" | sed 's/^/# /'
	return 1
}

# memory TYPE BLOCKS-OF-64-IN-A-MEBIBYTE BLOCK
memory() {
	moe-route -v --kv "$1" --kv-memory 1M -p And -n 1 "$model" >/dev/null 2>"$work/err"
	has "$1: a MiB holds $2 blocks" "KV cache: .* in $1, $2 blocks of 64 positions" "$work/err"
	refuses "$1: less than a block is refused with the numbers" "--kv-memory 1.0 KiB does not hold one block of 64 positions \($3\)" \
		moe-route -q --kv "$1" --kv-memory 1K -p And -n 1 "$model"
}

memory f32 2 '512.0 KiB'
memory f16 4 '256.0 KiB'
memory bf16 4 '256.0 KiB'
memory q8 7 '132.0 KiB'

for type in f32 f16 bf16 q8; do
	in=score.jsonl
	run --kv $type --score
	ok $? "$type: log-probabilities"
	cp "$work/out" "$work/$type"
	for how in '--threads 2' '--chunk 1' '--chunk 7' '--chunk 64' '--batch 1'; do
		run --kv $type --score --threads 1 $how && cmp -s "$work/out" "$work/$type"
		ok $? "$type: the same bits with $how"
	done
done
! cmp -s "$work/f32" "$work/f16" && ! cmp -s "$work/f16" "$work/bf16" && ! cmp -s "$work/bf16" "$work/q8"
ok $? "types differ in their last bits"

in=score.jsonl
run --exact --score
same "--exact keeps f32" "$work/f32" "$work/out"
run --score
same "16-bit weights: f16 is the default" "$work/f16" "$work/out"
moe-route -v -p And -n 1 synth:tiny-mixtral,dtype=f32 >/dev/null 2>"$work/err"
has "f32 weights: f32 is the default" 'KV cache: .* in f32' "$work/err"

# ---- prompts that begin alike ----

for i in 1 2 3 4 5 6; do
	printf '{"prompt":"%s And %d","max_tokens":12,"temperature":0.8,"seed":%d,"logprobs":true}\n' "$long" $((i / 2)) $i
done >"$work/alike.jsonl"
in=alike.jsonl
run --no-prefix-cache
ok $? "prompts that begin alike, each computed anew"
cp "$work/out" "$work/anew"
for how in '--batch 1' '--batch 8' '--batch 2 --chunk 7' '--batch 3 --chunk 1 --threads 2' '--batch 2 --kv-memory 3M'; do
	run $how
	same "the same answers where they share: $how" "$work/anew" "$work/out"
done
moe-route -v --batch 1 "$model" <"$work/$in" 2>"$work/err" >/dev/null
found=$(sed -n 's/.*prefix cache: \([0-9]*\) of [0-9]* prompt tokens found.*/\1/p' "$work/err")
[ "${found:-0}" -ge 320 ]
ok $? "and -v says how much was found: $found"
moe-route -v --batch 1 --no-prefix-cache "$model" <"$work/$in" 2>"$work/err" >/dev/null
has "nothing with --no-prefix-cache" 'prefix cache: 0 of 0 prompt tokens' "$work/err"

runs 2 "--exact with another type is wrong usage" moe-route --exact --kv f16 "$model"
runs 2 "a type that is none is wrong usage" moe-route --kv q3 "$model"
has "and is named" '--kv q3' "$work/err"
runs 2 "to moe-bench too" moe-bench -m "$model" --kv q3
runs 0 "moe-bench measures with it" moe-bench -m synth:tiny-mixtral -p 8 -n 4 -r 1 -t 1 --kv q8 -o jsonl
has "and says so" 'kv=q8' "$work/out"
finish
