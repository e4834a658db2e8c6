#!/bin/sh
# moe-shard: bad input, bad sets, bad places: one line, exit status 1, nothing left over.
. "$(dirname "$0")/../lib.sh"
cd "$work" || exit 1

moe-shard --devices 2 synth:tiny-mixtral set >/dev/null
moe-shard --merge set checkpoint >/dev/null
experts=$(basename set/experts-0001-*)
base=$(basename set/base-*)

# fresh: a copy of the good set to spoil.
fresh() {
	rm -rf bad
	cp -r set bad
}

# flip FILE OFFSET
flip() {
	b=$(od -An -tu1 -j"$2" -N1 "$1")
	printf "\\$(printf %o $(((b + 1) % 256)))" | dd of="$1" bs=1 seek="$2" conv=notrunc 2>/dev/null
}

# edit SED-SCRIPT: of the manifest
edit() {
	fresh
	sed "$1" set/manifest.json >bad/manifest.json
}

# ---- damage
fresh
flip "bad/$experts" $(($(stat -c %s "set/$experts") - 1))
refuses "a flipped byte in an expert is named" "$experts: checksum differs \(layer [0-9]+, expert [0-9]+\)" moe-shard --verify bad
refuses "a damaged set is not merged" 'fingerprint differs' moe-shard --merge bad merged
refuses "nor cut again" 'fingerprint differs' moe-shard --devices 3 bad recut
[ ! -e merged ] && [ ! -e recut ]
ok $? "and leaves nothing"
fresh
flip "bad/$base" $(($(stat -c %s "set/$base") - 1))
refuses "a flipped byte in the base is named" "$base: checksum differs" moe-shard --verify bad
fresh
flip "bad/$experts" 20
refuses "a flipped byte in a header too" "$experts: checksum differs" moe-shard --verify bad
fresh
truncate -s -1 "bad/$experts"
refuses "a file cut short" "$experts: has [0-9]+ bytes, the manifest says [0-9]+" moe-shard --verify bad
fresh
rm "bad/$experts"
refuses "a missing file" "$experts: No such file" moe-shard --verify bad
runs 0 "which another device does without" moe-shard --verify --device 0 bad
refuses "the device itself does not" "$experts: No such file" moe-shard --verify --device 1 bad
refuses "a device that there is none of" 'no file of device 2' moe-shard --verify --device 2 set
runs 2 "--device is for --verify" moe-shard --device 0 synth:tiny-mixtral out2
refuses "a missing file when merging" "$experts: No such file" moe-shard --merge bad merged
flip "bad/$base" 20
refuses "a base that is damaged is no device's" "$base: checksum differs" moe-shard --verify --device 0 bad
fresh
echo ' ' >>bad/config.json
refuses "a config.json that was edited" 'config.json: checksum differs' moe-shard --verify bad

# ---- manifests
edit 's/"schema": 1/"schema": 2/'
refuses "a newer schema" 'schema 2 is newer' moe-shard --verify bad
edit 's/"schema": 1/"schema": "1"/'
refuses "a schema that is no number" 'schema' moe-shard --verify bad
edit "s/$experts/..\/$experts/"
refuses "a file outside the folder" 'not that of a file in this folder' moe-shard --verify bad
edit 's/"hidden": [0-9]*/"hidden": 7/'
refuses "a manifest of another model" 'hidden 7' moe-shard --verify bad
edit 's/"fingerprint": "./"fingerprint": "X/'
refuses "a fingerprint that is none" 'fingerprint' moe-shard --verify bad
edit 's/"offset": 4096/"offset": 999999999/'
refuses "an expert outside its file" 'lies outside' moe-shard --verify bad
edit '$d'
refuses "a manifest cut short" 'manifest.json' moe-shard --verify bad
fresh
: >bad/manifest.json
refuses "an empty manifest" 'manifest.json' moe-shard --verify bad
refuses "is not replaced" 'manifest.json' moe-shard synth:tiny-mixtral bad
refuses "and nothing is collected by it" 'manifest.json' moe-shard --gc bad
[ -e "bad/$experts" ]
ok $? "the data is still there"
fresh
rm bad/config.json
refuses "no config.json" 'config.json' moe-shard --verify bad
refuses "a checkpoint is no shard set" 'not a shard set' moe-shard --verify checkpoint
refuses "nor can it be merged" 'not a shard set' moe-shard --merge checkpoint merged

