#!/bin/sh
# moe-route with a device or a policy: what is refused, and in which words.
. "$(dirname "$0")/../lib.sh"
cd "$work" || exit 1
tiny=synth:tiny-mixtral
request='{"tokens":[1,2,3],"max_tokens":3}'

# ---- options that mean nothing, or not together

wrong() {
	words=$1
	pattern=$2
	shift 2
	runs 2 "$words" moe-route "$@" $tiny
	has "... is wrong usage" "$pattern" err
}
wrong "a device of another kind" '--device tpu: not cpu, cuda, cuda:N or auto' --device tpu
wrong "a GPU that is no number" '--device cuda:x' --device cuda:x
wrong "a schedule of another name" '--schedule cgopip: there is none of that name: is cgopipe meant' --device cpu --schedule cgopip
wrong "a share above 1" '--resident' --device cpu --resident 1.5
wrong "a word for --pinned" '--pinned maybe: not auto, on or off' --device cpu --pinned maybe
wrong "a link that is not imitated" '--link-bandwidth imitates a link, and only --device cpu' --device cuda --link-bandwidth 1G
wrong "a link of no device" '--link-bandwidth needs a device' --link-bandwidth 1G
for o in "--device-memory 1G" "--schedule zero" "--micro-batches 2" "--micro-batch 2" "--resident 0.5" "--pinned on"; do
	wrong "$o without a device" "${o%% *} needs a device" $o
done
wrong "micro-batches of zero" '--schedule zero has no use for --micro-batches' --device cpu --schedule zero --micro-batches 2
wrong "pinned experts of on-demand" '--schedule on-demand has no use for --pinned' --device cpu --schedule on-demand --pinned on
wrong "a share of resident" '--schedule resident has no use for --resident' --device cpu --schedule resident --resident 1
wrong "a device and servers" '--device computes the experts in this process' --device cpu --connect tcp://localhost:1
wrong "a policy and servers" '--policy computes the experts in this process' --policy p.json --connect tcp://localhost:1
wrong "importance on a device" '--importance sees what the host multiplies' --device cpu --importance x

# ---- devices that are not there, or too small

if [ -e /dev/nvidia0 ]; then
	skip "there is a GPU"
else
	refuses "no GPU" '(without CUDA|no GPU|no CUDA)' moe-route --device cuda $tiny
	[ ! -s out ]
	ok $? "and nothing is printed"
	echo "$request" | moe-route --device auto $tiny >out 2>err
	ok $? "a GPU if there is one"
	has "... and there is none, which is said" '--device auto: the host computes alone: .*' err
	echo "$request" | moe-route $tiny | cmp -s - out
	ok $? "the same answer"
fi
refuses "a device without room for two layers" 'coalesced needs .* on the device \(.*two slots for those that come 202.5 KiB.*\), 100.0 KiB are available, too little' \
	moe-route --device cpu --device-memory 100K $tiny
refuses "a share that does not fit" 'available: --resident 0\.[0-9]+ would fit' \
	moe-route --device cpu --device-memory 2M --batch 1 --ctx 64 --schedule cgopipe --resident 0.9 synth:tiny-mixtral,layers=64
share=$(sed -n 's/.*--resident \([0-9.]*\) would fit.*/\1/p' err)
echo "$request" | moe-route --device cpu --device-memory 2M --batch 1 --ctx 64 --schedule cgopipe --resident "$share" \
	synth:tiny-mixtral,layers=64 >out 2>err
ok $? "the one that was named ($share) does"
refuses "experts on demand that do not fit" 'on-demand: 1 of the experts take .* are available' \
	moe-route --device cpu --device-memory 500K --chunk 32 --schedule on-demand --resident 1 synth:tiny-mixtral,layers=64
refuses "a batch that its micro-batches do not hold" '2 micro-batches of 3 sequences hold 6, and the batch is 8' \
	moe-route --device cpu --micro-batches 2 --micro-batch 3 --batch 8 $tiny

# ---- policies

cat >machine.json <<M
{"name": "small", "levels": [{"name": "gpu", "memory": 1200000, "bandwidth": 3e11, "flops": {"f32": 6e13}},
                             {"name": "cpu", "memory": 8e9, "bandwidth": 1e10, "flops": 1e9}],
 "links": [{"from": "cpu", "to": "gpu", "bandwidth": 2e10, "latency": 1e-6}, {"from": "gpu", "to": "cpu", "bandwidth": 2e10, "latency": 1e-6}]}
M
moe-policy -q --model tiny-mixtral --hardware machine.json --prompt 16 --generate 16 --batch 8 --schedule cgopipe >p.json 2>plan.err
ok $? "a policy for a made-up machine"
refuses "needs its device" 'p.json is for a device of 1.1 MiB \(--device cpu imitates one\): ' moe-route --policy p.json $tiny
refuses "of another model" 'p.json: it is for another model: mixtral, 2 layers of 48, 5 experts; this one is qwen2_moe' \
	moe-route --policy p.json --device cpu synth:tiny-qwen2-moe
refuses "of a deeper model" 'p.json: it is for another model: .* 2 layers .* this one is mixtral, 3 layers' \
	moe-route --policy p.json --device cpu synth:tiny-mixtral,layers=3
refuses "no such file" 'none.json' moe-route --policy none.json $tiny
echo '{' >bad.json
refuses "no JSON" 'bad.json: ' moe-route --policy bad.json $tiny
changed() {
	sed "$1" p.json >changed.json
	refuses "$2" "$3" moe-route --policy changed.json --device cpu $tiny
}
changed 's/"schedule": "cgopipe"/"schedule": "zigzag"/' "a schedule that there is not" 'there is no schedule "zigzag"'
changed 's/"schema": 1/"schema": 9/' "a newer one" 'schema 9 is newer'
changed 's/"attention_on": "cpu"/"attention_on": "gpu"/' "a schedule with attention elsewhere" 'cgopipe computes attention on the host'
changed 's/"attention_on": "cpu"/"attention_on": "tpu"/' "a level that there is not" '"attention_on" is "tpu"'
changed 's/"micro_batch": [0-9]*/"micro_batch": 0/' "micro-batches of none" 'micro_batch'
changed 's/"name": "gpu",/"name": "gpu", "count": 4,/' "several devices" 'it is for 4 devices "gpu", and a run has one'
changed 's/"pinned": false/"pinned": 3/' "pinned memory that is a number" 'pinned'
refuses "a policy that does not fit the device" 'cgopipe needs .* available' \
	moe-route --policy p.json --device cpu --device-memory 200K $tiny
moe-policy -q --model tiny-mixtral --devices 2 >place.json
refuses "a policy that only places" 'place.json: it only says which device holds which expert' moe-route --policy place.json $tiny
moe-policy -q --model tiny-mixtral --hardware epyc-1s --batch 3 --prompt 16 --generate 16 >host.json
refuses "a policy for the host, and a device" 'host.json has the host compute everything, and --device is for a device' \
	moe-route --policy host.json --device cpu $tiny
echo "$request" | moe-route -v --policy host.json $tiny >out 2>err
ok $? "a policy for the host"
has "... whose batch it takes" 'KV cache: .* 3 blocks' err
finish
