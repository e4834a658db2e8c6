#!/bin/sh
# moe-serve: ready, serving, drain; what it refuses; who ends with whom.
. "$(dirname "$0")/../lib.sh"

XDG_RUNTIME_DIR=$work
export XDG_RUNTIME_DIR
unset MOE_RANK SLURM_PROCID OMPI_COMM_WORLD_RANK PMI_RANK LWS_WORKER_INDEX NOTIFY_SOCKET

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
[ "$(wc -l <"$work/out")" -le 40 ]
ok $? "--help fits a screen"
runs 2 "no shards" moe-serve
runs 2 "two shards" moe-serve a b
runs 2 "an unknown option" moe-serve --nonsense x
runs 2 "--rank with --ranks" moe-serve --rank 0 --ranks 0-1 x
runs 2 "a device of another kind" moe-serve --device tpu x
has "is named" '--device tpu: not cpu, cuda, cuda:N or auto' "$work/err"
runs 2 "memory of no device" moe-serve --device-memory 1G x
refuses "a device that does not hold the experts" 'needs 202.5 KiB of experts and .* of buffers on cpu, 200.0 KiB is available' \
	timeout 60 moe-serve --rank 0 --device cpu --device-memory 200K synth:tiny-mixtral
[ ! -s "$work/out" ]
ok $? "and no ready line"
refuses "no such folder" 'nowhere' timeout 60 moe-serve "$work/nowhere"
refuses "a rank the set does not have" 'rank 1: .* has 1 device' timeout 60 moe-serve --rank 1 synth:tiny-mixtral
runs 2 "a rank that is no number" timeout 60 moe-serve --rank x synth:tiny-mixtral
has "is named" "'x' is neither a rank nor env" "$work/err"
runs 2 "ranks that are no range" timeout 60 moe-serve --ranks 3-1 synth:tiny-mixtral
has "are named" "'3-1' is not of the form A-B" "$work/err"
refuses "--rank env without a launcher" 'none of MOE_RANK, SLURM_PROCID' timeout 60 moe-serve --rank env synth:tiny-mixtral
refuses "--rank env with nonsense" 'SLURM_PROCID=x' env SLURM_PROCID=x timeout 60 moe-serve --rank env synth:tiny-mixtral
refuses "tcp without --insecure" 'tcp://127.0.0.1:0: whoever can connect to a tcp endpoint may ask: make a key .*--insecure' \
	timeout 60 moe-serve --bind tcp://127.0.0.1:0 synth:tiny-mixtral
runs 2 "to poll what is not shared" timeout 60 moe-serve --no-shm --busy-poll 50 synth:tiny-mixtral
has "makes no sense" '--busy-poll looks into shared memory' "$work/err"
runs 2 "an endpoint of another kind" timeout 60 moe-serve --bind udp://x:1 synth:tiny-mixtral
has "is named" '--bind udp://x:1: an endpoint begins with tcp:// or ipc://' "$work/err"
chmod 777 "$work"
refuses "a socket where others may write" 'others may write' timeout 60 moe-serve --bind "ipc://$work/s" synth:tiny-mixtral
chmod 700 "$work"
runs 2 "nodes that are no list" timeout 60 moe-serve --numa x synth:tiny-mixtral
has "are named" "'x' is neither auto, off nor a list of nodes" "$work/err"
refuses "a node this machine has not" '--numa 0,1023: there is no node' timeout 60 moe-serve --numa 0,1023 synth:tiny-mixtral
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
has "-v tells the configuration" '[0-9]+ threads?, at most 1024 rows' "$work/tcp.err"
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

# ---- nodes

# cores PID: those it may run on.
cores() {
	sed -n 's/^Cpus_allowed_list:[[:space:]]*//p' "/proc/$1/status"
}

nodes=/sys/devices/system/node
if [ "$(cat $nodes/online 2>/dev/null)" = 0 ]; then
	start auto -v "$work/shards"
	! grep -q '"node"' "$work/auto.out" && has "one node: nobody is bound, and -v says why" \
		'bound to no node: there is 1 for 2 servers' "$work/auto.err"
	kill -TERM "$server"
	ends 0 "one node: ends with 0"
	start named --rank 0 --numa 0 --threads 4096 -v synth:tiny-mixtral
	has "a node that is asked for is in the ready line" '"node":0,' "$work/named.out"
	has "and -v has its cores" 'bound to node 0 \([0-9]+ cores?: [0-9,-]+\)' "$work/named.err"
	has "a server has no more threads than its node has cores" \
		" $(sed -n 's/.*bound to node 0 (\([0-9]*\) core.*/\1/p' "$work/named.err") threads?," "$work/named.err"
	kill -TERM "$server"
	ends 0 "--numa 0: ends with 0"
else
	skip "what one node does needs a machine of one node"
fi

