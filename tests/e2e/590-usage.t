#!/bin/sh
# How often each expert was used: the count is that of the trace, and nothing but the requests shows in either.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib-serve.sh"

model=$top/models/kjv-mixtral
words="and God said let there be light upon the face of the deep when the king heard it he rent his clothes"
for i in 1 2 3 4 5 6 7; do
	echo "{\"id\":$i,\"prompt\":\"$(echo "$words" | cut -d' ' -f$i-$((i * 3)))\",\"max_tokens\":$((i * 3)),\"ignore_eos\":true,\"temperature\":0}"
done >"$work/requests"

# from_trace FILE: "layer phase expert count", as the trace has it
from_trace() {
	sed 1d "$1" | tr -c '0-9\n' ' ' | awk '{ for (i = 5; i <= NF; i++) n[$3 " " $4 " " $i]++ } END { for (k in n) print k, n[k] }' | sort
}

# from_usage FILE: the same, as the usage has it
from_usage() {
	awk '/"prefill"/ { phase = 0; layer = 0 } /"decode"/ { phase = 1; layer = 0 } /"mass"/ { exit }
		/^    \[/ { gsub(/[^0-9,]/, ""); n = split($0, v, ","); for (i = 1; i <= n; i++) if (v[i] > 0) print layer, phase, i - 1, v[i]; layer++ }' "$1" | sort
}

# run NAME OPTION...: usage, trace and the sorted trace under that name, of what is in $model
run() {
	name=$1
	shift
	moe-route --no-prefix-cache --usage "$work/$name.usage" --trace "$work/$name.trace" "$@" "$model" <"$work/requests" >"$work/$name.out" 2>"$work/err"
	s=$?
	sort "$work/$name.trace" >"$work/$name.sorted"
	return $s
}

run plain --batch 1 --threads 1
ok $? "a run that is counted and traced"
moe-route "$model" <"$work/requests" >"$work/without"
same "the answers are what they are without" "$work/without" "$work/plain.out"
from_trace "$work/plain.trace" >"$work/a"
from_usage "$work/plain.usage" >"$work/b"
[ -s "$work/a" ]
ok $? "the trace has lines"
same "the usage is the count of the trace" "$work/a" "$work/b"

# Each position but the last answer's token, in each of 4 layers, by 2 experts.
rows=$(sed 's/.*"prompt_tokens":\([0-9]*\),"completion_tokens":\([0-9]*\).*/\1 \2/' "$work/plain.out" | awk '{ n += $1 + $2 - 1 } END { print n }')
[ "$(sed 1d "$work/plain.trace" | wc -l)" -eq $((4 * rows)) ]
ok $? "a line for every position and layer"
awk '{ n += $4 } END { exit n != 8 * '"$rows"' }' "$work/b"
ok $? "every token counts once for each of its experts"
prompt=$(sed 's/.*"prompt_tokens":\([0-9]*\).*/\1/' "$work/plain.out" | awk '{ n += $1 } END { print n }')
awk '$2 == 0 { n += $4 } END { exit n != 8 * '"$prompt"' }' "$work/b"
ok $? "prompts count as prefill"
has "the trace begins with a header" '^\{"schema":1,"format":"moe-trace","model":"mixtral","fingerprint":"[0-9a-f]{32}","layers":4,"experts":8,"top_k":2\}$' "$work/plain.trace"

# alike NAME WORDS: usage and (sorted) trace are those of the plain run
alike() {
	cmp -s "$work/plain.usage" "$work/$1.usage" && cmp -s "$work/plain.sorted" "$work/$1.sorted"
	ok $? "$2"
}
run batch --batch 64 --threads 2
alike batch "many at once, two threads"
run chunk --batch 3 --chunk 5
alike chunk "five prompt tokens a step"
moe-shard --devices 3 "$model" "$work/set" >"$work/log" 2>&1
checkpoint=$model
model=$work/set
serve_start "$model"
ok $? "three servers"
run served --hosts "$hosts"
alike served "experts on three servers"
run halves --hosts "$hosts" --overlap on
alike halves "experts on servers, steps in halves"
serve_stop
model=$checkpoint

# Prompts that are found in the cache are not computed, and not counted.
long=$(for i in 1 2 3 4 5; do printf '%s ' "$words"; done)
for i in 1 2; do echo "{\"prompt\":\"$long\",\"max_tokens\":1}"; done >"$work/requests"
moe-route --batch 1 --usage "$work/cached" "$model" <"$work/requests" >"$work/out"
run whole
less=$(from_usage "$work/cached" | awk '{ n += $4 } END { print n }')
more=$(from_usage "$work/whole.usage" | awk '{ n += $4 } END { print n }')
[ "$less" -lt "$more" ]
ok $? "prompts found in the cache are not counted"

# What was counted is there however the run ends.
mkfifo "$work/in"
moe-route -n 4 --usage "$work/cut.usage" --trace "$work/cut.trace" "$model" <"$work/in" >"$work/cut.out" 2>"$work/err" &
p=$!
exec 9>"$work/in"
printf '{"prompt":"And God"}\n{"prompt":"And God","max_tokens":1000,"ignore_eos":true}\n' >&9
i=0
while [ ! -s "$work/cut.out" ] && [ $i -lt 600 ]; do
	sleep 0.1
	i=$((i + 1))
done
[ ! -e "$work/cut.usage" ] && [ ! -e "$work/cut.trace" ]
ok $? "nothing is there while the run goes on"
kill -INT $p
wait $p
[ $? -eq 130 ]
ok $? "SIGINT"
exec 9>&-
from_trace "$work/cut.trace" >"$work/a"
from_usage "$work/cut.usage" >"$work/b"
[ -s "$work/a" ]
ok $? "what was computed is in the trace"
same "and counted" "$work/a" "$work/b"

echo '{"tokens":[-1]}' | moe-route --usage "$work/none.usage" "$model" >"$work/out" 2>"$work/err"
[ $? -eq 1 ] && [ -e "$work/none.usage" ]
ok $? "a bad line does not keep the usage from being written"
refuses "a folder that is not there" 'nowhere' moe-route --usage "$work/nowhere/u" -p "And God" -n 2 --temp 0 "$model"
refuses "nor for a trace" 'nowhere' moe-route --trace "$work/nowhere/t" -p "And God" -n 2 --temp 0 "$model"
moe-route --trace /dev/stdout -q -p "And God" -n 2 --temp 0 "$model" >"$work/out"
has "a trace can go to what is open already" '"format":"moe-trace"' "$work/out"
moe-route --trace /dev/fd/9 -q -p "And God" -n 2 --temp 0 "$model" 9>&1 >"$work/out" | grep -q '"r":1,'
ok $? "or to a pipe"
if [ -c /dev/full ]; then
	refuses "a full disk is an error" '/dev/full' moe-route --trace /dev/full -p "And God" -n 2 --temp 0 "$model"
fi
[ -z "$(find "$work" -name '*.tmp-*')" ]
ok $? "no partial files"
finish
