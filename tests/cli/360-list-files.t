#!/bin/sh
# moe-shard --list-files: what is listed for a host is what it needs, and nothing else.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/../e2e/lib-serve.sh"
unset MOE_RANK SLURM_PROCID OMPI_COMM_WORLD_RANK PMI_RANK LWS_WORKER_INDEX NOTIFY_SOCKET
cd "$work" || exit 1

# list WORDS PATTERN OPTION...: the names that are listed, on one line, match.
list() {
	words=$1
	pattern=$2
	shift 2
	moe-shard --list-files "$@" set >out 2>err || sed 's/^/# /' err
	tr '\n' ' ' <out >line
	has "$words" "^$pattern \$" line
}

hash='[0-9a-f]+\.safetensors'
runs 0 "a checkpoint with a tokenizer" moe-shard --devices 3 "$top/models/kjv-mixtral" set
e0="experts-0000-$hash" e1="experts-0001-$hash" e2="experts-0002-$hash"
texts=$(cd set && ls | grep -v safetensors | grep -v manifest | tr '\n' ' ' | sed 's/\./\\./g')
list "a server: its experts, config.json, the manifest last" "$e1 config\.json manifest\.json" --device 1
list "two of them" "$e0 $e2 config\.json manifest\.json" --device 0,2
list "moe-route: no experts, but all texts" "base-$hash ${texts}manifest\.json" --base
list "both on one host" "base-$hash $e2 ${texts}manifest\.json" --base --device 2
list "all" "base-$hash $e0 $e1 $e2 ${texts}manifest\.json"
ls set | sort >all
sort out >listed
same "all there are" all listed

# ---- hosts, by a hosts file and by a policy

cat >hosts <<'X'
# two on the first
big slots=2 port=6000
tcp://small:5555
X
list "a host's two" "$e0 $e1 config\.json manifest\.json" --hosts hosts --host big
list "another's one" "$e2 config\.json manifest\.json" --hosts hosts --host small
refuses "a host that is not in it" "hosts: no device on host 'smal'" moe-shard --list-files --hosts hosts --host smal set
echo big slots=2 >two
refuses "a file of another fleet" 'two: has 2 devices, set was cut for 3' moe-shard --list-files --hosts two --host big set
cat >hardware.json <<'X'
{"hosts": [{"name": "h0", "levels": [{"name": "cpu", "memory": 68719476736}]}, {"name": "h1", "levels": [{"name": "cpu", "memory": 68719476736}]},
           {"name": "h2", "levels": [{"name": "cpu", "memory": 68719476736}]}]}
X
moe-policy --model "$top/models/kjv-mixtral" --hardware hardware.json >policy.json 2>err || sed 's/^/# /' err
list "a policy's host" "$e1 config\.json manifest\.json" --policy policy.json --host h1

# ---- what makes no sense

refuses "a device that there is none of" 'device 3: set has 3 devices' moe-shard --list-files --device 1,3 set
refuses "what is no set" 'is not a shard set' moe-shard --list-files "$top/models/kjv-mixtral"
runs 2 "no list of devices" moe-shard --list-files --device 1,x set
for args in '--list-files --host a' '--list-files --hosts hosts' '--list-files --policy p --hosts hosts --host a' \
	'--list-files --host a --hosts hosts --device 1' '--base a b' '--list-files --verify' '--list-files --quant q8' \
	'--verify --device 0,1'; do
	runs 2 "wrong usage: $args" moe-shard $args set
done

# ---- a copy with only these files serves, and another one routes

# copy NAME OPTION...: the listed files, as an operator would copy them
copy() {
	to=$1
	shift
	mkdir "$to"
	if command -v rsync >/dev/null 2>&1; then
		moe-shard --list-files "$@" set | rsync -a --files-from=- set/ "$to/"
	else
		moe-shard --list-files "$@" set | tar -C set -cf - -T - | tar -C "$to" -xf -
	fi
}
for d in 0 1 2; do
	copy host$d --device $d
	moe-serve --rank $d host$d >ready.$d 2>serve.err.$d </dev/null &
	pids="$pids $!"
done
copy router --base
for d in 0 1 2; do
	i=0
	while [ ! -s ready.$d ] && [ $i -lt 300 ]; do
		sleep 0.1
		i=$((i + 1))
	done
	[ -s ready.$d ]
	ok $? "rank $d serves with its own files only"
done
sed 's/.*"endpoint":"\([^"]*\)".*/\1/' ready.0 ready.1 ready.2 >fleet
moe-route -p "In the beginning" -n 8 set >whole 2>err
runs 0 "moe-route has no experts" moe-route --hosts fleet --timeout 60 -p "In the beginning" -n 8 router
same "and gives the same answer" whole out
finish
