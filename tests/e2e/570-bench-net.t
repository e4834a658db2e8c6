#!/bin/sh
# moe-bench with servers: the same tests, round trips and what they carry.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib-serve.sh"

moe-bench synth --like tiny-qwen3-moe --seed 5 "$work/ck"
moe-shard -q --devices 2 "$work/ck" "$work/set" >/dev/null
serve_start "$work/set"
ok $? "two servers"

runs 0 "tests with servers" moe-bench -m "$work/set" --hosts "$hosts" -p 8 -n 4 -b 1,2 -r 2 -t 1 --net --load -o jsonl
[ "$(sed -n 's/.*"test":"\([^"]*\)".*/\1/p' "$work/out" | tr '\n' ,)" = "ready,load,pp8,tg4,net,pp8,tg4,net," ]
ok $? "ready, load, pp8, tg4 and net"
[ "$(grep -c '"n_servers":2' "$work/out")" -eq 8 ]
ok $? "each says how many servers"
has "roofs are not claimed for what servers compute" '"roof":"","roof_fraction":null' "$work/out"
if command -v jq >/dev/null; then
	# A row of H floats goes to and comes from one or two servers for each layer, with headers.
	jq -s -e 'all(.[] | select(.test != "load" and .test != "ready"); .net_bytes_row_layer > 0) and
		([.[] | select(.test == "net")] | all(.[]; .p99_ns >= .median_ns and (.samples_ns | length) == 400)) and
		(([.[] | select(.test == "net")] | .[0].net_bytes_row_layer) as $one | [.[] | select(.test == "net")] |
			.[1].net_bytes_row_layer < $one)' "$work/out" >/dev/null
	ok $? "bytes and tails belong together; a batch carries fewer bytes for each row"
fi
serve_stop
finish
