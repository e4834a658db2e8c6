#!/bin/sh
# Bad input is refused: one line that names what is bad, exit status 1, nothing half done, no crash, nothing hangs.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib-serve.sh"

LC_ALL=C
export LC_ALL
good=$work/good
set=$work/set
mkdir "$work/cuts"
echo '{"tokens":[1,2,3]}' >"$work/request"

# try PROGRAM PATH: run what PROGRAM stands for; `run COMMAND...` is COMMAND.  A crash is a status of 128 or more, 124 a
# program that hangs.
try() {
	case $1 in
	info) set -- moe-shard --info "$2" ;;
	cut) set -- moe-shard -q --devices 2 "$2" "$work/cuts/out" ;;
	verify) set -- moe-shard -q --verify "$2" ;;
	merge) set -- moe-shard -q --merge "$2" "$work/cuts/out" ;;
	gc) set -- moe-shard --gc "$2" ;;
	score) set -- moe-route --score "$2" ;;
	prompt) set -- moe-route -p "hello he" -n 1 "$2" ;;
	sample) set -- moe-route --temp 0.9 --top-k 40 --top-p 0.9 --min-p 0.01 -p "hello he" -n 3 --ignore-eos "$2" ;;
	serve) set -- moe-serve --rank 0 --bind "ipc://$work/socket" "$2" ;;
	plan) set -- moe-policy --model "$2" --devices 2 ;;
	policy) set -- moe-shard -q --policy "$2" "$good" "$work/cuts/out" ;;
	placement) set -- moe-shard -q --devices 2 --placement "$2" "$good" "$work/cuts/out" ;;
	hardware) set -- moe-policy --model "$good" --hardware "$2" ;;
	hosts) set -- moe-route --hosts "$2" --timeout 0.5 -p he "$good" ;;
	like) set -- moe-bench synth --config "$2/config.json" "$work/cuts/out" ;;
	run) shift ;;
	esac
	timeout 20 "$@" >"$work/out" 2>"$work/err" <"$work/request"
	status=$?
}

