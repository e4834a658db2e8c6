#!/bin/sh
# moe-shard --quant: coded sets are written, moved, repacked and merged without a code changing; what cannot be is refused.
. "$(dirname "$0")/../lib.sh"
cd "$work" || exit 1

# field KEY FILE: a member of a one-line report.
field() {
	sed -n "s/.*\"$1\": *\"\{0,1\}\([^\",}]*\).*/\1/p" "$2" | head -1
}

# same_sets WORDS A B: two folders with the same files in them, whatever the epoch.
same_sets() {
	for dir in "$2" "$3"; do
		(cd "$dir" && ls && sed 's/"epoch": [0-9]*//' manifest.json && cksum -- *.safetensors) >"$dir.sum"
	done
	same "$1" "$2.sum" "$3.sum"
}

# Of every family and quant: any number of devices, any layout.
for model in tiny-mixtral tiny-qwen3-moe tiny-qwen2-moe tiny-olmoe tiny-mixtral,fused tiny-qwen2-moe,fused; do
	for quant in q8 q4 q3 q2 experts=q4,rest=q8,head=q4,embed=bf16; do
		name=$model.$quant
		runs 0 "$name" moe-shard --quant $quant "synth:$model" "$name.1"
		one=$(field fingerprint out)
		for devices in 1 2 4; do
			[ $devices -eq 1 ] || runs 0 "$name: $devices devices" moe-shard --quant $quant --devices $devices "synth:$model" "$name.$devices"
			[ "$(field fingerprint out)" = "$one" ]
			ok $? "$name: $devices devices have the fingerprint of one"
			runs 0 "$name: $devices devices verify" moe-shard --verify "$name.$devices"
		done
		runs 0 "$name: layout plain" moe-shard --quant $quant --layout plain --devices 2 "synth:$model" "$name.plain"
		[ "$(field fingerprint out)" = "$one" ]
		ok $? "$name: has the same fingerprint"
		runs 0 "$name: repacked" moe-shard --devices 2 "$name.plain" "$name.packed"
		same_sets "$name: gives the packed set" "$name.2" "$name.packed"
		runs 0 "$name: unpacked" moe-shard --devices 2 --layout plain "$name.4" "$name.unpacked"
		same_sets "$name: gives the plain set" "$name.plain" "$name.unpacked"
		runs 0 "$name: merged" moe-shard --merge "$name.4" "$name.merged"
		runs 0 "$name: merged from plain" moe-shard --merge "$name.plain" "$name.merged.plain"
		same "$name: the same checkpoint" "$name.merged/model.safetensors" "$name.merged.plain/model.safetensors"
		runs 0 "$name: cut again" moe-shard --devices 2 "$name.merged" "$name.again"
		same_sets "$name: into the same set" "$name.2" "$name.again"
	done
done

# Fused and three tensors hold the same experts, and are coded alike.
(cd tiny-mixtral.q4.2 && ls -- experts*) >three
(cd tiny-mixtral,fused.q4.2 && ls -- experts*) >fused
same "experts of fused tensors get the codes and names of three" three fused

# Threads do not show.
for t in 1 3 8; do
	runs 0 "$t threads" moe-shard --threads $t --quant q4 --devices 2 synth:tiny-qwen2-moe threads.$t
	same_sets "$t threads: the same set" tiny-qwen2-moe.q4.2 threads.$t
done

# What is coded, and what never is.
f=$(ls tiny-qwen2-moe.q4.1/base-*.safetensors)
head -c "$(od -An -tu8 -N8 "$f" | tr -d ' ')" "$f" | tr ',' '\n' >header
has "attention is" 'q_proj\.weight\.q4\.r64' header
has "embedding and head are q8 under one word" 'lm_head\.weight\.q8\.r64' header
has "the router is not" 'mlp\.gate\.weight"' header
has "the shared expert's switch is not" 'shared_expert_gate\.weight"' header
has "norms are not" 'input_layernorm\.weight"' header
has "the shared expert is" 'shared_expert\.up_proj\.weight\.q4' header
runs 0 "f32 for all" moe-shard --quant f32 synth:tiny-mixtral f32
runs 0 "and back to bf16" moe-shard --quant bf16 f32 bf16
runs 0 "without --quant" moe-shard synth:tiny-mixtral kept
same_sets "is what it was" kept bf16

