#!/bin/sh
# moe-policy --replay: what caches of experts would have held, and whether they are worth it.
. "$(dirname "$0")/../lib.sh"
cd "$work" || exit 1

# Sixteen experts, two a token, in one layer.  Use that wanders: each text of 40 tokens has four experts of its own.
header='{"schema":1,"format":"moe-trace","model":"mixtral","fingerprint":"","layers":1,"experts":16,"top_k":2}'
wandering() {
	echo "$header"
	awk 'BEGIN { for (t = 0; t < 1200; t++) { b = int(t / 40) * 5 % 13; i = t % 3
		printf "{\"r\":1,\"p\":%d,\"l\":0,\"d\":1,\"x\":[%d,%d]}\n", t, b + i, b + i + 1 } }'
}
# Use that does not: experts 3 and 7, now and then another.
steady() {
	echo "$header"
	awk 'BEGIN { for (t = 0; t < 1200; t++) { x = t % 6 ? 7 : 8 + int(t * 7 / 6) % 8
		printf "{\"r\":1,\"p\":%d,\"l\":0,\"d\":1,\"x\":[3,%d]}\n", t, x } }'
}
# Every pair as often as every other.
uniform() {
	echo "$header"
	awk 'BEGIN { srand(3); for (t = 0; t < 1200; t++) { a = int(rand() * 16); b = int(rand() * 15); b += b >= a
		printf "{\"r\":1,\"p\":%d,\"l\":0,\"d\":1,\"x\":[%d,%d]}\n", t, a < b ? a : b, a < b ? b : a } }'
}
wandering >wandering.jsonl
steady >steady.jsonl
uniform >uniform.jsonl

runs 0 "use that wanders" moe-policy --replay wandering.jsonl --slots 4
has "wants a cache" '^4 +0\.2500 .* cache \((lru|frequency|grace)\)$' out
runs 0 "use that does not" moe-policy --replay steady.jsonl --slots 4
has "wants a static choice" '^4 +0\.2500 .* static$' out
runs 0 "uniform use" moe-policy --replay uniform.jsonl --slots 4
has "wants neither" '^4 +0\.2500 .* neither$' out
runs 0 "an eighth, a quarter and half of the experts" moe-policy --replay steady.jsonl
[ "$(wc -l <out)" -eq 4 ] && grep -q '^2 ' out && grep -q '^8 ' out
ok $? "unless told"
runs 0 "one cache" moe-policy --replay steady.jsonl --slots 2,16 --cache lru --shared
has "tells its layers" '^0 +0\.9[0-9]+$' out

# What moe-route writes is read; with the model it is known how much moves.
echo '{"prompt":"In the beginning God created","ignore_eos":true}' |
	moe-route -n 60 --trace trace.jsonl --usage usage.json "$top/models/kjv-mixtral" >/dev/null 2>err
runs 0 "a trace of moe-route" moe-policy --replay trace.jsonl --model "$top/models/kjv-mixtral" --slots 8 --cache frequency
has "every expert comes once" '^all +0\.9' out
has "and tells bytes" '^moved for a token +[0-9.]+ [KMG]?i?B' out
runs 0 "prompts too" moe-policy --replay trace.jsonl --slots 2 --prompts

# The trace also says which experts belong together.
runs 0 "placed by use and by what is chosen together" moe-policy --model "$top/models/kjv-mixtral" --devices 2 --placement usage \
	--usage usage.json --coactivation trace.jsonl -v
has "tells how many servers a token reaches" 'layer +imbalance +balancedness +servers' err

refuses "a trace of another model" 'trace.jsonl' moe-policy --replay trace.jsonl --model tiny-mixtral
head -3 trace.jsonl | head -c 150 >cut.jsonl
refuses "a trace cut short" 'cut.jsonl: line' moe-policy --replay cut.jsonl
refuses "no such trace" 'none.jsonl' moe-policy --replay none.jsonl
head -1 trace.jsonl >empty.jsonl
refuses "a trace without tokens" 'too few generated tokens' moe-policy --replay empty.jsonl --slots 2

for args in '--replay a --slots 0' '--replay a --slots x' '--replay a --cache fifo' '--slots 2 --model tiny-mixtral --devices 2' \
	'--cache lru --model tiny-mixtral --devices 2' '--replay a --devices 2' '--replay a b' '--replay a --grace -1'; do
	# shellcheck disable=SC2086
	runs 2 "wrong usage: moe-policy $args" moe-policy $args
done
finish
