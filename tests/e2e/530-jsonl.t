#!/bin/sh
# Lines in, lines out: each bad one gets its error, the good ones their answers.
. "$(dirname "$0")/../lib.sh"

model=$top/models/kjv-mixtral
run() {
	printf '%s\n' "$@" | moe-route --ctx 64 -n 2 "$model" >"$work/out" 2>"$work/err"
	status=$?
}

# bad WORDS PATTERN LINE: the line gets an error that matches; the next line an answer.
bad() {
	run "$3" '{"id":"next","prompt":"And"}'
	[ $status -eq 1 ] && [ "$(wc -l <"$work/out")" -eq 2 ] && sed -n 1p "$work/out" | grep -q '"finish_reason":"error"' &&
		sed -n 1p "$work/out" | grep -Eq -- "$2" && sed -n 2p "$work/out" | grep -q '"id":"next".*"length"'
	s=$?
	ok $s "$1"
	[ $s -eq 0 ] || { echo "# status $status"; sed 's/^/# /' "$work/out" "$work/err"; }
}

bad "not JSON" 'line 1: ' '{"prompt":'
bad "more than one value" 'line 1: ' '{"prompt":"a"} {}'
bad "\\u0000" 'line 1: ' '{"prompt":"a\u0000b"}'
bad "a name twice" 'duplicate name' '{"prompt":"a","prompt":"b"}'
bad "an array" 'not an object' '[1]'
bad "not UTF-8" 'line 1: ' "$(printf '{"prompt":"\377"}')"
bad "no prompt" 'neither prompt nor tokens' '{"id":"x"}'
bad "prompt and tokens" 'both' '{"prompt":"a","tokens":[1]}'
bad "messages" 'messages' '{"messages":[{"role":"user","content":"a"}]}'
bad "no tokens" '"id":"x".*line 1' '{"id":"x","tokens":[]}'
bad "an unknown token" '2048' '{"tokens":[2048]}'
bad "a negative token" 'tokens\[0\]' '{"tokens":[-1]}'
bad "a token that is no number" 'tokens\[1\]' '{"tokens":[1,"2"]}'
bad "temperature below 0" 'temperature' '{"prompt":"a","temperature":-1}'
bad "top_p over 1" 'top_p' '{"prompt":"a","top_p":1.5}'
bad "max_tokens is text" 'max_tokens' '{"prompt":"a","max_tokens":"9"}'
bad "a prompt longer than the context" '64' "{\"tokens\":[$(seq -s, 1 65)]}"
bad "prompt and answer longer than the context" '64' '{"prompt":"a","max_tokens":64}'
bad "an empty stop string" 'stop' '{"prompt":"a","stop":""}'
bad "an id that is an object" 'id' '{"id":{},"prompt":"a"}'

run '{"prompt":"And God"}' '' '{"id":"b","prompt":"And God","unknown":{"x":1}}'
[ $status -eq 0 ] && sed -n 1p "$work/out" | grep -q '^{"id":1,' && sed -n 2p "$work/out" | grep -q '^{"id":"b",'
ok $? "a missing id is the line number, empty lines are skipped, unknown names ignored"

printf '{"prompt":"And God"}' | moe-route --ctx 64 -n 2 "$model" >"$work/out"
[ $? -eq 0 ] && [ "$(wc -l <"$work/out")" -eq 1 ]
ok $? "a last line without a newline"

moe-route "$model" </dev/null >"$work/out"
[ $? -eq 0 ] && [ ! -s "$work/out" ]
ok $? "no lines, no answers, status 0"

echo '{"prompt":"And God said","stop":["light"," the"],"max_tokens":40,"temperature":0}' | moe-route "$model" >"$work/out"
has "stop strings end an answer" '"finish_reason":"stop"' "$work/out"
! grep -q '"text":"[^"]*\( the\|light\)' "$work/out"
ok $? "and are not in it"

runs 0 "-p prints text" moe-route --temp 0 -p "And God" -n 8 "$model"
echo '{"prompt":"And God","max_tokens":8,"temperature":0}' | moe-route "$model" | sed 's/.*"text":"\([^"]*\)".*/\1/' >"$work/text"
same "-p gives the text of the JSON answer" "$work/text" "$work/out"

