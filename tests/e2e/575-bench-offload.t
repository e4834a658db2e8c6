#!/bin/sh
# moe-bench offload: every schedule runs on the CPU as a device and generates the same tokens, and every number is there.
. "$(dirname "$0")/../lib.sh"

# field NAME SCHEDULE: its value in the last output.
field() {
	grep "\"schedule\":\"$2\"" "$work/out" | sed -n "s/.*\"$1\":\"\\{0,1\\}\\([^,\"}]*\\).*/\\1/p"
}
# positive NAME SCHEDULE
positive() {
	awk "BEGIN { exit !($(field "$1" "$2") + 0 > 0) }"
}

all="resident cgopipe coalesced flexgen flexgen-c zero"
mkdir "$work/traces"
runs 0 "all schedules in two rounds" moe-bench offload -m synth:tiny-mixtral,seed=3 --device cpu -t 2 -p 12 -n 6 -r 2 --micro-batches 3 --micro-batch 2 \
	--link-bandwidth 64M --schedules "$(echo $all | tr ' ' ,)" --weights 0.3 --trace "$work/traces" --no-roofs -o jsonl
[ ! -s "$work/err" ]
ok $? "tokens are the same in every round: nothing is told"
[ "$(sed -n 's/.*"tokens_id":"\([0-9a-f]*\)".*/\1/p' "$work/out" | sort | uniq -c | awk '{ print $1 }')" = 6 ]
ok $? "and from every schedule"
for which in $all; do
	wrong=
	for f in median_ts decode_ts prefill_seconds decode_seconds prefill_gpu_busy decode_gpu_busy decode_bytes_out; do
		positive $f $which || wrong="$wrong $f"
	done
	[ "$which" = resident ] || positive decode_link_in $which || wrong="$wrong decode_link_in"
	[ -z "$wrong" ]
	ok $? "$which: rates, times, shares and bytes"
	[ -z "$wrong" ] || echo "#$wrong"
	grep -q '"traceEvents"' "$work/traces/$which-prefill.json" && grep -q '"post-attention"' "$work/traces/$which-decode.json"
	ok $? "$which: both traces"
done
# What moves does not depend on the machine: zero brings a layer once a step, and so does coalesced, which sends hidden states too.
awk "BEGIN { exit !($(field decode_bytes_in coalesced) > $(field decode_bytes_in zero)) }"
ok $? "coalesced moves more than zero"
awk "BEGIN { exit !($(field decode_bytes_in resident) < $(field decode_bytes_in zero) / 10) }"
ok $? "resident moves next to nothing"
runs 0 "weights pinned on the way" moe-bench offload -m synth:tiny-qwen3-moe,seed=3 --device cpu -t 1 -p 5 -n 3 -r 1 --micro-batches 2 --micro-batch 1 \
	--pinned off --no-roofs --schedules cgopipe,zero -o jsonl
positive decode_pin_busy cgopipe && positive decode_pin_busy zero
ok $? "keep that lane busy"
[ "$(field predicted_ts cgopipe)" = null ]
ok $? "without roofs nothing is predicted"
if [ -n "$MOE_LONG" ]; then
	runs 0 "with roofs" moe-bench offload -m synth:tiny-mixtral,seed=3 --device cpu -t 1 -p 12 -n 6 -r 1 --micro-batches 3 --micro-batch 2 \
		--schedules "$(echo $all | tr ' ' ,)" -o jsonl
	for which in $all; do
		positive predicted_ts $which && positive prefill_predicted_seconds $which && positive decode_predicted_seconds $which
		ok $? "$which: a prediction"
	done
fi
finish
