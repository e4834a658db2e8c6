#!/bin/sh
# The decoder against Hugging Face transformers in float64 (tests/data/oracle), and the same bits however it is run.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib-serve.sh"

compare=${MOE_TESTS:-$top/build/release/tests}/tools/score-compare
[ -x "$compare" ] || { echo "Bail out! $compare is not built"; exit 1; }

# f32 activations, KV and wire, where that is a choice.
exact=
moe-route --help 2>&1 | grep -q -e '--exact' && exact=--exact

# compared WORDS MODE EXPECTED OUT: one check, the comparer's line as a diagnostic.
compared() {
	"$compare" "$2" "$3" "$4" >"$work/line" 2>"$work/why"
	s=$?
	ok $s "$1"
	sed 's/^/# /' "$work/line" "$work/why"
}

# route REQUESTS OUT OPTION... SHARDS
route() {
	route_in=$1
	route_out=$2
	shift 2
	moe-route -q "$@" <"$route_in" >"$route_out" 2>"$work/err" && return 0
	sed 's/^/# /' "$work/err" | head -3
	return 1
}

# identical WORDS OPTION... SHARDS: the bytes of $work/score again.
identical() {
	words=$1
	shift
	if route "$work/requests" "$work/again" $exact --score "$@"; then
		same "$words" "$work/score" "$work/again"
	else
		ok 1 "$words"
	fi
}

# served NAME N: N servers give the bytes of $work/score and $work/text.
served() {
	shards=$work/shards.$2
	if ! moe-shard -q --devices "$2" "$model" "$shards" >/dev/null 2>"$work/err"; then
		ok 1 "$1: shard set for $2 devices"
		sed 's/^/# /' "$work/err" | head -3
		return
	fi
	identical "$1: shard set of $2 devices, no servers" "$shards"
	if serve_start "$shards" $exact; then
		identical "$1: $2 servers" --hosts "$hosts" "$shards"
		identical "$1: $2 servers, --chunk 7, --threads 1" --hosts "$hosts" --chunk 7 --threads 1 "$shards"
		if route "$work/prompts" "$work/again" $exact --hosts "$hosts" "$shards"; then
			same "$1: $2 servers, greedy text" "$work/text" "$work/again"
		else
			ok 1 "$1: $2 servers, greedy text"
		fi
		serve_stop
		ok $? "$1: $2 servers end when told to"
	else
		ok 1 "$1: $2 servers start"
	fi
	rm -rf "$shards"
}

for folder in "$top"/tests/data/oracle/*/; do
	expected=${folder}expected.json
	[ -e "$expected" ] || continue
	name=$(basename "$folder")
	model=${folder%/}
	[ -e "$model/config.json" ] || model=$top/models/$name
	"$compare" requests "$expected" >"$work/requests"
	"$compare" prompts "$expected" >"$work/prompts"

	if ! route "$work/requests" "$work/score" $exact --score "$model"; then
		ok 1 "$name: log-probabilities"
		continue
	fi
	compared "$name: log-probabilities" score "$expected" "$work/score"
	if route "$work/prompts" "$work/text" $exact "$model"; then
		compared "$name: greedy text" greedy "$expected" "$work/text"
	else
		ok 1 "$name: greedy text"
	fi
	if [ -n "$exact" ] && route "$work/requests" "$work/again" --score "$model"; then
		if grep -q '"dtype": "f32"' "$expected"; then
			compared "$name: log-probabilities without --exact" score "$expected" "$work/again"
		else
			"$compare" loose "$expected" "$work/again" | sed 's/^/# without --exact: /'
		fi
	fi

	identical "$name: the same bits with --threads 1" --threads 1 "$model"
	identical "$name: the same bits with --threads 2" --threads 2 "$model"
	identical "$name: the same bits with --chunk 1" --chunk 1 "$model"
	identical "$name: the same bits with --chunk 7" --chunk 7 "$model"
	identical "$name: the same bits with --batch 1" --batch 1 "$model"
	case $name in
	mixtral-odd | qwen3-nonorm | qwen2-basic | olmoe-clip)
		for devices in 1 2 4; do
			served "$name" $devices
		done
		;;
	esac
done

finish
