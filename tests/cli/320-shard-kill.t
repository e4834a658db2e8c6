#!/bin/sh
# moe-shard killed at any moment: the old set or the new one, whole; the next run cleans up.
. "$(dirname "$0")/../lib.sh"
cd "$work" || exit 1

model=synth:tiny-mixtral,layers=300
rounds=20
[ -z "$MOE_LONG" ] || rounds=200
[ -z "$MOE_SAN" ] || rounds=5
start=$(date +%s%N)
moe-shard --devices 2 $model first >/dev/null || exit 1
whole=$((($(date +%s%N) - start) / 1000)) # microseconds of one run
one=$(ls first)

# pause I: until another moment of a run each time, from its start to somewhat after its end.
pause() {
	us=$((whole * (($1 * 7 % 20) * 6 + $1 % 6) / 100))
	sleep "$((us / 1000000)).$(printf %06d $((us % 1000000)))"
}

# A first write.
bad_first=0
i=0
while [ $i -lt $rounds ]; do
	moe-shard --devices 2 $model fresh >/dev/null 2>&1 &
	pid=$!
	pause $i
	kill -9 $pid 2>/dev/null
	wait $pid 2>/dev/null
	if [ -e fresh ]; then
		moe-shard -q --verify fresh || bad_first=1
		rm -rf fresh
	fi
	i=$((i + 1))
done
ok $bad_first "a first write leaves nothing or a whole set"
runs 0 "the next run" moe-shard --devices 2 $model fresh
[ "$(ls -d fresh* | wc -l)" -eq 1 ]
ok $? "cleans up what they left"
[ "$(ls fresh)" = "$one" ]
ok $? "and writes the same files"

# A set that is replaced.
bad_replace=0
i=0
while [ $i -lt $rounds ]; do
	moe-shard --devices $((2 + i % 2)) $model first >/dev/null 2>&1 &
	pid=$!
	pause $((i + 3))
	kill -9 $pid 2>/dev/null
	wait $pid 2>/dev/null
	moe-shard -q --verify first || bad_replace=1
	i=$((i + 1))
done
ok $bad_replace "a replaced set is the old one or the new one"
runs 0 "replaced undisturbed" moe-shard --devices 2 $model first
runs 0 "--gc" moe-shard --gc first
[ "$(ls first)" = "$one" ]
ok $? "leaves exactly one set"
runs 0 "which is whole" moe-shard --verify first

# Asked to stop: nothing is left.
left=0
wrong=0
i=0
for sig in INT TERM HUP INT TERM HUP; do
	i=$((i + 1))
	env --default-signal=INT moe-shard --devices 2 $model asked >/dev/null 2>asked.err &
	pid=$!
	pause $((i * 2))
	kill -$sig $pid 2>/dev/null
	wait $pid
	got=$?
	case $sig in INT) want=130 ;; TERM) want=143 ;; *) want=129 ;; esac
	[ $got -eq 0 ] || [ $got -eq $want ] || wrong=1
	[ $got -eq 0 ] && rm -rf asked
	ls -d asked asked.tmp-* >/dev/null 2>&1 && left=1
	rm -rf asked asked.tmp-*
done
ok $wrong "signals give 128 and their number"
ok $left "nothing is left after a signal"
finish
