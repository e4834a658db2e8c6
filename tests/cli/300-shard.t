#!/bin/sh
# moe-shard: sets are written, read back, merged; whatever the placement, the same tensors.
. "$(dirname "$0")/../lib.sh"
cd "$work" || exit 1

# field KEY FILE: a member of a one-line report, without jq.
field() {
	sed -n "s/.*\"$1\": *\"\{0,1\}\([^\",}]*\).*/\1/p" "$2" | head -1
}

for family in tiny-mixtral tiny-qwen3-moe tiny-qwen2-moe tiny-olmoe tiny-mixtral,fused tiny-qwen3-moe,fused; do
	runs 0 "$family: one device" moe-shard "synth:$family" "$family.1"
	one=$(field fingerprint out)
	has "$family: the report is one line of JSON" '^\{"out":.*"devices":1,.*"epoch":1\}$' out
	for devices in 2 3; do
		runs 0 "$family: $devices devices" moe-shard --devices $devices "synth:$family" "$family.$devices"
		[ "$(field fingerprint out)" = "$one" ]
		ok $? "$family: the same fingerprint"
		runs 0 "$family: $devices devices verify" moe-shard --verify "$family.$devices"
	done
	runs 0 "$family: merged" moe-shard --merge "$family.3" "$family.merged"
	runs 0 "$family: merged from one device" moe-shard --merge "$family.1" "$family.merged1"
	same "$family: the same checkpoint from any set" "$family.merged/model.safetensors" "$family.merged1/model.safetensors"
	same "$family: with its config.json" "$family.1/config.json" "$family.merged/config.json"
	runs 0 "$family: the merged checkpoint is cut again" moe-shard --devices 2 "$family.merged" "$family.again"
	[ "$(field fingerprint out)" = "$one" ]
	ok $? "$family: and has the first fingerprint"
	(cd "$family.2" && ls -- *.safetensors) >names.2
	(cd "$family.again" && ls -- *.safetensors) >names.again
	same "$family: and the same files" names.2 names.again
	runs 0 "$family: a set is cut again without the checkpoint" moe-shard --devices 2 "$family.3" "$family.recut"
	(cd "$family.recut" && ls -- *.safetensors) >names.recut
	same "$family: into the same files" names.2 names.recut
done

# The safetensors files are plain: header length, JSON, data from a whole page on.
f=$(ls tiny-mixtral.2/experts-0001-*.safetensors)
len=$(od -An -tu8 -N8 "$f" | tr -d ' ')
[ $(((len + 8) % 4096)) -eq 0 ]
ok $? "data starts at a multiple of 4096"
head -c "$((len + 8))" "$f" | tail -c "$len" >header
has "tensors keep their Hugging Face names" 'model.layers.0.block_sparse_moe.experts.[0-9]+.w1.weight' header
f=$(ls tiny-mixtral,fused.2/experts-0001-*.safetensors)
head -c 65536 "$f" | tr -d '\0' | head -c 20000 >header
has "parts of fused tensors are NAME.E" 'gate_up_proj\.[0-9]+"' header
if command -v xxh128sum >/dev/null 2>&1; then
	f=$(ls tiny-mixtral.1/base-*.safetensors)
	sum=$(xxh128sum "$f" | cut -c1-16)
	[ "tiny-mixtral.1/base-$sum.safetensors" = "$f" ]
	ok $? "names carry the checksum that xxh128sum prints"
else
	skip "no xxh128sum"
fi

# Placements.
runs 0 "round robin" moe-shard --devices 3 --placement round-robin synth:tiny-mixtral rr
has "says so in the manifest" '"placement"' rr/manifest.json
runs 0 "more devices than experts" moe-shard --devices 40 synth:tiny-mixtral many
runs 0 "are verified" moe-shard --verify many
runs 0 "and merged" moe-shard --merge many many.merged
same "to the same checkpoint" tiny-mixtral.merged/model.safetensors many.merged/model.safetensors
moe-policy --model tiny-mixtral --devices 2 >policy.json 2>err
sed 's/"memory": 0/"memory": 1000/' policy.json >small.json
refuses "a policy whose device is too small" 'small.json: device 0: .* needed, .* available' moe-shard --policy small.json synth:tiny-mixtral too-small
[ ! -e too-small ]
ok $? "nothing is written"
runs 0 "a policy's placement" moe-shard --policy policy.json synth:tiny-mixtral by-policy
(cd by-policy && ls -- experts*) >a
(cd tiny-mixtral.2 && ls -- experts*) >b
same "is what --devices 2 gives" a b
runs 0 "--info of a checkpoint" moe-shard --info synth:tiny-mixtral
experts=$(field experts out)
layers=$(field layers out)
rank=0
e=1
while [ $e -lt "$experts" ]; do
	rank="$rank, $((e % 2))"
	e=$((e + 1))
