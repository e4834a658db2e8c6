#!/bin/sh
# moe-policy: what is planned, what is refused.
. "$(dirname "$0")/../lib.sh"
cd "$work" || exit 1

runs 0 "a known shape on four devices" moe-policy --model mixtral-8x7b --devices 4
has "schema comes first" '^  "schema": 1' out
has "without a quant there is no layout" '"layout": ""' out
if command -v jq >/dev/null 2>&1; then
	jq -e '(.devices | length) == 4 and (.placement | length) == 32 and (.placement | all(length == 8)) and
	       ([.placement[][]] | group_by(.) | all(length == 64)) and (.placement | all(group_by(.) | all(length == 2)))' \
		out >/dev/null
	ok $? "each device has two experts of each layer"
	moe-policy --model mixtral-8x7b --devices 3 >three.json
	jq -e '[.placement[][]] | group_by(.) | map(length) | max - min <= 1' three.json >/dev/null
	ok $? "counts differ by at most one"
	cat >fleet.json <<-X
		{"hosts": [{"name": "a", "levels": [{"name": "cpu", "count": 1, "memory": 80e9}]},
		           {"name": "b", "levels": [{"name": "gpu", "count": 1, "memory": 1e9}, {"name": "cpu", "memory": 20e9}]}]}
	X
	runs 0 "a fleet of unlike hosts" moe-policy --model mixtral-8x7b --hardware fleet.json
	jq -e '.devices[0].host == "a" and .devices[1].memory == 20000000000 and (.hardware.hosts | length) == 2' out >/dev/null
	ok $? "is echoed"
	jq -e '[.placement[][]] | group_by(.) | map(length) | .[0] + .[1] == 256 and .[0] >= 204 and .[0] <= 206' out >/dev/null
	ok $? "gets experts in proportion to memory"
	bytes=$(jq '[.placement[][]] | map(select(. == 1)) | length * 3 * 4096 * 14336 * 2' out)
	[ "$bytes" -le 20000000000 ]
	ok $? "and never more than fits"
else
	skip "no jq"
fi
runs 0 "round robin" moe-policy --model mixtral-8x7b --devices 3 --placement round-robin
has "in turn" '\[0, 1, 2, 0, 1, 2, 0, 1\]' out

cat >small.json <<X
{"name": "small", "levels": [{"name": "cpu", "memory": 1e9}]}
X
refuses "what does not fit is refused with numbers" 'do not fit: .* needed .* available' moe-policy --model mixtral-8x7b --hardware small.json
refuses "whatever the placement" 'needed, .* available' moe-policy --model mixtral-8x7b --hardware small.json --placement balanced
echo '{"levels": [{"name": "gpu"}]}' >gpu.json
refuses "no cpu level" 'gpu.json: .*no level "cpu"' moe-policy --model mixtral-8x7b --hardware gpu.json
echo '{' >bad.json
refuses "a profile that is no JSON" 'bad.json' moe-policy --model mixtral-8x7b --hardware bad.json
refuses "no such profile" 'none.json' moe-policy --model mixtral-8x7b --hardware none.json
refuses "no such model" 'no-such-model' moe-policy --model no-such-model --devices 2

# What is planned can be cut, and planned again from the set.
runs 0 "a plan for a small model" moe-policy --model tiny-qwen2-moe --devices 2
cp out plan.json
runs 0 "is cut" moe-shard --policy plan.json synth:tiny-qwen2-moe set
runs 0 "planned again from the shard set" moe-policy --model set --devices 2
grep -v '"name"' out >again
grep -v '"name"' plan.json >first
same "gives the same" first again
mkdir shape && cp set/config.json shape
runs 0 "planned from a config.json alone" moe-policy --model shape --devices 2
grep -v '"name"' out >again
same "gives the same" first again

for args in '' '--devices 2' '--model mixtral-8x7b' '--model mixtral-8x7b --devices 2 --hardware small.json' \
	'--model mixtral-8x7b --devices 0' '--model mixtral-8x7b --devices 2 --placement usage' \
	'--model mixtral-8x7b --devices 2 --placement capacity' '--model mixtral-8x7b --devices 2 x' '--bogus'; do
	# shellcheck disable=SC2086
	runs 2 "wrong usage: moe-policy $args" moe-policy $args
done
runs 0 "--help" moe-policy --help
finish
