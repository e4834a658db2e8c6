#!/bin/sh
# moe-route --check, for probes; and SIGHUP, which ends nothing.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib-serve.sh"

model=$top/models/kjv-mixtral
moe-shard -q --devices 2 "$model" "$work/shards" >/dev/null
ok $? "a shard set for two devices"
serve_start "$work/shards"
first=$hosts

runs 0 "two servers with everything" timeout 60 moe-route --check --hosts "$first" "$work/shards"
has "say so in one line" '^ok: 2 servers, [0-9]+ experts, each held 1 time at least, epoch [0-9]+, numerics sum2 ' "$work/out"
[ "$(wc -l <"$work/out")" -eq 1 ] && [ ! -s "$work/err" ]
ok $? "and nothing else"
runs 0 "with -v" timeout 60 moe-route --check -v --hosts "$first" "$work/shards"
[ "$(grep -c 'rank [01] ipc:' "$work/err")" -eq 2 ]
ok $? "the servers are listed"

moe-serve --bind "ipc://$work/run/more" --ready-file "$work/more" "$work/shards" >/dev/null 2>&1 </dev/null &
more=$!
pids="$pids $more"
tries=0
while [ ! -e "$work/more" ] && [ $tries -lt 600 ]; do
	sleep 0.1
	tries=$((tries + 1))
done
cat "$first" "$work/more" >"$work/both"
runs 0 "with replicas" timeout 60 moe-route --check --hosts "$work/both" "$work/shards"
has "they are counted" '^ok: 4 servers, .* each held 2 times at least' "$work/out"

head -1 "$first" >"$work/one"
refuses "an expert that nobody holds" 'moe-route: no server holds layer 0 expert [0-9]+' \
	timeout 60 moe-route --check --hosts "$work/one" --timeout 5 "$work/shards"
refuses "other numerics" 'moe-route: rank [0-9].*exact|moe-route: rank [0-9].*numerics' \
	timeout 60 moe-route --check --exact --hosts "$first" --timeout 5 "$work/shards"
refuses "nobody there" 'moe-route: .*nobody' timeout 60 moe-route --check --connect "ipc://$work/run/nobody" --timeout 0.5 "$work/shards"
runs 2 "no servers to look at" moe-route --check "$work/shards"
has "which is wrong usage" 'needs servers' "$work/err"
runs 2 "--check does not go with -p" moe-route --check --hosts "$first" -p And "$work/shards"

mkdir "$work/bare"
cp "$work/shards/manifest.json" "$work/shards"/*config.json "$work/bare"
runs 0 "no weights are needed" timeout 60 moe-route --check --hosts "$first" "$work/bare"

# SIGHUP, before and while requests are under way.
mkfifo "$work/in"
: >"$work/out"
moe-route --hosts "$work/both" --ctx 64 --unordered "$work/shards" <"$work/in" >"$work/out" 2>"$work/err" &
route=$!
pids="$pids $route"
exec 3>"$work/in"
answers() { # answers N: wait until there are so many
	tries=0
	while [ "$(wc -l <"$work/out")" -lt "$1" ] && [ $tries -lt 300 ]; do
		sleep 0.1
		tries=$((tries + 1))
	done
	[ "$(wc -l <"$work/out")" -eq "$1" ]
}
echo '{"id":1,"prompt":"And","max_tokens":2}' >&3
answers 1
ok $? "an answer"
kill -HUP "$route"
echo '{"id":2,"prompt":"And it came","max_tokens":40}' >&3
kill -HUP "$route"
answers 2
ok $? "and one after SIGHUP"
exec 3>&-
wait $route
ok $? "which ends nothing"
has "but is heard" 'list of servers' "$work/err"
kill "$more"
wait "$more"
serve_stop
finish
