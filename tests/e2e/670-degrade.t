#!/bin/sh
# An expert that nobody can compute: an error, or with --degrade an answer that says so, of which nobody else has anything.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib-serve.sh"

model=$top/models/kjv-mixtral
moe-shard -q --devices 2 "$model" "$work/shards" >/dev/null
ok $? "a shard set for two devices"

until_there() { # until_there FILE
	tries=0
	while [ ! -e "$1" ] && [ $tries -lt 600 ]; do
		sleep 0.1
		tries=$((tries + 1))
	done
	[ -e "$1" ]
}
rank() { # rank N: in a process of its own, which does not hold the pipe of requests open
	rm -f "$work/ready.$1"
	moe-serve -q --rank "$1" --ready-file "$work/ready.$1" "$work/shards" >/dev/null 2>>"$work/serve.err" </dev/null 3>&- &
	eval "rank$1=$!"
	pids="$pids $!"
	until_there "$work/ready.$1"
}
answers() { # answers N: wait until there are so many
	tries=0
	while [ "$(wc -l <"$work/out")" -lt "$1" ] && [ $tries -lt 600 ]; do
		sleep 0.1
		tries=$((tries + 1))
	done
	[ "$(wc -l <"$work/out")" -eq "$1" ]
}
last() {
	tail -1 "$work/out" | sed 's/^{"id":[^,]*,//'
}

# More than a block of the cache, so that something could be kept.
request="\"tokens\":[$(seq -s, 100 190)],\"max_tokens\":8,\"ignore_eos\":true"
rank 0 && rank 1
ok $? "two servers, each by itself"
cat "$work/ready.0" "$work/ready.1" >"$work/hosts"
echo "{$request}" | moe-route --ctx 128 "$work/shards" | sed 's/^{"id":[^,]*,//' >"$work/right"

mkfifo "$work/in"
: >"$work/out"
moe-route --log-json --hosts "$work/hosts" --timeout 20 --ctx 128 --unordered --degrade "$work/shards" <"$work/in" >"$work/out" 2>"$work/err" &
route=$!
pids="$pids $route"
exec 3>"$work/in"
echo '{"tokens":[5,6],"max_tokens":2}' >&3
answers 1
ok $? "an answer while all is well"
! grep -q degraded "$work/out"
ok $? "which says nothing of it"
kill -KILL "$rank1"
wait "$rank1" 2>/dev/null
echo "{$request}" >&3
answers 2
ok $? "an answer with half of the experts"
last >"$work/poor"
has "which says so" '"finish_reason":"length".*"degraded":true' "$work/poor"
rank 1
asked=2
while [ $asked -lt 100 ]; do
	echo "{$request}" >&3
	asked=$((asked + 1))
	answers $asked || break
	last | grep -q degraded || break
	sleep 0.2
done
last >"$work/again"
same "the server is back, and the same request has the exact answer: nothing was kept of the other" "$work/right" "$work/again"
exec 3>&-
wait $route
ok $? "the exit status is 0"
json() { # json WORDS EVENT LEVEL FIELDS: once in the log
	[ "$(grep -Ec "\"level\":\"$3\",\"event\":\"$2\",\"message\":\".*\",$4}" "$work/err")" -eq 1 ]
	s=$?
	ok $s "$1"
	[ $s -eq 0 ] || sed 's/^/# /' "$work/err"
}
one='"rank":1,"endpoint":"ipc:[^"]*","epoch":1'
json "the log has the server that was lost" server_lost warn "$one"
json "and came back" server_ready info "$one"
[ "$(grep -c '"event":"degraded"' "$work/err")" -eq 2 ] && ! grep -v '"level":' "$work/err"
ok $? "and that rows lacked experts, at first and in all"

kill -KILL "$rank1"
wait "$rank1" 2>/dev/null
rank 1
: >"$work/out"
{ echo '{"tokens":[5,6],"max_tokens":2}'; until_there "$work/killed"; echo "{$request}"; } |
	moe-route --hosts "$work/hosts" --timeout 5 --ctx 128 --unordered "$work/shards" >"$work/out" 2>"$work/err" &
route=$!
answers 1
kill -KILL "$rank1"
wait "$rank1" 2>/dev/null
: >"$work/killed"
wait $route
[ $? -eq 1 ]
ok $? "without --degrade the exit status is 1"
has "and the answer an error" '"finish_reason":"error".*"error":\{"code":"(peer|timeout)"' "$work/out"

kill -TERM "$rank0"
wait "$rank0"
finish
