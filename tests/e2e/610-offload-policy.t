#!/bin/sh
# What moe-policy plans, moe-route runs: for a made-up machine, every schedule, on a device of just that memory.
. "$(dirname "$0")/../lib.sh"
cd "$work" || exit 1
model=$top/models/kjv-mixtral
cat >machine.json <<M
{"name": "small", "levels": [{"name": "gpu", "memory": 15e6, "bandwidth": 3e11, "flops": {"f32": 6e13}},
                             {"name": "cpu", "memory": 8e9, "bandwidth": 1e10, "flops": 1e9}],
 "links": [{"from": "cpu", "to": "gpu", "bandwidth": 2e10, "latency": 1e-6}, {"from": "gpu", "to": "cpu", "bandwidth": 2e10, "latency": 1e-6}]}
M
cat >requests <<R
{"prompt": "And it came to pass", "max_tokens": 16, "logprobs": true}
{"prompt": "In the beginning", "max_tokens": 12, "temperature": 0.7, "seed": 3}
{"prompt": "Behold", "max_tokens": 14}
R
moe-route "$model" <requests >plain
ok $? "the host alone"

# planned WORDS MEMORY OPTION...: plan, run, compare.
planned() {
	words=$1
	memory=$2
	shift 2
	moe-policy -q --no-cache --model "$model" --hardware machine.json --set gpu.memory="$memory" --prompt 10 --generate 16 "$@" >p.json 2>plan.err
	ok $? "$words: planned for $memory"
	moe-route -v --policy p.json --device cpu "$model" <requests >out 2>err
	same "$words: the same lines" plain out
	has "$words: as planned" 'schedule: .*, by the policy' err
}
for schedule in resident cgopipe coalesced flexgen flexgen-c zero; do
	planned $schedule 20MB --schedule $schedule
	has "$schedule: is it" "schedule: $schedule, by" err
done
planned "whatever is fastest on little memory" 15MB
planned "attention here, experts there" 20MB --schedule resident --attention-on gpu --ffn-on cpu
planned "experts here, attention there" 20MB --schedule resident --attention-on cpu --ffn-on gpu
planned "a batch of 7 in micro-batches of 3" 17MB --schedule cgopipe --batch 7 --micro-batch 3
has "has three of them" '3 micro-batches of at most 3 sequences' err
has "and its memory" 'device: cpu \(.*, 16.2 MiB\)' err

# Options come before the policy.
moe-route -v --policy p.json --device cpu --device-memory 64M --schedule zero --resident 0.5 --batch 2 "$model" <requests >out 2>err
same "another schedule, share and batch" plain out
has "are what is run" 'schedule: zero, as asked for; 1 micro-batch of at most 2' err
moe-policy -q --no-cache --model "$model" --hardware machine.json --prompt 10 --generate 16 --kv q8 --schedule cgopipe >p.json 2>plan.err
moe-route --policy p.json --device cpu "$model" <requests >out 2>err
same "a policy that counts other keys and values does not change the answers" plain out
has "and it is said" 'counts 1 byte.? for an element of a key or value; with --kv f16 there are 2' err
finish
