#!/bin/sh
# Every expert on two servers of four: one that is killed in the middle costs no request anything, and is used again when it is back.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib-serve.sh"

model=$top/models/kjv-mixtral
devices=4

# Expert e of each layer on devices e mod 4 and (e + 1) mod 4.
layers=$(sed -n 's/.*"num_hidden_layers": *\([0-9]*\).*/\1/p' "$model/config.json")
experts=$(sed -n 's/.*"num_local_experts": *\([0-9]*\).*/\1/p' "$model/config.json")
awk -v l="$layers" -v n="$experts" -v d=$devices 'BEGIN {
	for (i = 0; i < n; i++) row = row (i ? ", " : "") "[" i % d ", " (i + 1) % d "]";
	for (i = 0; i < l; i++) all = all (i ? ", " : "") "[" row "]";
	print "{\"placement\": [" all "]}" }' >"$work/placement.json"
runs 0 "a shard set with two replicas of every expert" moe-shard -q --placement "$work/placement.json" "$model" "$work/shards"

# one RANK: a server of its own, so that the others outlive it.  Its process is in $work/pid.RANK.  Descriptor 3 is not for it.
one() {
	rm -f "$work/ready.$1"
	moe-serve -q --rank "$1" --bind "ipc://$work/run/r$1" --ready-file "$work/ready.$1" "$work/shards" >"$work/serve.$1" 2>&1 </dev/null 3>&- &
	echo $! >"$work/pid.$1"
	pids="$pids $!"
	tries=0
	while [ ! -e "$work/ready.$1" ] && [ $tries -lt 2400 ]; do
		tries=$((tries + 1))
		sleep 0.1
	done
	[ -e "$work/ready.$1" ]
}
: >"$work/hosts"
up=0
for r in 0 1 2 3; do
	one $r || up=1
	echo "ipc://$work/run/r$r" >>"$work/hosts"
done
ok $up "four servers"

i=0
while [ $i -lt 64 ]; do
	echo "{\"id\":$i,\"prompt\":\"And it came to pass $i\",\"max_tokens\":64,\"ignore_eos\":true}"
	i=$((i + 1))
done >"$work/requests"
moe-route -q --hosts "$work/hosts" --batch 8 "$work/shards" <"$work/requests" >"$work/calm"
[ $? -eq 0 ] && [ "$(wc -l <"$work/calm")" -eq 64 ]
ok $? "64 answers, undisturbed"

# await N FILE: so many lines are there.
await() {
	tries=0
	while [ "$(wc -l <"$2")" -lt "$1" ] && [ $tries -lt 2400 ]; do
		tries=$((tries + 1))
		sleep 0.1
	done
	[ "$(wc -l <"$2")" -ge "$1" ]
}

# The same once more, in three parts.
mkfifo "$work/in"
: >"$work/hurt"
moe-route -q --hosts "$work/hosts" --batch 8 "$work/shards" <"$work/in" >"$work/hurt" 2>"$work/hurt.err" &
route=$!
pids="$pids $route"
exec 3>"$work/in"

sed -n 1,24p "$work/requests" >&3
await 1 "$work/hurt"
kill -KILL "$(cat "$work/pid.1")"
wait "$(cat "$work/pid.1")" 2>/dev/null
sed -n 25,44p "$work/requests" >&3
await 44 "$work/hurt"
ok $? "a server is killed in the middle: the others answer"

# The client comes back to it by itself, though it has nothing to ask; then the server that it shares experts with goes.
one 1
tries=0
while [ "$(moe-serve status -q --connect "ipc://$work/run/r1" -o clients)" != 1 ] && [ $tries -lt 600 ]; do
	tries=$((tries + 1))
	sleep 0.1
done
[ $tries -lt 600 ]
ok $? "the client finds the one that is back"
kill -KILL "$(cat "$work/pid.0")"
wait "$(cat "$work/pid.0")" 2>/dev/null
sed -n 45,64p "$work/requests" >&3
exec 3>&-
wait $route
ok $? "and uses it: the run ends with status 0"
same "the answers are those of the undisturbed run" "$work/calm" "$work/hurt"

# A server that hangs is as good as dead.
one 0
(sleep 1; kill -STOP "$(cat "$work/pid.3")") &
moe-route -v --hosts "$work/hosts" --batch 8 "$work/shards" <"$work/requests" >"$work/again" 2>"$work/again.err"
ok $? "a server is stopped in the middle: status 0"
same "the answers are the same" "$work/calm" "$work/again"
has "those that came back are in use" "rank 0 ipc://.* experts, shared memory" "$work/again.err"
kill -CONT "$(cat "$work/pid.3")"

for r in 0 1 2 3; do
	kill -TERM "$(cat "$work/pid.$r")"
	wait "$(cat "$work/pid.$r")" || up=1
done
ok $up "the servers end with status 0"
finish
