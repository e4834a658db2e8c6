#!/bin/sh
# moe-bench hardware --device: the CPU as a device, measured, is a machine that moe-policy plans for and moe-route runs on.
. "$(dirname "$0")/../lib.sh"
cd "$work" || exit 1
export XDG_CACHE_HOME="$work/cache"

quick="moe-bench hardware -q -t 1 --seconds 0.05 --no-kernels --no-network"
runs 0 "the CPU as a device" $quick --device cpu --device-memory 8M --link-bandwidth 1G
cp out machine.json
if command -v jq >/dev/null 2>&1; then
	jq -e '[.levels[].name] == ["gpu", "cpu"] and (.levels[0] | .count == 1 and .memory == 8388608 and .bandwidth > 0 and .call > 0 and
		(.flops | keys == ["bf16", "f32", "i8"] and all(.[]; . > 0)))' machine.json >/dev/null
	ok $? "is the first level, with its rates"
	jq -e '[.links[] | [.from, .to]] == [["cpu", "gpu"], ["gpu", "cpu"]] and all(.links[]; .bandwidth > 0 and .shared == false)' machine.json >/dev/null
	ok $? "has a link each way"
	jq -e '.measured | length == 2 and (.[0].threads == 1) and (.[1] | (.device | test("^cpu \\(.*8.0 MiB")) and (.ways_shared | type == "boolean") and
		all(.memory, .f32, .bf16, .i8, .calls, .link_in, .link_out, .link_both; .rate > 0 and .median > 0 and .samples > 0))' machine.json >/dev/null
	ok $? "and every rate with its samples"
else
	skip "no jq"
fi
plan="moe-policy -q --no-cache --model tiny-mixtral --hardware machine.json --prompt 16 --generate 4 --batch 4"
runs 0 "planned for it" $plan --schedule cgopipe
cp out p.json
has "with the device's experts" '"ffn_on": "gpu"' p.json
echo '{"tokens": [1, 2, 3], "max_tokens": 4}' >requests
moe-route -v --policy p.json --device cpu synth:tiny-mixtral,seed=1 <requests >answers 2>err
ok $? "and run"
moe-route synth:tiny-mixtral,seed=1 <requests >plain 2>/dev/null
same "with the host's answers" plain answers
has "by that policy" 'schedule: cgopipe, by the policy' err
runs 0 "reckoned with" moe-bench offload -m tiny-mixtral --virtual machine.json --schedules cgopipe -p 16 -n 4 -o csv

refuses "a device too small for a matrix" 'device memory: .* needed, .* of 4096' $quick --device cpu --device-memory 4K
runs 2 "any device" $quick --device auto
runs 2 "a device that is none" $quick --device tpu
runs 2 "a GPU's link slowed down" $quick --device cuda --link-bandwidth 1G
runs 2 "memory of no device" $quick --device-memory 1G
finish
