#!/bin/sh
# moe-serve --rank env, --bind tcp://HOST:env: what launchers say of ranks and ports.
. "$(dirname "$0")/../lib.sh"
unset SLURM_PROCID SLURM_LOCALID SLURM_NTASKS_PER_NODE SLURM_STEP_RESV_PORTS OMPI_COMM_WORLD_RANK PMI_RANK LWS_WORKER_INDEX NOTIFY_SOCKET
XDG_RUNTIME_DIR=$work
export XDG_RUNTIME_DIR
runs 0 "a set for four" moe-shard --devices 4 synth:tiny-mixtral "$work/shards"

# served WORDS PATTERN VARIABLES... -- OPTIONS...: a server that is started so is ready with a line that matches.
served() {
	words=$1
	pattern=$2
	shift 2
	: >"$work/line"
	env "$@" "$work/shards" >"$work/line" 2>"$work/err" </dev/null &
	server=$!
	pids="$pids $server"
	i=0
	while [ ! -s "$work/line" ] && kill -0 $server 2>/dev/null && [ $i -lt 600 ]; do
		sleep 0.1
		i=$((i + 1))
	done
	has "$words" "$pattern" "$work/line"
	[ -s "$work/line" ] || sed 's/^/# /' "$work/err"
	kill "$server" 2>/dev/null
	wait "$server"
}

# Ports that are free as likely as not; below those that connections take.
base=$((12000 + $$ % 20000))
tcp='--bind tcp://127.0.0.1:env --insecure --threads 1'
served "MOE_RANK goes first" '"rank":2,' MOE_RANK=2 SLURM_PROCID=1 moe-serve --rank env --threads 1
has "and is named" 'rank 2, from MOE_RANK' "$work/err"
served "a reserved port" "\"rank\":3,\"endpoint\":\"tcp://127.0.0.1:$base\"" SLURM_PROCID=3 SLURM_STEP_RESV_PORTS=$base-$((base + 1)) \
	moe-serve --rank env $tcp
served "the next for the second task of a host" "\"rank\":1,\"endpoint\":\"tcp://127.0.0.1:$((base + 1))\"" SLURM_PROCID=1 SLURM_LOCALID=1 \
	SLURM_STEP_RESV_PORTS=$base-$((base + 1)) moe-serve --rank env $tcp
served "a second task without the number of tasks has a port of its own" "tcp://127.0.0.1:$((base + 1))\"" SLURM_PROCID=1 SLURM_LOCALID=1 \
	moe-serve --rank env --bind tcp://127.0.0.1:$base --insecure --threads 1
refuses "too few ports" "SLURM_STEP_RESV_PORTS=$base: 1 port, too few" env SLURM_PROCID=1 SLURM_LOCALID=1 SLURM_STEP_RESV_PORTS=$base \
	timeout 60 moe-serve -q --rank env $tcp "$work/shards"
refuses "no list of ports" 'SLURM_STEP_RESV_PORTS=x is not a list of ports' env SLURM_PROCID=1 SLURM_STEP_RESV_PORTS=x \
	timeout 60 moe-serve -q --rank env $tcp "$work/shards"
refuses "no ports" '--bind tcp://127.0.0.1:env: SLURM_STEP_RESV_PORTS is not set' timeout 60 moe-serve --rank 0 $tcp "$work/shards"
refuses "such a bind is not open either" 'whoever can connect' timeout 60 moe-serve --rank 0 --bind tcp://127.0.0.1:env "$work/shards"
runs 2 "env is no port of ipc" timeout 60 moe-serve --rank 0 --bind tcp://:env "$work/shards"
finish
