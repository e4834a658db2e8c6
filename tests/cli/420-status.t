#!/bin/sh
# moe-serve status: how servers are, for people and for programs.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/../e2e/lib-serve.sh"
unset MOE_RANK SLURM_PROCID OMPI_COMM_WORLD_RANK PMI_RANK LWS_WORKER_INDEX

moe-bench synth --like tiny-mixtral "$work/model" >/dev/null 2>&1 && moe-shard --devices 2 -q "$work/model" "$work/shards" >/dev/null
ok $? "a set of two devices"
refuses "nobody serves it" "none of its servers has a default endpoint" moe-serve status "$work/shards"
serve_start "$work/shards"
ok $? "two servers"

runs 0 "both answer" moe-serve status "$work/shards"
has "a line for each" "^   1  ipc://.*-rank-1  serving " "$work/out"
[ "$(wc -l <"$work/out")" -eq 3 ]
ok $? "and one of headers"
runs 0 "fields of a hosts file's servers" moe-serve status --hosts "$hosts" -o rank,state,requests,epoch,queue_p50
printf '0\tserving\t0\t1\t0\n1\tserving\t0\t1\t0\n' >"$work/want"
same "as they were asked for" "$work/want" "$work/out"
moe-route --hosts "$hosts" -p "a b" -n 2 -q "$work/shards" >/dev/null
ok $? "a prompt"
moe-serve status --hosts "$hosts" -o requests,compute_p99,rows >"$work/out"
has "requests are counted and timed" "^[1-9][0-9]*	[0-9.e-]+	[1-9]" "$work/out"
runs 0 "JSON" moe-serve status --hosts "$hosts" --json
has "with all fields" '^\{"endpoint":"ipc:.*"state":"serving".*"memory":[1-9].*"draining":false.*"pid":[1-9].*\}$' "$work/out"
runs 0 "JSON of some fields" moe-serve status --json -o pid,trouble --hosts "$hosts"
has "and no others" '^\{"pid":[0-9]+,"trouble":""\}$' "$work/out"

echo "ipc://$work/run/nobody" >>"$hosts"
runs 1 "one of them does not answer" moe-serve status --hosts "$hosts" --timeout 0.3
has "which is said" "^ +-  ipc://.*/nobody +unreachable .* no answer within 0.3 s$" "$work/out"
runs 1 "only that one" moe-serve status --connect "ipc://$work/run/nobody" --timeout 0.1 -o state,rank,why
printf 'unreachable\t-\tno answer within 0.1 s\n' >"$work/want"
same "with what is known" "$work/want" "$work/out"

runs 0 "names of fields" moe-serve status -o help
has "one a line" "^queue_p99$" "$work/out"
runs 2 "a field that there is not" moe-serve status --hosts "$hosts" -o rank,speed
has "is named, with those that there are" "'speed' is none of endpoint, state" "$work/err"
runs 2 "an empty field" moe-serve status --hosts "$hosts" -o rank,
runs 2 "no servers named" moe-serve status
runs 2 "named twice" moe-serve status --hosts "$hosts" "$work/shards"
runs 2 "no endpoint" moe-serve status --connect nowhere
refuses "no such hosts file" "none: No such file" moe-serve status --hosts "$work/none" --timeout 0.1
serve_stop
ok $? "the end"
serve_start "$work/shards" --rate 0.01
ok $? "servers that take a message in 100 seconds"
runs 1 "are asked for more" moe-route --hosts "$hosts" -p "a b c" -n 8 --timeout 2 "$work/shards"
grep -q "over its rate of 0.01 messages a second" "$work/out" "$work/err"
ok $? "and say so"
serve_stop

mkdir "$work/in" && cd "$work/in" && cp -r "$work/shards" status
refuses "a folder of that name is given with its path" "status: none of its servers" moe-serve status ./status

finish
