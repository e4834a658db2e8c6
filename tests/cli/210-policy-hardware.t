#!/bin/sh
# moe-policy: hardware, workloads and models by name or from files; what is planned for them; what is refused and how.
. "$(dirname "$0")/../lib.sh"
cd "$work" || exit 1
export XDG_CACHE_HOME="$work/cache"

mixtral='moe-policy --model mixtral-8x7b'
paper="$mixtral --variant paper --set host_memory=184GiB --workload mtbench --padded"

runs 0 "MoE-Lightning's Mixtral on one T4" $paper --hardware t4
has "the published batch" '"batch": 504,' out
has "in the published micro-batches" '"micro_batches": 14,' out
has "bound by the link" '"bottleneck": "h2d"' out
cp out t4.json
runs 0 "asked again" $paper --hardware t4 -v
same "gets the same answer" out t4.json
has "from the cache" 'found before' err
runs 0 "searched again" $paper --hardware t4 -v --no-cache
same "gives the same answer" out t4.json
runs 0 "on one L4" $paper --hardware l4 --set residual=per-micro-batch
has "in the published micro-batches" '"micro_batch": 68,' out
cp out l4.json

# The page for people.
runs 0 "explained" $mixtral --hardware t4 --workload mtbench --explain
has "what binds" 'tokens/s, bound by the ' out
has "roofs" '^  cpu to gpu 17.2 GB/s' out
has "turning points" 'experts +gpu .*worth moving above 46.6, link-bound below' out
has "memory" '^  gpu +[0-9.]+ of +14.2' out
has "what would help" '^  link.cpu-gpu.bandwidth +[+][0-9.]+ %' out
runs 0 "two unlike hosts" $mixtral --hardware epyc-1s+desktop-ddr5 --quant q4 --explain
has "and the second is told to be a burden" 'epyc-1s alone would be faster: [0-9]' err
has "bring the network in" '^  network +[0-9]+ %' out
runs 2 "two outputs" $mixtral --hardware t4 --explain --export vllm
runs 2 "no machine to explain" $mixtral --devices 2 --explain

# Played task by task, the link is what all wait for.
runs 0 "simulated" $paper --hardware t4 --simulate cgopipe --timeline lanes.json --plot lanes.svg
has "the sizes" 'cgopipe, batch 504 in micro-batches of 36' out
has "lanes" '^h2d +[0-9.]+ +9[0-9.]+ % ' out
has "a timeline" '"traceEvents"' lanes.json
has "a picture" '</svg>' lanes.svg
runs 0 "prompts simulated" $paper --hardware t4 --simulate cgopipe --prefill --steps 1
has "one batch" '^1 batch of prompts' out
refuses "a schedule that is none" '"cgpipe": is cgopipe meant' $mixtral --hardware t4 --simulate cgpipe

# The policy has its inputs, and can be planned again from them.
if command -v jq >/dev/null 2>&1; then
	jq .hardware t4.json >hardware.json
	jq .workload t4.json >workload.json
	runs 0 "planned again from what a policy repeats" $mixtral --variant paper --hardware hardware.json --workload workload.json
	jq '.policy, .prediction' t4.json >first
	jq '.policy, .prediction' out >again
	same "gives the same" first again
	jq -e 'keys_unsorted == ["schema", "hardware", "model", "workload", "policy", "prediction", "devices", "placement"]' t4.json >/dev/null
	ok $? "schema comes first, the placement last"
	jq -e '(.policy.weights | add) > 0.999999 and (.prediction.memory.gpu | .used <= .available)' t4.json >/dev/null
	ok $? "shares add up, memory suffices"
else
	skip "no jq"
fi

runs 0 "two policies compared" moe-policy --compare t4.json l4.json
has "numbers with their ratio" '^policy.micro_batch +36 +68 +x1.89$' out
has "words" '^hardware.name +t4 +l4$' out
runs 0 "a policy beside itself" moe-policy --compare t4.json t4.json
has "differs in nothing" '^no difference$' out

sed 's/^  "schema": 1,/  "schema": 1, "owner": "me",/; s/"variant"/"note": 7, "variant"/' t4.json >mine.json
runs 0 "planned again beside an edited one" $paper --hardware t4 --keep mine.json
has "its owner is kept" '"owner": "me"' out
has "and its note" '"note": 7' out

