#!/bin/sh
# A server that dies or hangs: error lines for what was under way, within the deadline, exit status 1, nothing hangs.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib-serve.sh"

model=$top/models/kjv-mixtral
moe-shard -q --devices 2 "$model" "$work/shards" >/dev/null
ok $? "a shard set for two devices"

i=0
while [ $i -lt 96 ]; do
	echo "{\"id\":$i,\"prompt\":\"And it came to pass\",\"max_tokens\":900,\"ignore_eos\":true}"
	i=$((i + 1))
done >"$work/requests"

# one ROUND SIGNAL: send it to rank 1 while 96 requests are under way; each gets a line, and the status is 1.
one() {
	serve_start "$work/shards"
	rank1=$(sed -n 's/.*"rank":1,.*"pid":\([0-9]*\).*/\1/p' "$work/serve.out")
	timeout 60 moe-route --hosts "$hosts" --timeout 3 --batch 8 "$work/shards" <"$work/requests" >"$work/out.$1" 2>"$work/err.$1" &
	route=$!
	sleep 1
	kill -"$2" "$rank1"
	wait $route
	[ $? -eq 1 ]
	ok $? "$2 of a server: moe-route ends with status 1"
	[ "$(wc -l <"$work/out.$1")" -eq 96 ]
	ok $? "$2: every request has its line"
	# When one is killed the others are ended; which of them is missed first is a matter of chance.
	[ "$(grep -c '"error"' "$work/out.$1")" -gt 0 ] && grep -q 'rank [01] at' "$work/out.$1"
	ok $? "$2: the lost ones have an error that names the server"
	[ "$2" = STOP ] && kill -CONT "$rank1" 2>/dev/null
	serve_stop
}
one a KILL
one b STOP

# The prompt form too.
serve_start "$work/shards"
rank1=$(sed -n 's/.*"rank":1,.*"pid":\([0-9]*\).*/\1/p' "$work/serve.out")
kill -STOP "$rank1"
refuses "-p with a hung server: one line" "moe-route: .*(rank 1|server)" timeout 60 moe-route --hosts "$hosts" --timeout 2 -p "And" -n 4 "$work/shards"
kill -CONT "$rank1"
serve_stop

refuses "a hosts file that never comes" "moe-route: .*nowhere" timeout 20 moe-route -q --hosts "$work/nowhere" --timeout 0.5 -p "And" -n 4 "$work/shards"
runs 1 "without -q" timeout 20 moe-route --hosts "$work/nowhere" --timeout 0.5 -p "And" -n 4 "$work/shards"
has "the wait is told when it begins" "^moe-route: .*nowhere is not there yet: waiting for it, up to 0.5 s|^.*nowhere is not there yet: waiting for it, up to 0.5 s" "$work/err"
finish
