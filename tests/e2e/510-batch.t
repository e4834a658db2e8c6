#!/bin/sh
# Company does not show: 64 requests of mixed lengths in one batch give, line by line, the bytes of 64 runs of one.
. "$(dirname "$0")/../lib.sh"

model=$top/models/kjv-mixtral
total=64
count=16 # of these are run alone
[ -z "$MOE_LONG" ] || count=64
[ -z "$MOE_SAN" ] || total=24 count=6

# Prompts of 1 to 90 words, answers of 1 to 24 tokens; every third samples.
words="and God said let there be light upon the face of the deep when the king heard it he rent his clothes"
i=0
while [ $i -lt $total ]; do
	p=
	for r in $(seq 0 $((i % 5))); do p="$p $words"; done
	p=$(echo "$p" | cut -d' ' -f2-$((2 + i * 89 / total)))
	t=0
	[ $((i % 3)) -eq 0 ] && t=0.8
	echo "{\"id\":$i,\"prompt\":\"$p\",\"max_tokens\":$((1 + i * 7 % 24)),\"temperature\":$t,\"seed\":$i,\"ignore_eos\":true,\"logprobs\":true}"
	i=$((i + 1))
done >"$work/requests"

moe-route --batch 64 "$model" <"$work/requests" >"$work/together" 2>"$work/err"
ok $? "$total requests in one batch"
[ "$(wc -l <"$work/together")" -eq $total ]
ok $? "$total answers"
moe-route --batch 3 --chunk 5 --threads 1 "$model" <"$work/requests" >"$work/few"
same "at most 3 at once, 5 prompt tokens a step, one thread" "$work/together" "$work/few"
moe-route --unordered --batch 64 "$model" <"$work/requests" | sort >"$work/unordered"
sort "$work/together" >"$work/sorted"
same "--unordered has the same lines" "$work/sorted" "$work/unordered"

# One at a time: all 64 in the long run, a spread of them otherwise.
step=$((total / count))
i=1
while [ $i -le $total ]; do
	sed -n "${i}p" "$work/requests" | moe-route --batch 1 "$model" >>"$work/alone"
	sed -n "${i}p" "$work/together" >>"$work/chosen"
	i=$((i + step))
done
same "$count runs of one request" "$work/chosen" "$work/alone"

moe-route --score --batch 64 "$model" <"$work/requests" >"$work/score"
moe-route --score --batch 1 --chunk 7 "$model" <"$work/requests" >"$work/score1"
same "scores too" "$work/score" "$work/score1"

# A cache with room for few makes the others wait, it does not make them fail.
moe-route --batch 64 --kv-memory 2M "$model" <"$work/requests" >"$work/tight"
same "a KV cache with room for few sequences" "$work/together" "$work/tight"
finish