runs 2 "-p and --score do not go together" moe-route -p a --score "$model"
runs 2 "a stop that is empty" moe-route --stop '' -p a "$model"
runs 2 "an endpoint that is none" moe-route --connect localhost:5555 -p a "$model"
has "is named" '--connect: localhost:5555: an endpoint begins with' "$work/err"
runs 2 "no model" moe-route -p a
runs 2 "an unknown option" moe-route --nonsense "$model"
runs 2 "an abbreviated option" moe-route --uno "$model"
refuses "no such folder" 'moe-route: .*nowhere' moe-route "$work/nowhere"
refuses "a folder that is no model" 'moe-route: ' moe-route "$work"
refuses "a context beyond the model's" '1024' moe-route --ctx 2000 "$model"
refuses "a KV cache that is too small" 'kv-memory' moe-route --kv-memory 1K "$model"
if [ -c /dev/full ]; then
	echo '{"prompt":"And God"}' | moe-route -n 2 "$model" >/dev/full 2>"$work/err"
	[ $? -eq 1 ] && [ "$(wc -l <"$work/err")" -eq 1 ]
	ok $? "a full disk is one line and status 1"
fi

# Who reads only the beginning is not told that the rest was not read.
yes '{"prompt":"And","max_tokens":400,"ignore_eos":true}' | head -200 >"$work/many"
{ moe-route --batch 1 --usage "$work/usage" "$model" <"$work/many" 2>"$work/err"; echo $? >"$work/status"; } | head -n 1 >"$work/out"
[ "$(wc -l <"$work/out")" -eq 1 ] && [ "$(cat "$work/status")" -ne 0 ] && [ ! -s "$work/err" ]
ok $? "a reader that leaves: a silent end, not status 0"
[ -s "$work/usage" ]
ok $? "and the usage is written"

# under_way TOKENS: moe-route ($p) with a short request answered and one of so many tokens under way, its output in
# $work/out1.  Both lines come in one write, so the long request was read when the short one's answer is there.
under_way() {
	rm -f "$work/out1"
	moe-route -n 4 "$model" <"$work/in" >"$work/out1" 2>"$work/err" &
	p=$!
	exec 9>"$work/in"
	printf '{"prompt":"And God"}\n{"prompt":"And God","max_tokens":%d,"ignore_eos":true}\n' "$1" >&9
	i=0
	while [ ! -s "$work/out1" ] && [ $i -lt 600 ]; do
		sleep 0.1
		i=$((i + 1))
	done
}

# TERM lets what was read finish; INT cancels with a line each.
mkfifo "$work/in"
under_way 600
kill -TERM $p
wait $p
[ $? -eq 0 ] && [ "$(wc -l <"$work/out1")" -eq 2 ] && grep -q '"completion_tokens":600' "$work/out1"
ok $? "SIGTERM: answers what was read, status 0"
exec 9>&-

under_way 1000
kill -INT $p
wait $p
[ $? -eq 130 ] && [ "$(wc -l <"$work/out1")" -eq 2 ]
ok $? "SIGINT: a line for every request, status 130"
exec 9>&-

# A reader that is late: the answers fill the pipe, and the signal comes while one is being written.
mkfifo "$work/late"
yes '{"prompt":"And","logprobs":true,"max_tokens":150,"ignore_eos":true}' | head -40 >"$work/many"
moe-route "$model" <"$work/many" >"$work/late" 2>"$work/err" &
p=$!
exec 8<"$work/late"
i=0
while ! grep -q pipe_write /proc/$p/wchan 2>/dev/null && [ $i -lt 100 ]; do
	sleep 0.1
	i=$((i + 1))
done
kill -TERM $p
sleep 0.1
cat <&8 >"$work/out3"
exec 8<&-
wait $p
[ $? -eq 0 ] && [ -s "$work/out3" ] && ! grep -qv '^{.*}$' "$work/out3" && [ ! -s "$work/err" ]
ok $? "SIGTERM while an answer is being written: it is written whole, status 0"

# Nothing is under way while servers are waited for.
env --default-signal=INT moe-route --timeout 600 --connect "ipc://$work/nobody" "$model" </dev/null >"$work/out4" 2>&1 &
p=$!
sleep 1
kill -INT $p
wait $p
ok $(($? != 130)) "SIGINT while it waits for servers: ends at once"
finish
