#!/bin/sh
# moe-bench offload: schedules side by side, on a device that is only reckoned with; and what it refuses.
. "$(dirname "$0")/../lib.sh"

s1="-m mixtral-8x7b --virtual t4 --set host_memory=184GiB -p 418 -n 128"
runs 0 "all schedules at one policy" moe-bench offload $s1 --micro-batches 14 --micro-batch 36 -o csv
[ "$(wc -l <"$work/out")" -eq 6 ]
ok $? "a head and five rows"
cp "$work/out" "$work/first"
runs 0 "again" moe-bench offload $s1 --micro-batches 14 --micro-batch 36 -o csv
cmp -s "$work/out" "$work/first"
ok $? "simulated time is the same every time"
runs 0 "md" moe-bench offload $s1 --micro-batches 14 --micro-batch 36
has "the first schedule is the measure" '^\| cgopipe +\| +504 \| +36 .* 1\.00 ' "$work/out"
has "what does not fit is told" 'zero: a batch of 504 does not fit the memory of t4' "$work/err"
if command -v jq >/dev/null; then
	runs 0 "json" moe-bench offload $s1 --micro-batches 14 --micro-batch 36 -o json
	jq -e 'def of(s): .[] | select(.schedule == s) | .median_ts;
		length == 5 and of("cgopipe") > of("flexgen") and (of("cgopipe") / of("flexgen") - 1.67 | fabs) < 0.02 and
		all(.[]; .decode_gpu_busy + .decode_bubbles > 0.999 and .decode_gpu_busy + .decode_bubbles < 1.001 and .policy == "equal" and
		.prefill_seconds > 0 and .link_in_bandwidth == null and (.batch == 504))' "$work/out" >/dev/null
	ok $? "cgopipe is as much faster than flexgen as the simulator says, and shares add up"
	runs 0 "the best of each" moe-bench offload $s1 --best --schedules zero,coalesced -o json
	jq -e 'length == 2 and all(.[]; .fits == 1 and .policy == "best") and .[0].schedule == "zero" and .[0].batch < .[1].batch' "$work/out" >/dev/null
	ok $? "fits, in the order asked for"
fi
mkdir "$work/traces"
runs 0 "traces" moe-bench offload $s1 --micro-batches 2 --micro-batch 4 --schedules flexgen-c --trace "$work/traces" -o csv
for phase in prefill decode; do
	grep -q '"traceEvents"' "$work/traces/flexgen-c-$phase.json" && grep -q '"attention"' "$work/traces/flexgen-c-$phase.json"
	ok $? "of $phase"
done
runs 0 "an experts' share, coded" moe-bench offload $s1 --micro-batches 2 --micro-batch 4 --schedules cgopipe --weights 0.25 --quant q4 --kv q8 -o csv
runs 0 "a batch that is best" moe-bench offload -m mixtral-8x7b --virtual l4 --schedules cgopipe -p 77 -n 32 -o csv

tiny="-m synth:tiny-mixtral,seed=1 --device cpu -t 1 -p 8 -n 4 -r 1 --no-roofs"
runs 0 "on a device" moe-bench offload $tiny --schedules cgopipe --micro-batches 2 --micro-batch 1 -o csv
[ "$(wc -l <"$work/out")" -eq 2 ] && grep -q '"cpu (' "$work/out"
ok $? "a row, that says which"
refuses "a device that is too small" 'cgopipe' moe-bench offload $tiny --schedules cgopipe --device-memory 10K
refuses "a model that is none" 'nonsense' moe-bench offload -m synth:nonsense --device cpu
runs 2 "a device and a virtual one" moe-bench offload $tiny --virtual t4
runs 2 "any device" moe-bench offload -m synth:tiny-mixtral --device auto
runs 2 "a device that is none" moe-bench offload -m synth:tiny-mixtral --device tpu
runs 2 "numbers of a device that is there" moe-bench offload $tiny --set gpu.memory=1G
runs 2 "memory of one that is not" moe-bench offload $s1 --device-memory 1G
runs 2 "a link that cannot be imitated" moe-bench offload -m synth:tiny-mixtral --device cuda --link-bandwidth 1G
runs 2 "too many sequences" moe-bench offload $tiny --micro-batches 4096 --micro-batch 4096
runs 2 "pinned, perhaps" moe-bench offload $tiny --pinned maybe
runs 2 "no model" moe-bench offload --virtual t4
runs 2 "no device" moe-bench offload -m mixtral-8x7b
runs 2 "a schedule that is none" moe-bench offload $s1 --schedules cgopipe,fast
has "is named" 'fast' "$work/err"
runs 2 "a schedule twice" moe-bench offload $s1 --schedules zero,zero
runs 2 "no schedule" moe-bench offload $s1 --schedules ''
runs 2 "a share over one" moe-bench offload $s1 --weights 1.5
runs 2 "a format that is none" moe-bench offload $s1 -o xml
refuses "hardware that is none" 't5' moe-bench offload -m mixtral-8x7b --virtual t5
refuses "hardware without a device" 'no device' moe-bench offload -m mixtral-8x7b --virtual epyc-2s
refuses "a model that is none" 'mixtrel' moe-bench offload -m mixtrel --virtual t4
refuses "a key that is none" 'gpu.memoy' moe-bench offload $s1 --set gpu.memoy=1G
refuses "traces without a folder" 'nowhere' moe-bench offload $s1 --trace "$work/nowhere"
finish
