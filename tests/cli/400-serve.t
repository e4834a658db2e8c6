#!/bin/sh
# moe-serve: ready, serving, drain; what it refuses; who ends with whom.
. "$(dirname "$0")/../lib.sh"

XDG_RUNTIME_DIR=$work
export XDG_RUNTIME_DIR
unset SLURM_PROCID OMPI_COMM_WORLD_RANK PMI_RANK LWS_WORKER_INDEX NOTIFY_SOCKET

# appears FILE: it comes within 30 seconds, and is not empty.
appears() {
	i=0
	while [ ! -s "$1" ] && [ $i -lt 300 ]; do
		sleep 0.1
		i=$((i + 1))
	done
	[ -s "$1" ]
}

# gone PID: it ends within 30 seconds.
gone() {
	i=0
	while kill -0 "$1" 2>/dev/null && [ $i -lt 300 ]; do
		sleep 0.1
		i=$((i + 1))
	done
	! kill -0 "$1" 2>/dev/null
}

# start NAME ARGS...: in the background, with $work/NAME.{hosts,out,err}; waits until it is ready.  Its pid is $server.
start() {
	name=$1
	shift
	rm -f "$work/$name.out" "$work/$name.err"
	moe-serve --ready-file "$work/$name.hosts" "$@" >"$work/$name.out" 2>"$work/$name.err" </dev/null &
	server=$!
	pids="$pids $server"
	# A ready file may be there from before; it is gone when the first ready line is out.
	appears "$work/$name.out" && appears "$work/$name.hosts"
	ok $? "$name: the ready file appears"
}

# ends STATUS WORDS: the last one started ends with this status.
ends() {
	wait "$server"
	got=$?
	[ $got -eq "$1" ]
	s=$?
	ok $s "$2"
	[ $s -eq 0 ] || { echo "# exit status $got, wanted $1"; sed 's/^/# /' "$work/$name.err"; }
}

child_pids() {
	sed -n 's/.*"pid":\([0-9]*\).*/\1/p' "$1"
}

# ---- the command line

runs 0 "--help" moe-serve --help
has "--help is on stdout" 'usage: moe-serve' "$work/out"
[ "$(wc -l <"$work/out")" -le 24 ]
ok $? "--help fits a screen"
runs 2 "no shards" moe-serve
runs 2 "two shards" moe-serve a b
runs 2 "an unknown option" moe-serve --nonsense x
runs 2 "--rank with --ranks" moe-serve --rank 0 --ranks 0-1 x
refuses "no such folder" 'nowhere' timeout 60 moe-serve "$work/nowhere"
refuses "a rank the set does not have" 'rank 1: .* has 1 device' timeout 60 moe-serve --rank 1 synth:tiny-mixtral
runs 2 "a rank that is no number" timeout 60 moe-serve --rank x synth:tiny-mixtral
has "is named" "'x' is neither a rank nor env" "$work/err"
runs 2 "ranks that are no range" timeout 60 moe-serve --ranks 3-1 synth:tiny-mixtral
has "are named" "'3-1' is not of the form A-B" "$work/err"
refuses "--rank env without a launcher" 'none of SLURM_PROCID' timeout 60 moe-serve --rank env synth:tiny-mixtral
refuses "--rank env with nonsense" 'SLURM_PROCID=x' env SLURM_PROCID=x timeout 60 moe-serve --rank env synth:tiny-mixtral
refuses "tcp without --insecure" 'tcp://127.0.0.1:0: a tcp endpoint needs keys or --insecure' \
	timeout 60 moe-serve --bind tcp://127.0.0.1:0 synth:tiny-mixtral
runs 2 "an endpoint of another kind" timeout 60 moe-serve --bind udp://x:1 synth:tiny-mixtral
has "is named" '--bind udp://x:1: an endpoint begins with tcp:// or ipc://' "$work/err"
chmod 777 "$work"
refuses "a socket where others may write" 'others may write' timeout 60 moe-serve --bind "ipc://$work/s" synth:tiny-mixtral
chmod 700 "$work"
echo precious >"$work/precious"
refuses "a ready file that is another file" 'is not a ready file' \
	timeout 60 moe-serve --ready-file "$work/precious" synth:tiny-mixtral
has "that file is left alone" precious "$work/precious"

# ---- one server

start one --rank 0 synth:tiny-mixtral
has "the ready line is JSON with the endpoint" '^\{"event":"ready","rank":0,"endpoint":"ipc://.*"experts":[0-9]+,"bytes":[0-9]+,"fingerprint":"[0-9a-f]{32}","epoch":[0-9]+,"numerics":"sum.*","pid":[0-9]+\}$' "$work/one.out"
has "the ready file has the endpoint" "^ipc://$work/moe/[0-9a-f]{8}-rank-0\$" "$work/one.hosts"
refuses "a second server at the same place" 'already served by another process' timeout 60 moe-serve --rank 0 synth:tiny-mixtral
kill -TERM "$server"
ends 0 "SIGTERM: ends with 0"
[ ! -e "$work/one.hosts" ]
ok $? "the ready file is gone"
[ -z "$(ls "$work/moe")" ]
ok $? "the socket is gone"

