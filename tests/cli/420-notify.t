#!/bin/sh
# moe-serve tells the service manager: ready, alive, stopping, as systemd reads it.
. "$(dirname "$0")/../lib.sh"
unset MOE_RANK SLURM_PROCID OMPI_COMM_WORLD_RANK PMI_RANK LWS_WORKER_INDEX
XDG_RUNTIME_DIR=$work
export XDG_RUNTIME_DIR

# What systemd would read: each datagram on a line, its lines joined by blanks, in $work/told.
perl -MIO::Socket::UNIX -MIO::Handle -e '
	$s = IO::Socket::UNIX->new(Type => Socket::SOCK_DGRAM, Local => $ARGV[0]) or die;
	open F, ">>", $ARGV[1] or die; F->autoflush(1); print F "listening\n";
	alarm 240; while (defined $s->recv($m, 4096)) { $m =~ tr/\n/ /; print F "$m\n" }' "$work/notify" "$work/told" &
pids="$pids $!"

# told WORDS PATTERN [COUNT]: it is told so within 60 seconds, COUNT times.
told() {
	i=0
	while [ "$(grep -Ec -- "$2" "$work/told")" -lt "${3:-1}" ] && [ $i -lt 600 ]; do
		sleep 0.1
		i=$((i + 1))
	done
	[ "$(grep -Ec -- "$2" "$work/told")" -ge "${3:-1}" ]
	s=$?
	ok $s "$1"
	[ $s -eq 0 ] || tail -5 "$work/told" | sed 's/^/# /'
}

start() {
	: >"$work/told"
	usec=$1
	shift
	NOTIFY_SOCKET=$work/notify WATCHDOG_USEC=$usec exec_serve "$@" &
	server=$!
	pids="$pids $server"
}
exec_serve() {
	exec moe-serve "$@" >"$work/out" 2>"$work/err" </dev/null
}

# ends WORDS: SIGTERM ends it with 0.
ends() {
	kill -TERM "$server"
	told "$1: says that it stops" '^STOPPING=1 STATUS='
	wait "$server"
	ok $? "$1: and ends with 0"
}

while [ ! -s "$work/told" ]; do sleep 0.1; done
runs 0 "a set for two" moe-shard --devices 2 synth:tiny-mixtral "$work/shards"

start 0 --rank 0 "$work/shards"
told "one server: ready" '^READY=1 STATUS=1 server ready'
ends "one server"
[ "$(grep -c WATCHDOG "$work/told")" -eq 0 ]
ok $? "and no watchdog was asked for"

start 400000 --rank 0 "$work/shards"
told "a watchdog hears of an idle server" '^WATCHDOG=1' 5
[ "$(head -1 "$work/told" | cut -c 1-7)" = READY=1 ]
ok $? "once it is ready"
ends "watched"

WATCHDOG_PID=1
export WATCHDOG_PID
start 400000 --rank 0 "$work/shards"
told "the watchdog of another process: ready" '^READY=1'
ends "another's watchdog"
[ "$(grep -c WATCHDOG "$work/told")" -eq 0 ]
ok $? "it hears nothing of us"
unset WATCHDOG_PID

start 400000 "$work/shards"
told "two servers under a supervisor: ready once" '^READY=1 STATUS=2 servers ready'
told "and alive" '^WATCHDOG=1' 5
child=$(sed -n 's/.*"rank":1,.*"pid":\([0-9]*\).*/\1/p' "$work/out")
kill -STOP "$child"
sleep 1
before=$(grep -c WATCHDOG "$work/told")
sleep 1
[ "$(grep -c WATCHDOG "$work/told")" -eq "$before" ]
ok $? "while one server hangs the watchdog hears nothing"
kill -CONT "$child"
told "it does again when the server goes on" '^WATCHDOG=1' $((before + 3))
[ "$(grep -c READY "$work/told")" -eq 1 ]
ok $? "the servers themselves said nothing"

reload='^RELOADING=1 MONOTONIC_USEC=[0-9]+ STATUS='
cp "$work/shards/manifest.json" "$work/manifest"
kill -HUP "$server"
told "a reload is told" "$reload"
told "and its end, when there was nothing to load" '^READY=1 STATUS=2 servers ready' 2
[ "$(grep -c READY "$work/told")" -eq 2 ] && [ "$(grep -cE "$reload" "$work/told")" -eq 1 ]
ok $? "once for both servers"
echo nonsense >"$work/shards/manifest.json"
kill -HUP "$server"
told "another one" "$reload" 2
told "which fails, and is over all the same" '^READY=1 STATUS=2 servers ready' 3
cp "$work/manifest" "$work/shards/manifest.json"
ends "two servers"

start 0 --rank 0 "$work/shards"
told "one server again" '^READY=1'
sed 's/"epoch": *[0-9]*/"epoch": 7/' "$work/manifest" >"$work/shards/manifest.json"
kill -HUP "$server"
told "a reload of another epoch is told" "$reload"
told "and when it is in use" '^READY=1 STATUS=1 server ready' 2
has "which is the new one" 'epoch 7, [0-9]+ experts: ' "$work/err"
cp "$work/manifest" "$work/shards/manifest.json"
ends "reloaded"
finish