# Answers: of every set of one quant the same, however it lies and whoever computes.
ask() {
	echo '{"tokens":[1,2,3,5,8,13,21,34],"max_tokens":6,"logprobs":true}' | moe-route "$@" 2>err
}
for model in tiny-mixtral tiny-qwen3-moe tiny-qwen2-moe tiny-olmoe; do
	for quant in q8 q4 q3 q2 experts=q4,rest=q8,head=q4,embed=bf16; do
		name=$model.$quant
		ask "$name.1" >answer
		has "$name: answers" '"completion_tokens":6' answer
		for set in 4 plain merged; do
			ask "$name.$set" >other
			same "$name: the same from $set" answer other
		done
	done
done
ask --threads 3 tiny-olmoe.q4.2 >other
ask --threads 1 tiny-olmoe.q4.2 >answer
same "with any number of threads" answer other
ask tiny-mixtral.q4.plain >/dev/null
has "plain codes are permuted, which is said" 'of weights were brought into memory' err
ask tiny-mixtral.q4.1 >/dev/null
[ ! -s err ]
ok $? "packed ones are read where they lie"
runs 0 "-v" sh -c "echo '{\"tokens\":[1],\"max_tokens\":1}' | moe-route -v tiny-olmoe.q4.2"
has "tells their size" 'weights: .* KiB' err

# Sizes.
runs 0 "--dry-run" moe-shard --dry-run --quant q4 synth:tiny-olmoe nothing
bytes=$(field bytes out)
[ "$bytes" -eq "$(cat tiny-olmoe.q4.1/*.safetensors | wc -c)" ] && [ ! -e nothing ]
ok $? "tells the bytes that are then written, and writes none"
runs 0 "--info" moe-shard --info tiny-olmoe.q4.2
has "has the quant of each file" '"quant": "q4"' out
has "and the layout" '"layout": "r64"' out
has "and bits for a weight" '"bits_per_weight": [0-9.]+' out

# Random codes without a checkpoint.
for quant in q8 q4 q3 q2; do
	runs 0 "synth:NAME,quant=$quant" moe-shard --devices 2 synth:tiny-qwen3-moe,quant=$quant made.$quant
	one=$(field fingerprint out)
	runs 0 "$quant: verifies" moe-shard --verify made.$quant
	runs 0 "$quant: as plain" moe-shard --layout plain synth:tiny-qwen3-moe,quant=$quant made.$quant.plain
	[ "$(field fingerprint out)" = "$one" ]
	ok $? "$quant: has the same fingerprint"
done
refuses "random codes of fused tensors" 'never coded' moe-shard synth:tiny-mixtral,fused,quant=q4 no

# A policy's devices.
moe-policy --model tiny-mixtral --devices 2 >policy.json 2>err
sed 's/"quant": ""/"quant": "q4"/' policy.json >q4.json
runs 0 "a policy's quant" moe-shard --policy q4.json synth:tiny-mixtral by-policy
(cd by-policy && ls -- experts*) >a
(cd tiny-mixtral.q4.2 && ls -- experts*) >b
same "is what --quant experts=q4 gives" a b
awk '/"quant": ""/ && !done { sub(/"quant": ""/, "\"quant\": \"q8\""); done = 1 } 1' policy.json >mixed.json
runs 0 "a quant for one device only" moe-shard --policy mixed.json synth:tiny-mixtral,fused by-mixed
has "which the manifest says" '"quant": "q8"' by-mixed/manifest.json
has "of both" '"quant": "bf16"' by-mixed/manifest.json
runs 0 "verifies" moe-shard --verify by-mixed
runs 0 "and is merged" moe-shard --merge by-mixed by-mixed.merged
runs 0 "and cut" moe-shard --policy policy.json by-mixed.merged by-mixed.again
sed 's/"quant": ""/"quant": "q9"/' policy.json >bad.json
refuses "a quant that is none" 'bad.json: device 0: quant "q9"' moe-shard --policy bad.json synth:tiny-mixtral no

# Codes are not coded again.
refuses "another quant of what is coded" 'coded already and does not become q8' moe-shard --quant q8 tiny-mixtral.q4.1 no
refuses "nor values of it" 'coded already and does not become bf16' moe-shard --quant experts=bf16 tiny-mixtral.q4.1 no
runs 0 "the quant it has" moe-shard --quant q4 --devices 2 tiny-mixtral.q4.1 same-quant
same_sets "changes nothing" tiny-mixtral.q4.2 same-quant
rm -rf same-quant
cp -r tiny-mixtral.q4.4 same-quant
runs 0 "a coded set cut again in place" moe-shard --devices 2 same-quant same-quant
runs 0 "and rid of its old files" moe-shard -q --gc same-quant
same_sets "is the one of two devices" tiny-mixtral.q4.2 same-quant
refuses "packed without codes" 'without --quant' moe-shard --layout packed synth:tiny-mixtral no