# ---- checkpoints
refuses "no such folder" 'nowhere: No such file' moe-shard nowhere out2
refuses "a file instead of a folder" 'not a folder' moe-shard set/config.json out2
mkdir empty
refuses "an empty folder" 'empty' moe-shard empty out2
refuses "an unknown shape" 'no-such' moe-shard synth:no-such out2
cp -r checkpoint cut
truncate -s -1 cut/model.safetensors
refuses "a checkpoint cut short" 'model.safetensors' moe-shard cut out2
[ ! -e out2 ]
ok $? "nothing is left"

# ---- placements
echo '{"placement": [[0]]}' >p.json
refuses "a placement of another model" 'p.json: placement: 1 layers' moe-shard --placement p.json synth:tiny-mixtral out2
echo '{"expert_to_ep_rank": [0, 1, 2]}' >p.json
refuses "a list that is too short" 'p.json: .*3 experts' moe-shard --placement p.json synth:tiny-mixtral out2
runs 2 "no such placement" moe-shard --placement nothing.json synth:tiny-mixtral out2
has "says what there is" '--placement nothing.json: neither round-robin nor balanced' err
echo '{"schema": 9}' >p.json
refuses "a policy of the future" 'p.json: schema 9' moe-shard --policy p.json synth:tiny-mixtral out2

# ---- places
mkdir -p there
echo precious >there/file
refuses "a folder that is no shard set is not replaced" 'there: exists and is not a shard set' moe-shard synth:tiny-mixtral there
refuses "nor is it by a merge" 'there: exists already' moe-shard --merge set there
[ "$(ls -A there)" = file ]
ok $? "and is as it was"
refuses "nor is a file" 'exists and is not' moe-shard synth:tiny-mixtral p.json
refuses "nor anything by a merge" 'set: exists already' moe-shard --merge set set
refuses "a set of another model is not replaced" 'config.json: differs' moe-shard synth:tiny-olmoe set
runs 0 "and is still whole" moe-shard --verify set
refuses "no such parent" 'no/such: no such folder' moe-shard synth:tiny-mixtral no/such/out
if [ "$(id -u)" -eq 0 ] && mkdir full && mount -t tmpfs -o size=64k tmpfs full 2>/dev/null; then
	refuses "no room is told before" 'needed, .* free' moe-shard synth:tiny-mixtral full/out
	refuses "no room for a merge" 'needed, .* free' moe-shard --merge set full/out
	[ -z "$(ls full)" ]
	ok $? "and nothing is left"
	refuses "an empty folder that is the root of a file system" 'full: is the root' moe-shard synth:tiny-mixtral full
	umount full
else
	skip "no small file system to fill"
fi
if [ "$(id -u)" -ne 0 ]; then
	mkdir closed && chmod 555 closed
	refuses "a folder that may not be written" 'Permission denied' moe-shard synth:tiny-mixtral closed/out
else
	skip "root may write anywhere"
fi
if [ -w /dev/full ]; then
	moe-shard --info set >/dev/full 2>err
	[ $? -eq 1 ]
	ok $? "a result that cannot be printed is a failure"
fi

# ---- usage
for args in '' 'one' 'one two three' '--info' '--info a b' '--verify --info a' '--merge a' '--gc a b' \
	'--devices 0 a b' '--devices 5000 a b' '--devices x a b' '--threads 0 a b' '--policy p --devices 2 a b' \
	'--verify --devices 2 a' '--placement capacity --devices 2 a b' '--placement usage a b' \
	'--usage u a b' '--policy p --usage u a b' '--dry-run --verify a' '--bogus' '--layout r16 a b'; do
	# shellcheck disable=SC2086
	runs 2 "wrong usage: moe-shard $args" moe-shard $args
done
has "capacity is explained" 'moe-policy' /dev/stdin <<X
$(moe-shard --placement capacity --devices 2 a b 2>&1)
X
runs 0 "--help" moe-shard --help
has "names the modes" '--merge' out
ls -d ./*tmp-* >left 2>/dev/null
[ ! -s left ]
ok $? "nothing temporary is left"
finish