done
echo "{\"expert_to_ep_rank\": [$rank]}" >rank.json
runs 0 "a file with one list for all layers" moe-shard --placement rank.json synth:tiny-mixtral by-rank
runs 0 "is verified" moe-shard --verify by-rank
row="[[0, 1]"
e=1
while [ $e -lt "$experts" ]; do
	row="$row, $((e % 2))"
	e=$((e + 1))
done
rows="$row]"
l=1
while [ $l -lt "$layers" ]; do
	rows="$rows, $row]"
	l=$((l + 1))
done
echo "{\"placement\": [$rows]}" >replica.json
runs 0 "expert 0 on both devices" moe-shard --placement replica.json synth:tiny-mixtral replicas
runs 0 "is verified" moe-shard --verify replicas
runs 0 "and merged" moe-shard --merge replicas replicas.merged
same "to the same checkpoint" tiny-mixtral.merged/model.safetensors replicas.merged/model.safetensors

# By use: experts 0 and 1 have half of the load each.
cat >usage.json <<X
{"schema": 1, "format": "moe-usage", "model": "mixtral",
 "prefill": [$(yes '[50, 50, 1, 1, 1]' | head -$layers | paste -sd,)],
 "decode": [$(yes '[0, 0, 0, 0, 0]' | head -$layers | paste -sd,)],
 "mass": [$(yes '[0, 0, 0, 0, 0]' | head -$layers | paste -sd,)]}
X
runs 0 "a placement by use" moe-shard --devices 2 --placement usage --usage usage.json synth:tiny-mixtral by-usage
has "parts what is used most" '\[(0, 1, |1, 0, )' by-usage/manifest.json
runs 0 "is verified" moe-shard --verify by-usage
refuses "usage of another model" 'usage.json: ' moe-shard --devices 2 --placement usage --usage usage.json synth:tiny-qwen2-moe other

# A set is replaced in place.
runs 0 "written again with two devices" moe-shard --devices 2 synth:tiny-mixtral rr
has "the next epoch" '"epoch":2' out
runs 0 "verifies" moe-shard --verify rr
[ "$(ls rr | grep -c '^base-')" -eq 1 ] && [ "$(ls rr | grep -c '^experts-')" -eq 5 ]
ok $? "the same base is kept, new files lie beside the old"
mkdir empty hollow
runs 0 "a set in an empty folder" moe-shard --devices 3 --placement round-robin synth:tiny-mixtral empty/
runs 0 "is whole" moe-shard --verify empty
runs 0 "a checkpoint in one" moe-shard --merge empty hollow
[ -f hollow/model.safetensors ] && [ -z "$(ls -d ./*tmp-* 2>/dev/null)" ]
ok $? "is there, and nothing else"
runs 0 "a set cut again in place" moe-shard --devices 3 --placement round-robin rr rr
runs 0 "verifies too" moe-shard --verify rr
runs 0 "--gc --dry-run" moe-shard --gc --dry-run rr
[ "$(wc -l <out)" -eq 2 ] && [ "$(ls rr | grep -c '^experts-')" -eq 5 ]
ok $? "names what no manifest names, and removes nothing"
touch rr/notes.txt rr/manifest.json.tmp-1999999999
mkdir rr.tmp-99999999
echo x >rr.tmp-99999999/base.part
runs 0 "--gc" moe-shard --gc rr
[ "$(ls rr | grep -c '^experts-')" -eq 3 ] && [ -e rr/notes.txt ] && [ ! -e rr.tmp-99999999 ]
ok $? "removes old data files and left-overs, and nothing else"
runs 0 "still whole" moe-shard --verify rr

# A damaged file is written anew, not kept for its name.
f=$(ls rr/experts-0001-*.safetensors)
printf X | dd of="$f" bs=1 seek=5000 conv=notrunc 2>/dev/null
runs 0 "cut again over a damaged file" moe-shard --devices 3 --placement round-robin synth:tiny-mixtral rr
runs 0 "repairs it" moe-shard --verify rr

# Only looking.
runs 0 "--dry-run" moe-shard --dry-run --devices 2 synth:tiny-mixtral dry
has "tells what would be written" '"files":3.*"dry_run":true' out
[ ! -e dry ]
ok $? "and writes nothing"
runs 0 "--info of a set" moe-shard --info tiny-mixtral.2
if command -v jq >/dev/null 2>&1; then
	jq -e '.kind == "shards" and (.files | length) == 3 and .parameters > .active_parameters and
	       .bytes.total == .bytes.base + .bytes.experts and (.fingerprint | length) == 32' out >/dev/null
	ok $? "says what is in it"
else
	skip "no jq"
fi
rm tiny-mixtral.2/experts-0001-*
runs 0 "--info of a set that is here in part" moe-shard --info tiny-mixtral.2
has "says which file is not" '"present": false' out
ls -d ./*tmp-* >left 2>/dev/null
[ ! -s left ]
ok $? "nothing temporary is left"
finish