# The machine as if it had two nodes, where a mount namespace of our own can be had.
mkdir -p "$work/two-nodes/node0" "$work/two-nodes/node1"
echo 0-1 >"$work/two-nodes/online"
echo 0 >"$work/two-nodes/node0/cpulist"
echo 1 >"$work/two-nodes/node1/cpulist"
if [ "$(cores self | cut -c 1-3)" = 0-1 ] && unshare -rm mount --bind "$work/two-nodes" $nodes 2>/dev/null; then
	cat >"$work/in-two" <<-EOF
		mount --bind "$work/two-nodes" $nodes
		exec $(command -v moe-serve) "\$@"
	EOF
	unshare -rm sh "$work/in-two" --ready-file "$work/nodes.hosts" -v "$work/shards" >"$work/nodes.out" 2>"$work/nodes.err" </dev/null &
	server=$!
	name=nodes
	pids="$pids $server"
	appears "$work/nodes.hosts"
	ok $? "two nodes: both servers are ready"
	for rank in 0 1; do
		pid=$(sed -n "s/.*\"rank\":$rank,.*\"node\":$rank,\"pid\":\([0-9]*\)}/\1/p" "$work/nodes.out")
		[ -n "$pid" ] && [ "$(cores "$pid")" = $rank ]
		ok $? "two nodes: rank $rank runs on node $rank"
	done
	[ "$(grep -c ' 1 thread,' "$work/nodes.err")" -eq 2 ]
	ok $? "two nodes: a thread for each core of a node"
	kill -TERM "$server"
	ends 0 "two nodes: ends with 0"
	echo 0-x >"$work/two-nodes/online"
	refuses "nodes that are asked for and cannot be read" 'node/online: not a list' unshare -rm sh "$work/in-two" --numa 0 "$work/shards"
else
	skip "a machine of two nodes needs two cores and a mount namespace"
fi

# ---- weights

runs 2 "a way to load that is none" timeout 60 moe-serve --weights maybe synth:tiny-mixtral
has "is named" "'maybe' is neither map, read, lock nor copy" "$work/err"
lockable=$(ulimit -l)
[ "$lockable" = unlimited ] || [ "$lockable" -ge 4096 ] || skip "no 4 MiB may be locked here"
for how in map:mapped read:read lock:locked copy:copied; do
	[ $how != lock:locked ] || [ "$lockable" = unlimited ] || [ "$lockable" -ge 4096 ] || continue
	start ${how%:*} --weights ${how%:*} -v "$work/shards"
	[ "$(grep -c " experts\? (.*, ${how#*:})," "$work/${how%:*}.err")" -eq 2 ]
	ok $? "-v says that weights are ${how#*:}"
	moe-route --hosts "$work/${how%:*}.hosts" --timeout 30 --weights ${how%:*} -p a -n 9 "$work/shards" >"$work/${how%:*}.text"
	same "the same answer" "$work/map.text" "$work/${how%:*}.text"
	kill -TERM "$server"
	ends 0 "${how%:*}: ends with 0"
done
runs 2 "for moe-route too" moe-route --weights maybe -p a synth:tiny-mixtral

# ---- checksums

# damage FILE: its last byte is another one.
damage() {
	last=$(tail -c 1 "$1" | od -An -tu1)
	head -c -1 "$1" >"$work/whole"
	printf "\\$(printf %03o $(((last + 1) % 256)))" >>"$work/whole"
	mv "$work/whole" "$1"
}

start verified --verify "$work/shards"
kill -TERM "$server"
ends 0 "a set that is whole is served with --verify"
runs 0 "and used" moe-route --verify -p a -n 1 "$work/shards"
cp -r "$work/shards" "$work/bad"
damage "$work/bad"/experts-0001-*
start other --rank 0 --verify "$work/bad"
kill -TERM "$server"
ends 0 "damage in another rank's file is not this one's concern"
refuses "damage in its own is, and is named" 'experts-0001-[0-9a-f]*.safetensors: checksum differs \(layer' \
	timeout 60 moe-serve --rank 1 --verify "$work/bad"
refuses "a supervisor says whose" 'rank 1: .*checksum differs' timeout 60 moe-serve --verify "$work/bad"
refuses "moe-route looks at experts that it computes" 'experts-0001-.*checksum differs' moe-route --verify -p a -n 1 "$work/bad"
refuses "what has no checksums cannot be verified" 'has no checksums' timeout 60 moe-serve --verify --rank 0 "$work/model"

mv "$work/shards"/experts-0001-* "$work/"
start own --rank 0 "$work/shards"
kill -TERM "$server"
ends 0 "a server starts with only its own files present"
refuses "not without its own" 'experts-0001-' timeout 60 moe-serve --rank 1 "$work/shards"
refuses "a supervisor says which rank could not" 'rank 1: .*experts-0001-' timeout 60 moe-serve "$work/shards"

finish