start killed --rank 0 synth:tiny-mixtral
kill -KILL "$server"
wait "$server" 2>/dev/null
[ -S "$(echo "$work"/moe/*-rank-0)" ]
ok $? "a killed server leaves its socket"
start killed --rank 0 synth:tiny-mixtral
kill -INT "$server"
ends 0 "and its ready file, and the next one takes both over; SIGINT ends it too"

LWS_WORKER_INDEX=0
export LWS_WORKER_INDEX
start env --rank env synth:tiny-mixtral
unset LWS_WORKER_INDEX
has "--rank env says where the rank is from" 'rank 0, from LWS_WORKER_INDEX' "$work/env.err"
kill -TERM "$server"
ends 0 "--rank env: ends with 0"

start tcp --rank 0 --bind tcp://127.0.0.1:0 --advertise localhost --insecure -v synth:tiny-mixtral
has "port 0 is a free one, advertised" '^tcp://localhost:[1-9][0-9]*$' "$work/tcp.hosts"
has "-v tells the configuration" '[0-9]+ threads, at most 1024 rows' "$work/tcp.err"
kill -TERM "$server"
ends 0 "tcp: ends with 0"

perl -MIO::Socket::UNIX -e '
	$s = IO::Socket::UNIX->new(Type => Socket::SOCK_DGRAM, Local => $ARGV[0]) or die;
	open F, ">", $ARGV[1] or die; print F "listening\n"; close F;
	alarm 60; $s->recv($m, 100); print $m, "\n"' "$work/notify" "$work/listening" >"$work/notified" &
listener=$!
pids="$pids $listener"
appears "$work/listening"
NOTIFY_SOCKET=$work/notify
export NOTIFY_SOCKET
start notify --rank 0 synth:tiny-mixtral
unset NOTIFY_SOCKET
wait "$listener"
has "systemd is told" '^READY=1$' "$work/notified"
kill -TERM "$server"
ends 0 "notify: ends with 0"

moe-serve --rank 0 synth:tiny-mixtral >/dev/full 2>"$work/err"
[ $? -eq 1 ] && has "nobody can read the ready line: an error" 'standard output' "$work/err"
[ -z "$(ls "$work/moe")" ]
ok $? "and the socket is gone"
case $MOE_BIN in
*san-*) skip "an address space limit and a sanitizer" ;;
*) refuses "what does not fit is refused with the numbers" 'needs .* of experts and .* of buffers, .* is available' \
	sh -c 'ulimit -v 150000; exec timeout 60 moe-serve --max-rows 65536 synth:tiny-mixtral' ;;
esac

# ---- several under a supervisor

runs 0 "a checkpoint" moe-bench synth --like tiny-mixtral "$work/model"
runs 0 "cut for two devices" moe-shard --devices 2 "$work/model" "$work/shards"

start two "$work/shards"
[ "$(grep -c '"event":"ready"' "$work/two.out")" -eq 2 ]
ok $? "two: a ready line each"
[ "$(sed 's/.*-rank-//' "$work/two.hosts" | tr '\n' ' ')" = "0 1 " ]
ok $? "two: the ready file has both, in order"
runs 0 "two: moe-route uses them" moe-route --hosts "$work/two.hosts" --timeout 30 -p a -n 2 "$work/shards"
set -- $(child_pids "$work/two.out")
kill -TERM "$server"
ends 0 "two: SIGTERM ends with 0"
gone "$1" && gone "$2"
ok $? "two: the children are gone"
[ ! -s "$work/two.err" ]
ok $? "two: nothing to complain about"

start dies "$work/shards"
set -- $(child_pids "$work/dies.out")
kill -KILL "$1"
ends 1 "a child dies: the supervisor ends with 1"
[ "$(wc -l <"$work/dies.err")" -eq 1 ] && grep -Eq 'rank [01] \(pid [0-9]+\) was killed by signal 9' "$work/dies.err"
ok $? "and says so in one line"
gone "$2"
ok $? "and the other child is gone"
[ ! -e "$work/dies.hosts" ]
ok $? "and the ready file"

start orphans "$work/shards"
set -- $(child_pids "$work/orphans.out")
kill -KILL "$server"
wait "$server" 2>/dev/null
gone "$1" && gone "$2"
ok $? "children end when their supervisor is killed"
rm -f "$work/orphans.hosts"

start ports --bind tcp://127.0.0.1:0 --insecure "$work/shards"
[ "$(sort -u "$work/ports.hosts" | grep -c '^tcp://127.0.0.1:[1-9]')" -eq 2 ]
ok $? "each rank has a port of its own"
kill -TERM "$server"
ends 0 "ports: ends with 0"

mv "$work/shards"/experts-0001-* "$work/"
start own --rank 0 "$work/shards"
kill -TERM "$server"
ends 0 "a server starts with only its own files present"
refuses "not without its own" 'experts-0001-' timeout 60 moe-serve --rank 1 "$work/shards"
refuses "a supervisor says which rank could not" 'rank 1: .*experts-0001-' timeout 60 moe-serve "$work/shards"

finish
