#!/bin/sh
# --metrics: pages of servers and of moe-route, while it runs; what is counted agrees with what was asked; all of it is in moe-metrics(7).
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib-serve.sh"

# page ADDRESS PATH: its text on stdout, its status in $work/status.
page() {
	perl -MHTTP::Tiny -e 'my $r = HTTP::Tiny->new(timeout => 30)->get("http://$ARGV[0]$ARGV[1]"); print $r->{content};
		open my $f, ">", $ARGV[2]; print $f $r->{status}' "$1" "$2" "$work/status"
}

# check_page FILE WORDS: what promtool has to say of it.
check_page() {
	if command -v promtool >/dev/null; then
		promtool check metrics <"$1" >"$work/promtool" 2>&1
		s=$?
		ok $s "promtool has nothing to say of $2"
		[ $s -eq 0 ] || sed 's/^/# /' "$work/promtool"
	else
		skip "no promtool to check $2 with"
	fi
}

# value NAME FILE: the value of the series that begins so.
value() {
	awk -v name="$1" 'index($0, name) == 1 { sum += $NF } END { printf "%.17g\n", sum }' "$2"
}

moe-shard -q --devices 2 "$top/models/kjv-mixtral" "$work/shards" >/dev/null
serve_start "$work/shards" --metrics :0
ok $? "two servers with --metrics"
at0=$(sed -n 's/.*"rank":0,.*"metrics":"\([^"]*\)".*/\1/p' "$work/serve.out")
at1=$(sed -n 's/.*"rank":1,.*"metrics":"\([^"]*\)".*/\1/p' "$work/serve.out")
[ -n "$at0" ] && [ -n "$at1" ] && [ "$at0" != "$at1" ]
ok $? "each says where it can be asked"
page "$at0" /health >"$work/health"
[ "$(cat "$work/status")" = 200 ] && [ "$(cat "$work/health")" = ok ]
ok $? "a server that is ready is well"
page "$at1" / >"$work/list"
has "/ lists the pages" '^/metrics ' "$work/list"

# Input comes through a pipe that stays open, so that moe-route can be asked when it has answered.
: >"$work/answers"
mkfifo "$work/in"
moe-route --hosts "$hosts" --metrics 127.0.0.1:0 --metrics-experts "$work/shards" <"$work/in" >"$work/answers" 2>"$work/route.err" &
route=$!
pids="$pids $route"
exec 3>"$work/in"
i=0
while [ $i -lt 20 ]; do
	echo "{\"id\":$i,\"prompt\":\"And it came to pass\",\"max_tokens\":10,\"ignore_eos\":true}" >&3
	i=$((i + 1))
done
echo '{"id":"bad","tokens":[-1]}' >&3
tries=0
while [ "$(wc -l <"$work/answers")" -lt 21 ] && [ $tries -lt 600 ]; do
	sleep 0.1
	tries=$((tries + 1))
done
at=$(sed -n 's,.*metrics at http://\(.*\)/metrics$,\1,p' "$work/route.err")
page "$at" /metrics >"$work/route.txt"
page "$at" /health >"$work/health"
[ "$(cat "$work/status")" = 200 ] && [ "$(cat "$work/health")" = ok ]
ok $? "moe-route is well"
page "$at0" /metrics >"$work/serve0.txt"
page "$at1" /metrics >"$work/serve1.txt"

[ "$(value moe_generation_tokens_total "$work/route.txt")" = 200 ]
ok $? "200 tokens were generated"
[ "$(value moe_request_success_total "$work/route.txt")" = 20 ] && [ "$(value moe_request_errors_total "$work/route.txt")" = 1 ]
ok $? "20 requests succeeded, one was refused"
for h in time_to_first_token_seconds e2e_request_latency_seconds request_queue_time_seconds request_prefill_time_seconds \
	request_decode_time_seconds request_prompt_tokens request_generation_tokens; do
	[ "$(value "moe_${h}_count" "$work/route.txt")" = 20 ]
	ok $? "moe_$h has seen 20 requests"
done
[ "$(value moe_inter_token_latency_seconds_count "$work/route.txt")" = 180 ]
ok $? "and 180 times between tokens"
# Each row has two experts in each of four layers; rows found in the KV cache are not computed.
rows=$(awk '/^moe_serve_pairs_total/ { sum += $NF } END { print sum }' "$work/serve0.txt" "$work/serve1.txt")
[ "$(value moe_expert_tokens_total "$work/route.txt")" = "$rows" ]
ok $? "servers computed as many pairs as tokens chose experts"
[ "$(grep -c '^moe_placement_imbalance_ratio{' "$work/route.txt")" = 4 ]
ok $? "the balance of each layer is told"
grep -v '^#' "$work/route.txt" "$work/serve0.txt" "$work/serve1.txt" | grep -v 'model_name="shards"' >"$work/unnamed"
[ ! -s "$work/unnamed" ]
ok $? "every series names the model"
check_page "$work/route.txt" "moe-route's metrics"
check_page "$work/serve0.txt" "moe-serve's metrics"

wrong=
for name in $(sed -n 's/^# TYPE \([^ ]*\) .*/\1/p' "$work/route.txt" "$work/serve0.txt" | sort -u); do
	grep -Eq "(^|[ ,])$name( |$)" "$top/man/moe-metrics.7" || wrong="$wrong $name"
done
[ -z "$wrong" ]
ok $? "moe-metrics(7) has all of them"
[ -z "$wrong" ] || echo "# not there:$wrong"

# A server is gone: moe-route notices, though nothing is asked of it.
kill -KILL "$(sed -n 's/.*"rank":1,.*"pid":\([0-9]*\).*/\1/p' "$work/serve.out")"
tries=0
while page "$at" /health >"$work/health" && [ "$(cat "$work/status")" = 200 ] && [ $tries -lt 300 ]; do
	sleep 0.1
	tries=$((tries + 1))
done
[ "$(cat "$work/status")" = 503 ]
ok $? "without a server for every expert moe-route is not well"
has "and says why" 'experts have no server' "$work/health"

exec 3>&-
wait $route
[ $? -eq 1 ] && [ "$(grep -c '"finish_reason":"length"' "$work/answers")" = 20 ]
ok $? "moe-route ends with its input"
serve_stop

runs 2 "an address without a port" moe-serve --metrics localhost "$work/shards"
runs 2 "the same of moe-route" moe-route --metrics localhost "$work/shards"
runs 2 "experts without metrics" moe-route --metrics-experts "$work/shards"
serve_start "$work/shards" --ranks 0-0 --metrics :0
at0=$(sed -n 's/.*"metrics":"\([^"]*\)".*/\1/p' "$work/serve.out")
refuses "a port that is taken" "--metrics: $at0: cannot listen" timeout 60 moe-serve --rank 1 --metrics "$at0" "$work/shards"
refuses "the same of moe-route" "--metrics: $at0: cannot listen" timeout 60 moe-route --hosts "$hosts" --metrics "$at0" "$work/shards"
serve_stop
ok $? "the one that had it goes on"
finish
