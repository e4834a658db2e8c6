#!/bin/sh
# fuzz.sh SECONDS TARGET...: run each libFuzzer target from its kept corpus, print executions and edges, fail on a finding.
seconds=$1
shift
work=$(mktemp -d "${TMPDIR:-/tmp}/moe-fuzz.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
bad=0
for target; do
	name=$(basename "$target")
	mkdir -p "$work/$name" "$work/$name.found"
	"$target" -max_total_time="$seconds" -max_len=65536 -rss_limit_mb=2048 -timeout=10 -print_final_stats=1 \
		-artifact_prefix="$work/$name.found/" "$work/$name" "tests/fuzz/corpus/$name" >"$work/$name.log" 2>&1
	status=$?
	runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$work/$name.log")
	edges=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$work/$name.log" | tail -n 1)
	found=$(ls "$work/$name.found" | wc -l)
	echo "fuzz $name: ${runs:-0} executions, ${edges:-0} edges, $found findings"
	if [ $status -ne 0 ] || [ "$found" -ne 0 ] || [ "${runs:-0}" -eq 0 ]; then
		bad=1
		tail -n 30 "$work/$name.log"
		for f in "$work/$name.found"/*; do
			[ -f "$f" ] && { echo "$f:"; base64 "$f" | head -n 40; }
		done
	fi
done
exit $bad