# left_over: is there anything in the folder for outputs?  It is empty afterwards.
left_over() {
	set -- "$work/cuts"/* "$work/cuts"/.[!.]*
	[ -e "$1" ] || [ -e "$2" ] || return 1
	rm -rf "$work/cuts"
	mkdir "$work/cuts"
}

# refused PATTERN PROGRAM PATH: status 1; one clean line on stderr, from the tool, that matches; nothing on stdout or left
# over.  Otherwise says why.
refused() {
	pattern=$1
	shift
	try "$@"
	first=
	second=
	{
		IFS= read -r first
		IFS= read -r second
	} <"$work/err"
	wrong=
	[ $status -eq 1 ] || wrong=" status $status"
	[ -n "$first" ] || wrong="$wrong no message"
	[ -z "$second" ] || wrong="$wrong more than a line"
	[ ! -s "$work/out" ] || wrong="$wrong output"
	! left_over || wrong="$wrong left-over files"
	grep -Eaq -- "^moe-[a-z]+( synth)?: .*($pattern)" "$work/err" || wrong="$wrong words"
	case $first in *[[:cntrl:]]*) wrong="$wrong control characters" ;; esac
	[ -n "$wrong" ] || return 0
	echo "# $1:$wrong: $(head -c 400 "$work/err" | tr -c ' -~' ' ')"
	return 1
}

accepted() {
	try "$@"
	left_over
	[ $status -ne 0 ] || return 0
	echo "# $1: status $status: $(head -c 400 "$work/err" | tr -c ' -~' ' ')"
	return 1
}

# survived PROGRAM PATH: an answer or an error; what is printed is JSON, whatever the numbers were.
survived() {
	try "$@"
	if [ $status -le 1 ] && ! grep -qv '^moe-' "$work/err" && [ "$(wc -l <"$work/err")" -le 1 ] && ! grep -Eqi '[:,[]-?(nan|inf)' "$work/out"; then return 0; fi
	echo "# $1: status $status: $(head -c 400 "$work/err" | tr -c ' -~' ' ')"
	return 1
}

# every LIST: a check for each row of what malformed.pl printed.
every() {
	while IFS='	' read -r want with path words pattern; do
		good_so_far=0
		for program in $with; do
			case $want in
			no) refused "$pattern" "$program" "$path" ;;
			yes) accepted "$program" "$path" ;;
			any) survived "$program" "$path" ;;
			esac || good_so_far=1
		done >"$work/why"
		ok $good_so_far "$words"
		cat "$work/why"
	done <"$1"
	rm -rf "$work/bad"
}

# cases WHAT ARG...: all of malformed.pl's.
cases() {
	perl "$top/tests/e2e/malformed.pl" "$@" "$work/bad" >"$work/list" 2>"$work/err" && [ -s "$work/list" ]
	ok $? "cases: $1"
	head -3 "$work/err"
	every "$work/list"
}

# no WORDS PATTERN COMMAND...: one more refusal.
no() {
	words=$1
	shift
	pattern=$1
	shift
	refused "$pattern" run "$@" >"$work/why"
	ok $? "$words"
	cat "$work/why"
}

moe-bench synth --like tiny-mixtral --seed 1 "$good" && moe-shard -q --devices 2 "$good" "$set" >/dev/null
ok $? "a good checkpoint and a good shard set"

cases checkpoints "$good"
mkdir "$work/families"
moe-bench synth --like tiny-mixtral --fused "$work/families/fused"
moe-bench synth --like tiny-qwen2-moe "$work/families/qwen2"
moe-bench synth --like tiny-qwen3-moe "$work/families/qwen3"
moe-bench synth --like tiny-olmoe "$work/families/olmoe"
cases families "$work/families"
cases text "$good"
cases shards "$set"
moe-policy --model "$good" --devices 2 >"$work/policy.json"
cases policies "$work/policy.json"
cases hardware
cases hosts

# What a tokenizer may do to a prompt.
perl "$top/tests/e2e/malformed.pl" text "$good" "$work/bad" >"$work/list"
no "a pattern that would search for hours" 'tokenizer|pattern|prompt|match' moe-route -p "$(printf '%05000d' 0 | tr 0 a)" -n 1 "$work/bad/slow"
no "a token beyond the model's" '9999999.*331|tokenizer' moe-route -p he -n 1 "$work/bad/more"
rm -rf "$work/bad"

cases numbers "$good"

# A file that is cut short while it is in use.
shrink() {
	words=$1
	cut=$2
	shift 2
	mkfifo "$work/in.$n"
	: >"$work/out"
	timeout 30 moe-route "$@" <"$work/in.$n" >"$work/out" 2>"$work/err" &
	p=$!
	exec 9>"$work/in.$n"
	echo '{"id":"before","tokens":[1,2,3],"max_tokens":2}' >&9
	i=0
	while ! [ -s "$work/out" ] && [ $i -lt 100 ]; do
		sleep 0.1
		i=$((i + 1))
	done
	truncate -s 4096 "$cut"
	echo '{"id":"after","tokens":[4,5,6,7,8,9],"max_tokens":2}' >&9
	exec 9>&-
	wait $p
	status=$?
	[ $status -eq 1 ]
	ok $? "$words: status 1"
	[ "$(wc -l <"$work/out")" -eq 2 ] && sed -n 1p "$work/out" | grep -q '"before".*"length"'
	ok $? "$words: the answer before stands"
	sed -n 2p "$work/out" | cat - "$work/err" | grep -q "$(basename "$cut").*cut short"
	s=$?
	ok $s "$words: the one after is an error that names the file"
	[ $s -eq 0 ] || { echo "# status $status" && cat "$work/out" "$work/err" | head -5 | sed 's/^/# /'; }
}
cp -r "$good" "$work/short"
shrink "a checkpoint cut short" "$work/short/model.safetensors" "$work/short"
rm -rf "$work/short"
for role in base experts-0001; do
	cp -r "$set" "$work/short"
	shrink "a shard set's $role cut short" "$(ls "$work/short/$role"*)" "$work/short"
	rm -rf "$work/short"
done
cp -r "$set" "$work/short"
serve_start "$work/short"
shrink "a server's file cut short" "$(ls "$work/short/experts-0000"*)" --hosts "$hosts" "$set"
serve_stop
rm -rf "$work/short"

# Servers of another model, of another epoch of the same.
moe-bench synth --like tiny-mixtral --seed 2 "$work/other"
moe-shard -q --devices 2 "$work/other" "$work/other-set" >/dev/null
cp -r "$set" "$work/later"
perl "$top/tests/e2e/malformed.pl" epoch "$work/later" 7
serve_start "$work/other-set"
no "servers of another model" 'fingerprint' moe-route --hosts "$hosts" --timeout 5 -p he -n 1 "$set"
serve_stop
ok $? "those servers live on and end with status 0"
serve_start "$work/later"
runs 0 "servers of another epoch of the same model" timeout 20 moe-route --hosts "$hosts" --timeout 5 -p he -n 1 "$set"
cp "$work/out" "$work/out.epoch"
runs 0 "and of the same" timeout 20 moe-route --hosts "$hosts" --timeout 5 -p he -n 1 "$work/later"
same "answer the same" "$work/out" "$work/out.epoch"
no "only one of two servers" 'expert' moe-route --connect "$(head -1 "$hosts")" --timeout 5 -p he -n 1 "$work/later"
runs 2 "the same server twice is wrong usage" moe-route --connect "$(head -1 "$hosts")" --connect "$(head -1 "$hosts")" -p he -n 1 "$work/later"
has "and is named" "listed twice" "$work/err"
serve_stop
no "a server that is none" 'ipc:|socket' moe-route --connect "ipc://$work/request" --timeout 0.5 -p he -n 1 "$set"
no "a rank that the set does not have" 'rank 2|device' moe-serve --rank 2 "$set"
no "ranks that the set does not have" '1-2|rank|device' moe-serve --ranks 1-2 "$set"
for r in x -1 '' 99999999999999999999 2; do
	no "SLURM_PROCID=$r" 'SLURM_PROCID|rank' env SLURM_PROCID="$r" moe-serve --rank env "$set"
done
no "an endpoint that others can reach, without keys" 'insecure' moe-serve --rank 0 --bind tcp://127.0.0.1:0 "$set"
no "a socket where a file is" 'request' moe-serve --rank 0 --bind "ipc://$work/request" "$set"
[ -s "$work/request" ]
ok $? "that file is still there"

# Damage that only checksums see.
for x in '0 0' '1 4'; do
	cp -r "$set" "$work/damaged"
	file=$(perl "$top/tests/e2e/malformed.pl" flip "$work/damaged" $x)
	no "a changed byte in layer ${x% *}, expert ${x#* }" "$file.*layer ${x% *}.*expert ${x#* }" moe-shard -q --verify "$work/damaged"
	rm -rf "$work/damaged"
done
for f in base-*.safetensors config.json tokenizer.json; do
	cp -r "$set" "$work/damaged"
	f=$(cd "$set" && echo $f)
	perl -e 'open F, "+<", $ARGV[0]; seek F, -9, 2; read F, $c, 1; seek F, -9, 2; print F chr(ord($c) ^ 1)' "$work/damaged/$f"
	no "a changed byte in $f" "$f" moe-shard -q --verify "$work/damaged"
	rm -rf "$work/damaged"
done

# Where a shard set cannot be written: the old is left as it was, the new is not there.
no "a folder that is no shard set" "$work" moe-shard -q "$good" "$work"
no "onto the checkpoint itself" 'good' moe-shard -q "$good" "$good"
no "a file" 'request' moe-shard -q "$good" "$work/request"
no "below a file" 'request' moe-shard -q "$good" "$work/request/out"
no "below nothing" 'nowhere' moe-shard -q "$good" "$work/nowhere/out"
no "a checkpoint onto a shard set of another shape" 'other-set' moe-shard -q "$work/families/olmoe" "$work/other-set"
no "merged onto something" "good" moe-shard -q --merge "$set" "$good"
no "a merge of a checkpoint" "good" moe-shard -q --merge "$good" "$work/cuts/out"
no "checksums of a checkpoint" "good" moe-shard -q --verify "$good"
no "cleaning a checkpoint" "good" moe-shard -q --gc "$good"
no "cleaning a folder of something else" "$work" moe-shard -q --gc "$work"
no "a shard set of files that may not grow that large" 'out.*large' sh -c 'ulimit -f 40; exec moe-shard -q "$1" "$2"' sh "$good" "$work/cuts/out"
no "a checkpoint of files that may not grow that large" 'out.*large' sh -c 'ulimit -f 40; exec moe-bench synth --like tiny-mixtral "$1"' sh "$work/cuts/out"

# Peers that speak garbage.  A server lives on and serves others; a client says which server it was.
serve_start "$set"
for rank in $(sed 's|^ipc://||' "$hosts"); do
	perl "$top/tests/e2e/malformed.pl" garbage "$rank"
done
runs 0 "servers that were sent garbage serve others" timeout 20 moe-route --hosts "$hosts" --timeout 10 -p he -n 1 "$set"
serve_stop
ok $? "and end with status 0"
for mode in silent closes junk greets messages long; do
	rm -f "$work/run/fake"
	perl "$top/tests/e2e/malformed.pl" fake "$work/run/fake" $mode &
	p=$!
	pids="$pids $p"
	i=0
	while [ ! -S "$work/run/fake" ] && [ $i -lt 100 ]; do
		sleep 0.1
		i=$((i + 1))
	done
	no "a server that is none: $mode" 'fake' moe-route --connect "ipc://$work/run/fake" --timeout 0.5 -p he -n 1 "$set"
	kill $p
	wait $p 2>/dev/null
done
mkdir "$work/full"
if unshare -rm mount -t tmpfs none "$work/full" 2>/dev/null; then
	unshare -rm sh -c 'mount -t tmpfs -o size=200k none "$1/full" && timeout 20 moe-shard -q "$1/good" "$1/full/out" 2>"$1/err"; echo $? >"$1/status"; ls -A "$1/full" >"$1/left"' sh "$work"
	[ "$(cat "$work/status")" -eq 1 ] && [ "$(wc -l <"$work/err")" -eq 1 ] && grep -q '^moe-shard: ' "$work/err" && [ ! -s "$work/left" ]
	s=$?
	ok $s "a full disk: one line, and nothing is left on it"
	[ $s -eq 0 ] || sed 's/^/# /' "$work/status" "$work/err" "$work/left"
else
	skip "no disk to fill: mounting is not allowed here"
fi

# Shapes and names given on the command line.
for spec in '' , tiny-mixtral, nonsense tiny-mixtral,layers=0 tiny-mixtral,layers=-1 tiny-mixtral,layers=1e9 tiny-mixtral,layers=99999999999999999999 \
	tiny-mixtral,layers tiny-mixtral,seed=x tiny-mixtral,seed=-1 tiny-mixtral,dtype=q1 tiny-mixtral,nonsense=1 tiny-mixtral,fused=2 mixtral-8x22b,layers=4096; do
	no "synth:$spec" 'synth' moe-route -p he -n 1 "synth:$spec"
done
sed 's/"num_hidden_layers": *[0-9]*/"num_hidden_layers":4096/;s/"intermediate_size": *[0-9]*/"intermediate_size":1000000/;s/"hidden_size": *[0-9]*/"hidden_size":60000/' "$good/config.json" >"$work/huge.json"
no "a checkpoint larger than any disk" 'needed.*free' moe-bench synth --config "$work/huge.json" "$work/cuts/out"
for v in 0 -1 1e300 1.5 '"x"' 1099511627776; do
	for k in hidden_size num_hidden_layers num_local_experts vocab_size; do
		sed "s/\"$k\": *[0-9]*/\"$k\":$v/" "$good/config.json" >"$work/shape.json"
		no "the shape of a config with $k $v" 'shape.json' moe-bench synth --config "$work/shape.json" "$work/cuts/out"
	done
done
finish
