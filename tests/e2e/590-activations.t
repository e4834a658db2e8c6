#!/bin/sh
# --activations: what weights are multiplied with is part of the numerics, and servers must agree about it.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib-serve.sh"

model=$top/models/kjv-mixtral
for i in 1 2 3; do
	echo "{\"id\":$i,\"prompt\":\"And the LORD said unto the $i sons of Israel\"}"
done >"$work/requests"

# scores NAME OPTION...: of the requests in $work/NAME, the numerics in effect in $work/NAME.err
scores() {
	name=$1
	shift
	moe-route -v --score "$@" <"$work/requests" >"$work/$name" 2>"$work/$name.err"
	ok $? "scores: $name"
}
differs() {
	! cmp -s "$work/$1" "$work/$2"
	ok $? "$1 and $2 differ"
}

scores default "$model"
scores i8 --activations i8 "$model"
scores f32 --activations f32 "$model"
scores bf16 --activations bf16 "$model"
same "i8 is the default" "$work/default" "$work/i8"
same "bf16 weights know no int8" "$work/i8" "$work/f32"
differs f32 bf16
has "the numerics say what bf16 is" "a=bf16[+]i8 kv=f16" "$work/bf16.err"
has "and what f32 is" "a=f32 kv=f16" "$work/f32.err"
scores exact --exact "$model"
scores exact-f32 --exact --activations f32 "$model"
same "--exact implies f32" "$work/exact" "$work/exact-f32"

moe-shard -q --quant q8 "$model" "$work/set" >/dev/null
scores q8 "$work/set"
scores q8-bf16 --activations bf16 "$work/set"
scores q8-f32 --activations f32 "$work/set"
same "coded weights are multiplied with int8 under bf16, too" "$work/q8" "$work/q8-bf16"
differs q8 q8-f32

serve_start "$model" --activations bf16
scores served --activations bf16 --hosts "$hosts" "$model"
same "a server gives the same" "$work/bf16" "$work/served"
refuses "a client of other numerics" "another numerics id [(]sum2 a=bf16[+]i8 cpu, wanted sum2 a=i8 cpu[)]" \
	moe-route -q --hosts "$hosts" -p "And" -n 1 "$model"
runs 0 "--mixed-numerics accepts them" moe-route -q --hosts "$hosts" --mixed-numerics -p "And" -n 1 "$model"
serve_stop

runs 0 "moe-bench takes it" moe-bench -m "$model" --activations bf16 --no-roofs -p 8 -n 0 -r 1 -o csv
has "and says so" "a=bf16" "$work/out"
runs 0 "moe-bench kernels takes it" moe-bench kernels --activations bf16 --no-roofs --quant bf16 -s 64x64 -m 3 --seconds 0.001 --memory 1M
runs 0 "moe-bench divergence takes it" moe-bench divergence -m "$model" --positions 40 --activations bf16 "$model"
awk -F' *[|] *' '/kjv/ {exit !($5 > 0 && $5 < 0.01)}' "$work/out"
ok $? "bf16 diverges a little"
# wrong TOOL...: what goes before --activations
wrong() {
	runs 2 "$1: an unknown type" "$@" --activations f8 "$model"
	has "says so" "activations f8: not i8, f32 or bf16" "$work/err"
	runs 2 "$1: --exact and bf16" "$@" --exact --activations bf16 "$model"
	has "says so, too" "multiplies with f32" "$work/err"
}
wrong moe-route -p And
wrong moe-serve
wrong moe-bench divergence -m "$model"
runs 2 "moe-bench: an unknown type" moe-bench -m "$model" --activations f16
runs 2 "moe-bench kernels: an unknown type" moe-bench kernels --activations q8
finish
