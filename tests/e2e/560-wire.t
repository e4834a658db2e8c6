#!/bin/sh
# --wire: narrow hidden states give one answer for any number of servers and any batch; f32 gives what no server gives;
# half the bytes travel.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib-serve.sh"

model=$top/models/kjv-mixtral
for i in 1 2 3 4 5 6; do
	echo "{\"id\":$i,\"prompt\":\"And the LORD said unto the $i sons of Israel\",\"max_tokens\":6,\"logprobs\":true}"
done >"$work/requests"
moe-route "$model" <"$work/requests" >"$work/here"
ok $? "in one process"

# bytes TYPE: what -v said that travelled
bytes() {
	sed -n 's/.* \([0-9]*\) bytes out, \([0-9]*\) in.*/\1 \2/p' "$work/err.$1" | { read -r out in && echo $((out + in)); }
}

for servers in 1 2 4; do
	moe-shard -q --devices $servers "$model" "$work/shards$servers" >/dev/null
	serve_start "$work/shards$servers"
	for type in f32 f16 bf16; do
		moe-route -v --batch 6 --hosts "$hosts" --wire $type "$work/shards$servers" <"$work/requests" >"$work/$type.$servers" 2>"$work/err.$type"
		moe-route --batch 1 --chunk 5 --hosts "$hosts" --wire $type "$work/shards$servers" <"$work/requests" >"$work/$type.alone"
		same "$servers servers, $type: the batch does not show" "$work/$type.$servers" "$work/$type.alone"
		same "$servers servers, $type: as with one" "$work/$type.1" "$work/$type.$servers"
	done
	same "$servers servers, f32: as without servers" "$work/here" "$work/f32.$servers"
	[ "$(bytes f16)" -eq "$(bytes bf16)" ] && [ "$(bytes bf16)" -lt $(($(bytes f32) * 6 / 10)) ]
	ok $? "$servers servers: a little over half the bytes"
	[ $servers -lt 4 ] && serve_stop
done
! cmp -s "$work/bf16.1" "$work/f32.1"
ok $? "bf16 rounds"
has "the numerics in effect are told" "wire=bf16" "$work/err.bf16"
runs 0 "with --presum" moe-route --hosts "$hosts" --wire f16 --presum -p "And" -n 4 "$work/shards4"
runs 0 "moe-bench takes it" moe-bench -m "$work/shards4" --hosts "$hosts" --wire bf16 -p 8 -n 4 -r 1 -o csv
has "and says so" "wire=bf16" "$work/out"
serve_stop

runs 2 "--wire without servers" moe-route --wire bf16 -p "And" "$model"
has "says what it needs" "needs servers" "$work/err"
runs 2 "moe-bench --wire without servers" moe-bench --wire f16 -m "$model"
runs 2 "--exact and a narrow type" moe-route --exact --wire f16 --hosts "$hosts" -p "And" "$model"
has "says so" "--exact sends hidden states in f32" "$work/err"
runs 2 "an unknown type" moe-route --wire f8 -p "And" "$model"
finish