runs 0 "names" moe-policy --list
for name in deepseek-v3 a100-80 desktop-ddr5 helm-reasoning cgopipe 100g; do
	has "$name is listed" "^  $name\$" out
done
runs 0 "a model that is known by its shape" moe-policy --model gpt-oss-20b --hardware h100 --prompt 100 --generate 10
has "the workload" '"prompt_mean": 100,' out
runs 0 "quantised experts" $mixtral --hardware rtx4090x2@epyc-2s --quant q4
has "say so" '"experts": "q4"' out
has "and so does the device" '"quant": "q4",' out
runs 0 "experts alone" $mixtral --hardware 4*epyc-1s --quant experts=q4
has "on four hosts" '"host": "epyc-1s#4"' out
runs 0 "a quant in which a fleet holds the experts" moe-policy --model mixtral-8x22b --hardware desktop-ddr4+desktop-ddr4 --quant auto
has "q4" '"experts": "q4"' out
refuses "a fleet that holds them in none" 'do not fit' moe-policy --model deepseek-v3 --hardware desktop-ddr4+desktop-ddr4 --quant auto
runs 0 "for vllm" $mixtral --hardware 4*epyc-1s --export vllm
has "ranks" 'expert_to_ep_rank' out

# Placements by use: the busiest expert of each layer gets copies, and what lies somewhere stays there.
used='[[1, 1, 1, 1, 9], [9, 1, 1, 1, 1]]'
echo "{\"schema\": 1, \"format\": \"moe-usage\", \"model\": \"mixtral\", \"prefill\": $used, \"decode\": $used, \"mass\": $used}" >usage.json
by_use='moe-policy --model tiny-mixtral --devices 3 --usage usage.json'
runs 0 "placed by use" $by_use --replicas 2
cp out used.json
runs 0 "again, where moves cost" $by_use --replicas 2 --keep used.json --move-cost 1000 -v
has "nothing moves" ' 0 experts lie elsewhere' err
refuses "the use of another model" 'usage.json' moe-policy --model tiny-olmoe --devices 3 --usage usage.json

# A machine that was measured before.
mkdir -p cache/moe-tools
echo '{"schema": 1, "name": "me", "levels": [{"name": "cpu", "memory": 1, "bandwidth": 2e10, "flops": {"f32": 4e11}}]}' \
	>"cache/moe-tools/hardware-$(hostname)-$(getconf _NPROCESSORS_ONLN)cpu.json"
runs 0 "this machine" moe-policy --model tiny-mixtral --hardware auto --generate 4
has "as it was measured" 'measured before' err
has "with the memory of now" '"name": "me"' out

host() { echo "{\"name\": \"$1\", \"levels\": [{\"name\": \"cpu\", \"memory\": 2e11, \"bandwidth\": 1e11, \"flops\": 1e12}]}"; }
echo "{\"hosts\": [$(host a), $(host b)]}" >apart.json
runs 0 "hosts that nothing joins" $mixtral --hardware apart.json
has "get experts and no more, which is said" 'no "network": experts are placed' err

# Names that are none: the nearest is suggested.
refuses "hardware" 'no hardware "a100-8": is a100-80 meant' $mixtral --hardware a100-8
refuses "a host" 'no host "epic-1s": is epyc-1s meant' $mixtral --hardware t4@epic-1s
refuses "a network" 'no network "10gb": is 10g meant' $mixtral --hardware t4/10gb
refuses "a model" 'no model "mixtral-8x7": is mixtral-8x7b meant' moe-policy --model mixtral-8x7 --hardware t4
refuses "a workload" 'no workload "mt-bench": is mtbench meant' $mixtral --hardware t4 --workload mt-bench
refuses "a schedule" '"cgo-pipe": is cgopipe meant' $mixtral --hardware t4 --schedule cgo-pipe
refuses "a variant" '"papers": is paper meant' $mixtral --hardware t4 --variant papers
refuses "a level" 'attention-on.*"gpus": is gpu meant' $mixtral --hardware t4 --attention-on gpus
refuses "a type of keys" '"fp16": is f16 meant' $mixtral --hardware t4 --kv fp16
refuses "a quant" 'quant.*q5' $mixtral --hardware t4 --quant q5
refuses "a format" '"vlm": is vllm meant' $mixtral --hardware t4 --export vlm
refuses "a key" 'no "gpu.memroy": is gpu.memory meant' $mixtral --hardware t4 --set gpu.memroy=1G

