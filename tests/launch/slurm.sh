#!/bin/sh
# Expert servers in a Slurm job: a cluster of two nodes on this machine, with all its state in a throw-away folder.  Run by hand as root,
# from a built tree, where slurmctld, slurmd and munge are installed (they need not run):
#
#   tests/launch/slurm.sh
. "$(dirname "$0")/../lib.sh"
for c in slurmctld slurmd munged sbatch srun; do
	command -v $c >/dev/null || { echo "1..0 # SKIP no $c"; exit 0; }
done
[ "$(id -u)" -eq 0 ] || { echo "1..0 # SKIP it takes root"; exit 0; }
unset SLURM_PROCID SLURM_LOCALID SLURM_NTASKS_PER_NODE SLURM_STEP_RESV_PORTS
cd "$work" || exit 1
# Jobs are no children of ours.
trap 'scancel --user="$(id -un)" 2>/dev/null && sleep 2; for p in $pids; do kill "$p" 2>/dev/null; done; wait; rm -rf "$work"' EXIT

# ---- the cluster

chmod 755 .
port=$((21000 + $$ % 9000))
mkdir -m 755 munge state
head -c 1024 /dev/urandom >munge/key
chmod 400 munge/key
cat >slurm.conf <<X
ClusterName=moe
SlurmctldHost=$(hostname)(127.0.0.1)
SlurmctldPort=$port
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$work/munge/socket
StateSaveLocation=$work/state
SlurmctldPidFile=$work/slurmctld.pid
SlurmctldLogFile=$work/slurmctld.log
SlurmdSpoolDir=$work/spool.%n
SlurmdPidFile=$work/slurmd.%n.pid
SlurmdLogFile=$work/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
MpiParams=ports=$((port + 10))-$((port + 30))
ReturnToService=2
SlurmdParameters=config_overrides
SelectType=select/cons_tres
KillWait=5
NodeName=n0 NodeHostname=$(hostname) NodeAddr=127.0.0.1 Port=$((port + 1)) CPUs=2
NodeName=n1 NodeHostname=$(hostname) NodeAddr=127.0.0.1 Port=$((port + 2)) CPUs=2
PartitionName=all Nodes=ALL Default=YES State=UP
X
SLURM_CONF=$work/slurm.conf
export SLURM_CONF
munged --foreground --force --key-file="$work/munge/key" --socket="$work/munge/socket" --pid-file="$work/munge/pid" \
	--log-file="$work/munge/log" --seed-file="$work/munge/seed" >munge.out 2>&1 &
pids=$!

# until WORDS COMMAND...: it succeeds within 60 seconds.
until_so() {
	words=$1
	shift
	i=0
	while ! "$@" >/dev/null 2>&1 && [ $i -lt 600 ]; do
		sleep 0.1
		i=$((i + 1))
	done
	"$@" >/dev/null 2>&1
	ok $? "$words"
}
until_so "munged" [ -S munge/socket ]
slurmctld -D >slurmctld.out 2>&1 &
pids="$pids $!"
for node in n0 n1; do
	slurmd -D -N $node >slurmd.$node.out 2>&1 &
	pids="$pids $!"
done
idle() {
	[ "$(sinfo -h -o '%t %D')" = "idle 2" ]
}
until_so "two nodes" idle
idle || { sinfo 2>&1; tail -3 slurm*.log slurm*.out munge.out; finish; } | sed 's/^/# /'

# ---- a job

runs 0 "a set for two" moe-shard --devices 2 "$top/models/kjv-mixtral" shards
for i in 1 2 3; do
	echo "{\"id\": $i, \"prompt\": \"In the beginning $i\", \"max_tokens\": 12}"
done >requests
moe-route shards <requests >whole 2>/dev/null
moe-serve keygen server.key >/dev/null
moe-serve keygen client.key >authorized
MOE_OPTIONS="--server-key $work/server.key --authorized-keys $work/authorized --threads 1"
MOE_ROUTE_OPTIONS="--client-key $work/client.key --threads 1 --timeout 60"
export MOE_OPTIONS MOE_ROUTE_OPTIONS
job=$top/share/slurm/moe.sbatch

# Nodes of one machine have the same ports, so each gets an address of its own.
mkdir bin
cat >bin/moe-serve <<X
#!/bin/sh
for a; do
	shift
	[ "\$a" != 'tcp://*:env' ] || a=tcp://127.0.0.\$((\${SLURMD_NODENAME#n} + 1)):env
	set -- "\$@" "\$a"
done
exec $(command -v moe-serve) "\$@"
X
chmod 755 bin/moe-serve
PATH=$work/bin:$PATH

# submit REQUESTS: a job of two nodes; $id is its number, out.ID what it prints.
submit() {
	id=$(sbatch --parsable --nodes=2 --output="$work/out.%j" "$job" shards "$1" "answers")
}
state() {
	scontrol -o show job "$id" | sed -n 's/.*JobState=\([A-Z]*\).*/\1/p'
}
ended() {
	case $(state) in COMPLETED | FAILED | CANCELLED | TIMEOUT | NODE_FAIL) ;; *) false ;; esac
}
# ready RANK COUNT: so many times it was ready.
ready() {
	[ "$(grep -c "\"event\":\"ready\",\"rank\":$1," "out.$id")" -ge "$2" ]
}
pid_of() {
	sed -n "s/.*\"rank\":$1,.*\"pid\":\([0-9]*\).*/\1/p" "out.$id" | tail -1
}
gone() {
	! kill -0 "$(pid_of 0)" 2>/dev/null && ! kill -0 "$(pid_of 1)" 2>/dev/null
}

submit requests
until_so "a job of two servers and moe-route ends" ended
[ "$(state)" = COMPLETED ]
ok $? "well"
sed 's/^/# /' "out.$id"
[ "$(sed -n 's/.*"endpoint":"\([^"]*\)".*/\1/p' "out.$id" | sort | sed "s/:2[0-9]*\$/:RESERVED/;s/:3[0-9]*\$/:RESERVED/" | tr '\n' ' ')" = "tcp://127.0.0.1:RESERVED tcp://127.0.0.2:RESERVED " ]
ok $? "at ports that Slurm has reserved"
same "the same answers as without servers" whole answers
gone
ok $? "the servers are gone"
[ ! -e "moe-$id" ]
ok $? "and their files"

# ---- a rank that fails

mkfifo later
submit later
until_so "servers that wait for requests" ready 1 1
until_so "both" ready 0 1
kill -KILL "$(pid_of 1)"
until_so "a killed rank is started again" ready 1 2
has "which is reported" 'rank 1 ended with status 137 and is started again' "out.$id"
cat requests >later
until_so "its job ends" ended
[ "$(state)" = COMPLETED ]
ok $? "well"
same "with the same answers" whole answers

# ---- an end

submit later
until_so "another" ready 1 1
until_so "both" ready 0 1
runs 0 "scancel" scancel "$id"
until_so "ends the job" ended
until_so "and its servers" gone

# ---- two lines

srun --nodes=1 --ntasks=2 --ntasks-per-node=2 moe-serve --rank env --bind "tcp://127.0.0.1:$((port + 40))" $MOE_OPTIONS shards >out.two 2>err.two &
step=$!
id=two
echo "127.0.0.1 slots=2 port=$((port + 40))" >hosts
moe-route --hosts hosts $MOE_ROUTE_OPTIONS --server-key server.key.pub shards <requests >answers 2>err
same "srun alone: two tasks of one node at consecutive ports" whole answers
kill -TERM $step
wait $step
until_so "the end of srun is theirs" gone
finish
