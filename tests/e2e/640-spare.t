#!/bin/sh
# A server that stands by takes over the experts of one that is killed; a supervisor starts again what dies, and what a new epoch needs.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib-serve.sh"

model=$top/models/kjv-mixtral
set=$work/shards
moe-shard -q --devices 2 "$model" "$set" >/dev/null
ok $? "a shard set for two devices"

i=0
while [ $i -lt 64 ]; do
	echo "{\"id\":$i,\"prompt\":\"And it came to pass in day $i\",\"max_tokens\":100,\"ignore_eos\":true}"
	i=$((i + 1))
done >"$work/requests"
moe-route --batch 8 "$model" <"$work/requests" | sort -t: -k2n >"$work/want"

# stream HOSTS: all requests, in the background, some of them answered already.
stream() {
	moe-route --hosts "$1" --unordered --batch 8 --timeout 60 "$set" <"$work/requests" >"$work/out" 2>"$work/err" &
	route=$!
	pids="$pids $route"
	waits "$work/out" 1 '"tokens"' || sed 's/^/# /' "$work/err"
	[ -s "$work/out" ]
	ok $? "requests are under way"
}

# answered WORDS
answered() {
	wait $route
	ok $? "$1: moe-route ends well"
	sort -t: -k2n "$work/out" >"$work/out.sorted"
	same "$1: the answers are those of an undisturbed run" "$work/want" "$work/out.sorted"
}

# pid_of RANK: of the last server that said it was ready
pid_of() {
	sed -n 's/.*"rank":'"$1"',.*"pid":\([0-9]*\).*/\1/p' "$work/serve.out" | tail -n 1
}

# ---- a spare ----
serve_start "$set" --ranks 0
ok $? "rank 0"
first=$hosts
for rank in 1 spare; do
	which="--rank 1"
	[ $rank = spare ] && which=--spare
	# shellcheck disable=SC2086
	moe-serve $which --ready-file "$work/ready.$rank" "$set" >"$work/out.$rank" 2>"$work/err.$rank" </dev/null &
	eval "pid_$rank=$!"
	pids="$pids $!"
	waits "$work/ready.$rank" 1 ipc
done
has "a server that stands by says so" '"rank":null,.*-spare","experts":0,.*"spare":true' "$work/out.spare"
cat "$first" "$work/ready.1" "$work/ready.spare" >"$work/hosts"
stream "$work/hosts"
# shellcheck disable=SC2154
kill -KILL "$pid_1"
waits "$work/err.spare" 1 'epoch 1, 16 experts: '
ok $? "it loads the experts of the rank that was killed"
answered "a rank is lost for good"
# shellcheck disable=SC2154
kill -TERM "$pid_spare"
wait "$pid_spare"
ok $? "the spare ends with 0"
serve_stop

# ---- started again ----
serve_start "$set" --restart
ok $? "a supervisor that restarts"
stream "$hosts"
killed=$(pid_of 1)
kill -KILL "$killed"
waits "$work/serve.out" 2 '"rank":1,'
ok $? "rank 1 is started again"
[ "$(pid_of 1)" != "$killed" ]
ok $? "as another process"
has "the operator is told" 'rank 1 .*killed by signal 9.*: it is started again in 0.5 s' "$work/serve.err"
wait $route
[ "$(wc -l <"$work/out")" -eq 64 ]
ok $? "while nobody had its experts, every request had its line"
stream "$hosts"
answered "afterwards"

# ---- more ranks, and fewer ----
moe-shard -q --devices 3 "$set" "$set" >/dev/null
kill -HUP "$server"
waits "$hosts" 3 ipc
ok $? "a rank that is new in an epoch is started, and in the ready file"
waits "$work/serve.err" 2 'epoch 2, [0-9]+ experts: '
ok $? "the others follow"
moe-shard -q --devices 1 "$set" "$set" >/dev/null
kill -HUP "$server"
waits "$work/serve.err" 2 'is no longer of the set, and ends'
ok $? "ranks that are no longer of the set end"
waits "$work/serve.err" 1 'rank 0: epoch 3, 32 experts: '
ok $? "rank 0 has all experts"
tries=0
while [ "$(grep -c ipc "$hosts")" -gt 1 ] && [ $tries -lt 1200 ]; do sleep 0.1; tries=$((tries + 1)); done
stream "$hosts"
answered "one rank is left"
serve_stop
ok $? "the supervisor ends with 0"
runs 2 "--restart of one server is wrong usage" moe-serve --rank 0 --restart "$set"

finish
