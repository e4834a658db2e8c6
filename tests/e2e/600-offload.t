#!/bin/sh
# A model four times larger than its device: every schedule gives the lines that the host alone gives.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib-serve.sh"
cd "$work" || exit 1

# Prompts from 1 to 200 tokens, of which some begin alike; greedy and sampled; more than a batch.
requests() {
	i=0
	while [ $i -lt "$1" ]; do
		long=$((1 + i * 37 % 200))
		t=$(seq -s, $((i % 3)) $((i % 3 + long - 1)))
		echo "{\"id\":$i,\"tokens\":[$t],\"max_tokens\":$((1 + i * 5 % 14)),\"temperature\":$((i % 2)),\"seed\":$i,\"ignore_eos\":true,\"logprobs\":true}"
		i=$((i + 1))
	done
}
count=14
layers=64
[ -z "$MOE_SAN" ] || count=6
requests $count >requests
model=synth:tiny-mixtral,layers=$layers

# ---- sizes: the model's bytes are four times the device's

bytes=$(moe-shard --info $model | sed -n 's/^ *"total": \([0-9]*\),*/\1/p')
device=$((bytes / 4))
[ "$device" -gt 100000 ]
ok $? "$bytes bytes of model, $device of device"
moe-route $model <requests >plain
ok $? "the host alone"

for schedule in cgopipe coalesced flexgen flexgen-c zero on-demand; do
	moe-route -v --device cpu --device-memory $device --schedule $schedule $model <requests >out 2>err
	ok $? "$schedule, on a quarter of the model's size"
	same "$schedule: the same lines" plain out
	has "$schedule: says so" "schedule: $schedule, as asked for" err
done
has "and what was fetched" 'experts on the device: [0-9]+ hits, [1-9][0-9]* misses, [1-9][0-9]* evictions' err
moe-route -v --device cpu --device-memory $device $model <requests >out 2>err
ok $? "nothing said"
same "the same lines" plain out
has "chooses coalesced" 'schedule: coalesced, by itself: not everything fits' err
has "and how many experts stay" 'experts: [0-9]+ of [0-9]+ stay on the device \(.*, a share of 0' err
used=$(sed -n 's/.*device memory: at most \([0-9.]*\) \(.*iB\).*/\1 \2/p' err)
[ -n "$used" ]
ok $? "says what was used: $used"

moe-route -v --device cpu $model <requests >out 2>err
same "everything resident, where there is no limit" plain out
has "is chosen" 'schedule: resident, by itself: everything fits' err
refuses "resident on a quarter of its size" 'resident needs .* available: with --schedule coalesced' \
	moe-route --device cpu --device-memory $device --schedule resident $model
[ ! -s out ]
ok $? "and nothing is printed"

# ---- sizes of micro-batches, shares, pinned memory, a slow link

try() {
	words=$1
	shift
	moe-route --device cpu "$@" $model <requests >out 2>err
	same "$words" plain out
	[ -s err ] && sed 's/^/# /' err
}
try "micro-batches of one" --schedule cgopipe --micro-batch 1 --batch 5
try "three micro-batches of two, and no --batch" --schedule coalesced --micro-batches 3 --micro-batch 2
try "a micro-batch for all" --schedule flexgen --micro-batches 1
try "larger micro-batches than the batch fills" --schedule coalesced --micro-batch 1048576
try "more of them than it has sequences" --schedule cgopipe --micro-batches 1048576
try "a share of 0.3" --schedule coalesced --resident 0.3
try "nothing resident, through the relay" --schedule cgopipe --resident 0 --pinned off
try "nothing resident, from pinned memory" --schedule zero --resident 0 --pinned on
try "a tenth of the experts on demand" --schedule on-demand --resident 0.1
try "prompts in small pieces" --schedule flexgen-c --resident 0.5 --chunk 7
try "without the prefix cache" --schedule coalesced --resident 0 --no-prefix-cache
try "a link of 100 MB/s" --schedule coalesced --resident 0.5 --link-bandwidth 100M --threads 1
moe-route --device cpu --schedule flexgen --resident 0 --score $model <requests >out
moe-route --score $model <requests >plain-score
same "scores" plain-score out
moe-route --device cpu --schedule cgopipe --resident 0 --exact $model <requests >out
moe-route --exact $model <requests >plain-exact
same "--exact" plain-exact out
moe-route --device cpu --schedule coalesced --resident 0 --no-prefix-cache --usage usage.json $model <requests >out
moe-route --no-prefix-cache --usage plain-usage.json $model <requests >plain
same "usage counts the same" plain-usage.json usage.json

# ---- quantised, from files, with text

kjv=$top/models/kjv-mixtral
moe-shard --quant q4 "$kjv" q4 >/dev/null 2>&1
moe-route -p "And it came to pass" -n 20 q4 >plain-text
for schedule in resident cgopipe zero on-demand; do
	moe-route --device cpu --schedule $schedule -p "And it came to pass" -n 20 q4 >text
	same "q4, text: $schedule" plain-text text
done
moe-route -p "And it came to pass" -n 20 "$kjv" >plain-text
moe-route --device cpu --device-memory 13M -p "And it came to pass" -n 20 "$kjv" >text 2>err
same "bf16 on 13 MiB, of 17" plain-text text

# ---- experts of servers on a device

moe-shard --devices 2 q4 q4x2 >/dev/null 2>&1
if serve_start q4x2 --device cpu --device-memory 64M; then
	moe-route -p "And it came to pass" -n 20 q4 >plain-text
	moe-route --hosts "$hosts" -p "And it came to pass" -n 20 q4x2 >text
	same "two servers, each with a device" plain-text text
	has "whose ready lines say so" '"numerics":"sum2 a=i8 cpu","device":"cpu"' serve.out
	serve_stop
	ok $? "end"
else
	ok 1 "servers start"
fi
finish
