#!/bin/sh
# A new epoch while requests are under way: loaded beside the old one, checked, taken over by the clients, and the tokens are the same.
# What is bad in an epoch changes nothing.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib-serve.sh"

model=$top/models/kjv-mixtral
set=$work/shards
moe-shard -q --devices 2 --placement round-robin "$model" "$set" >/dev/null
ok $? "a shard set for two devices"

i=0
while [ $i -lt 64 ]; do
	echo "{\"id\":$i,\"prompt\":\"And it came to pass in day $i\",\"max_tokens\":120,\"ignore_eos\":true}"
	i=$((i + 1))
done >"$work/requests"

# placed FIRST..: a file that has these experts of every layer on device 0, the others on device 1.
placed() {
	awk -v first="$*" 'BEGIN {
		n = split(first, f, " ")
		for (x = 0; x < 8; x++) on[x] = 1
		for (i = 1; i <= n; i++) on[f[i]] = 0
		row = on[0]
		for (x = 1; x < 8; x++) row = row ", " on[x]
		printf "{\"placement\": [[%s], [%s], [%s], [%s]]}\n", row, row, row, row
	}'
}

# stream NAME: all requests, in the background, some of them answered already.
stream() {
	moe-route --hosts "$hosts" --unordered --batch 8 --timeout 60 "$set" <"$work/requests" >"$work/out.$1" 2>"$work/err.$1" &
	route=$!
	pids="$pids $route"
	waits "$work/out.$1" 1 '"tokens"'
	ok $? "requests are under way"
}

sorted() {
	sort -t: -k2n "$1" >"$1.sorted"
}

serve_start "$set"
ok $? "two servers"
moe-route --hosts "$hosts" --batch 8 "$set" <"$work/requests" >"$work/want"
ok $? "the undisturbed run"
sorted "$work/want"

# ---- another placement, while they serve ----
stream moved
placed 0 2 4 5 >"$work/placed"
moe-shard -q --devices 2 --placement "$work/placed" "$set" "$set" >/dev/null
ok $? "a new epoch is written"
kill -HUP "$server"
waits "$work/serve.err" 2 'epoch 2, 16 experts: '
ok $? "both servers have taken epoch 2 over"
before=$(ls "$set" | wc -l)
moe-shard -q --gc "$set" >/dev/null
[ "$(ls "$set" | wc -l)" -lt "$before" ]
ok $? "the files of epoch 1 are removed"
wait $route
ok $? "moe-route ends well"
sorted "$work/out.moved"
same "the answers are those of the undisturbed run" "$work/want.sorted" "$work/out.moved.sorted"
has "what stayed was kept, what moved was loaded" 'rank 0: epoch 2: [0-9]+ experts? kept \(.*\), [0-9]+ loaded \(.*\) in ' "$work/serve.err"
kill -HUP "$server"
waits "$work/serve.err" 2 'epoch 2 is served already'
ok $? "told again, nothing is loaded"

# ---- bad epochs ----

# bad WORDS PATTERN: SIGHUP, and both servers go on with what they have.  $loaded: a file that only the bad epoch has.
bad() {
	seen=$(grep -Ec "$2" "$work/serve.err")
	kill -HUP "$server"
	waits "$work/serve.err" $((seen + 1)) "$2"
	ok $? "$1: refused in one line, the epoch before goes on"
}

stream bad
cp "$set/manifest.json" "$work/manifest.2"
placed 0 1 2 3 >"$work/placed"
moe-shard -q --devices 2 --placement "$work/placed" "$set" "$set" >/dev/null
cp "$set/manifest.json" "$work/manifest.3"
file=$(ls "$set"/experts-0000-*.safetensors | while read -r f; do grep -q "$(basename "$f")" "$work/manifest.2" || echo "$f"; done)
cp "$file" "$work/whole"

size=$(wc -c <"$file")
for at in 3 5 7 9 11 13 15; do
	printf '\377\377\377\377' | dd of="$file" bs=1 seek=$((size * at / 16 + 20000)) conv=notrunc 2>/dev/null
done
bad "flipped bytes" 'rank 0: not loaded: experts-0000-.*checksum differs \(layer [0-9]+, expert [0-9]+\); epoch 2 goes on'
mv "$file" "$file.away"
bad "a file that is not there" 'rank 0: not loaded: .*(No such file|no file that has it).*; epoch 2 goes on'
rm "$file.away"
cp "$work/whole" "$file"
sed 's/"probe": "................"/"probe": "0123456789abcdef"/' "$work/manifest.3" >"$set/manifest.json"
bad "wrong probes" 'rank 0: not loaded: .*answer to the probe is not what the manifest says.*; epoch 2 goes on'
sed 's/"fingerprint": "......../"fingerprint": "00000000/' "$work/manifest.3" >"$set/manifest.json"
bad "another model" 'rank 0: not loaded: .*another model.*; epoch 2 goes on'
sed 's/"epoch": 3/"epoch": 1/' "$work/manifest.3" >"$set/manifest.json"
bad "an older epoch" 'rank 0: not loaded: .*epoch 1 is older.*; epoch 2 goes on'
echo '{' >"$set/manifest.json"
bad "no manifest" 'rank 0: not loaded: .*manifest.json.*; epoch 2 goes on'

cp "$work/manifest.3" "$set/manifest.json"
kill -HUP "$server"
waits "$work/serve.err" 2 'epoch 3, 16 experts: '
ok $? "the same epoch, mended, is taken"
wait $route
ok $? "moe-route ends well"
sorted "$work/out.bad"
same "through all of this the answers were right" "$work/want.sorted" "$work/out.bad.sorted"
serve_stop
ok $? "the servers end with 0"

finish