# Numbers that are none.
for value in 0 -1 nan inf 1e400 15Gib ''; do
	refuses "gpu.memory=$value" 'gpu.memory=.*positive' $mixtral --hardware t4 --set "gpu.memory=$value"
done
refuses "a share" 'reserve' $mixtral --hardware t4 --set reserve=1.5
refuses "prompts longer than the longest" 'shorter than their mean' $mixtral --hardware t4 --prompt 100 --prompt-max 50 --generate 3
level() { echo "{\"name\": \"a\", \"levels\": [{\"name\": \"cpu\", \"memory\": $1, \"bandwidth\": $2, \"flops\": $3}]}" >bad.json; }
level 1e11 0 1e12
refuses "no bandwidth" 'bad.json: host "a": cpu: "bandwidth" is 0' $mixtral --hardware bad.json
level -1 1e11 1e12
refuses "negative memory" 'cpu: "memory" is -1' $mixtral --hardware bad.json
level 1e11 1e11 '"fast"'
refuses "a word for a number" 'flops' $mixtral --hardware bad.json
level NaN 1e11 1e12
refuses "NaN" 'bad.json' $mixtral --hardware bad.json
level 1e12 1e8 1e12
runs 0 "another unit" $mixtral --hardware bad.json
has "is warned of" 'cpu bandwidth is 1e\+08 B/s: are 1e\+08 KB/s meant' err
echo '{"prompt_mean": -3, "generate": 1}' >bad.json
refuses "a negative prompt" 'prompt_mean' $mixtral --hardware t4 --workload bad.json

# What does not fit, and plans that do not hold together.
echo '{"schema": 1, "layers": 2}' >usage.json
refuses "usage that is none, of one machine too" 'usage.json: ' $mixtral --hardware h100x8 --usage usage.json
refuses "a model that fits nowhere" 'needs .* of ' moe-policy --model deepseek-v3 --hardware desktop-ddr4
echo '{"schema": 1, "devices": [], "placement": [[[], 0, 0, 0, 0], [0, 0, 0, 0, 0]]}' >edited.json
refuses "an expert without a device" 'layer 0.*expert 0' moe-policy --model tiny-mixtral --devices 2 --placement edited.json
echo '{"placement": [[0, 0, 0, 0, 2], [0, 0, 0, 0, 0]]}' >edited.json
refuses "a device that is not there" 'edited.json' moe-policy --model tiny-mixtral --devices 2 --placement edited.json
echo '{"hosts": [{"name": "a", "levels": [{"name": "cpu", "memory": 1e5}]}, {"name": "b", "levels": [{"name": "cpu", "memory": 1e9}]}]}' >two.json
echo '{"placement": [[0, 0, 0, 0, 0], [0, 0, 0, 0, 0]]}' >edited.json
refuses "a device over its memory" 'device 0.*needed' moe-policy --model tiny-mixtral --hardware two.json --placement edited.json
refuses "an earlier policy that is none" '"schema"' moe-policy --model tiny-mixtral --devices 2 --keep two.json
refuses "speeds that are not known" 'only its memories' moe-policy --model tiny-mixtral --hardware two.json --set cpu.memory=1G
refuses "no such policy" 'none.json' moe-policy --compare t4.json none.json

for args in '--compare t4.json' '--compare t4.json l4.json t4.json' '--model mixtral-8x7b --devices 2 --workload chat' \
	'--model mixtral-8x7b --hardware t4 --prompt 0' '--model mixtral-8x7b --hardware t4 --batch -1' '--list x' '--model mixtral-8x7b --devices 2 --plot x.svg' \
	'--model mixtral-8x7b --devices 2 --simulate zero' '--model mixtral-8x7b --hardware t4 --simulate zero --steps 0' \
	'--model tiny-mixtral --devices 2 --replicas 2' '--model tiny-mixtral --devices 2 --placement usage' \
	'--model tiny-mixtral --devices 2 --move-cost 3'; do
	runs 2 "moe-policy $args" moe-policy $args
done
finish