# Damage.
f=$(basename tiny-mixtral.q4.2/experts-0001-*)
cp -r tiny-mixtral.q4.2 bad
truncate -s -1 "bad/$f"
refuses "a coded file cut short" "$f: has [0-9]+ bytes" moe-shard --verify bad
rm -rf bad
cp -r tiny-mixtral.q4.2 bad
printf '\125' | dd of="bad/$f" bs=1 seek=6000 conv=notrunc 2>/dev/null
refuses "a code that changed" "$f: checksum differs \(layer" moe-shard --verify bad
refuses "is not repacked" 'fingerprint differs' moe-shard --layout plain bad no
refuses "nor merged" 'fingerprint differs' moe-shard --merge bad no
cp -r f32 bad32
printf '\125' | dd of="bad32/$(basename bad32/experts-*)" bs=1 seek=6000 conv=notrunc 2>/dev/null
refuses "nor is a damaged set coded" 'fingerprint differs' moe-shard --quant q4 bad32 no

# Values that the new type cannot hold: the first of the embedding becomes 1000000, then no number.
runs 0 "a checkpoint in f32" moe-bench synth --like tiny-mixtral --dtype f32 large
at=$(($(od -An -tu8 -N8 large/model.safetensors) + 8))
printf '\000\044\164\111' | dd of=large/model.safetensors bs=1 seek=$at conv=notrunc 2>/dev/null
refuses "a value too large for f16" 'embed_tokens.weight: row 0, column 0 is 1e\+06, which F16' moe-shard --quant f16 large no
runs 0 "not for bf16" moe-shard --quant bf16 large large16
printf '\000\000\300\177' | dd of=large/model.safetensors bs=1 seek=$at conv=notrunc 2>/dev/null
refuses "no number" 'embed_tokens.weight: row 0, column 0 is nan' moe-shard --quant bf16 large no
refuses "nor is it coded" 'embed_tokens.weight: row 0, column 0 is not a finite' moe-shard --quant q8 large no

# rename_tensor FROM TO: in the header of the merged checkpoint, two names of one length.
rename_tensor() {
	rm -rf bad
	cp -r tiny-mixtral.q4.merged bad
	LC_ALL=C sed -i "s/$1/$2/" bad/model.safetensors
}
rename_tensor 'q_proj.weight.q4' 'q_proj.weight.q8'
refuses "codes of another size than the name says" 'q_proj.weight.q8 has shape .* is wanted' moe-shard bad no
rename_tensor 'q_proj.weight.q4' 'k_proj.weight.q4'
refuses "a name twice" 'k_proj.weight.q4' moe-shard bad no
rename_tensor '0.input_layernorm.weight"' '0.input_layernorm.wei.q4"'
refuses "an unknown name" 'wei.q4 is none' moe-shard bad no
rm -rf bad
cp -r tiny-mixtral.q4.merged bad
LC_ALL=C sed -i 's/"model.layers.0.block_sparse_moe.gate.weight":/"model.layers.0.mlp.gate.weight.q4":          /' bad/model.safetensors
refuses "a coded router" 'model.layers.0.mlp.gate.weight is never coded' moe-shard bad no
[ ! -e no ]
ok $? "nothing is left of any of them"

# Words.
for args in '--quant q5' '--quant' '--quant rest=q2' '--quant embed=q3' '--quant experts' '--quant experts=q4,' \
	'--quant experts=q4,all=q8' '--quant experts=' '--layout r64' '--layout'; do
	# shellcheck disable=SC2086
	runs 2 "wrong usage: moe-shard $args" moe-shard $args synth:tiny-mixtral no
done
runs 2 "rest=q2" moe-shard --quant rest=q2 synth:tiny-mixtral no
has "says why" 'q3 and q2 are for experts only' err
runs 2 "--merge --quant" moe-shard --merge --quant q4 tiny-mixtral.q4.1 no
ls -d ./*tmp-* >left 2>/dev/null
[ ! -s left ]
ok $? "nothing temporary is left"
finish
