#!/bin/sh
# Checkpoints quantised by other tools, as they are downloaded.
. "$(dirname "$0")/../lib.sh"
data=$top/tests/data/coded
cd "$work" || exit 1

echo '{"tokens":[1,2,3,4,5,6,7,9,11,30]}' >tokens

# score WORDS DIR FILE
score() {
	moe-route -q --score "$2" <tokens >"$3" 2>err
	s=$?
	[ $s -eq 0 ] && grep -q '"logprobs":\[-' "$3"
	ok $? "$1"
	[ $s -eq 0 ] || head -5 err | sed 's/^/# /'
}

# A folder computes what the same folder with all weights in bfloat16 does.
for f in fp8-block gptq-4-order mxfp4; do
	score "$f is scored" "$data/$f" a
	score "$f in bf16 is scored" "$data/$f-bf16" b
	same "$f: the same answer" a b
	moe-route -q --threads 3 --score "$data/$f" <tokens >c 2>err
	same "$f: by three threads" a c
done
for f in fp8-128 fp8-tensor fbgemm-fp8 gptq-2 gptq-3 gptq-8 gptq-v2 awq awq-row ct-4 ct-4-order ct-8 ct-mixed ct-int8 ct-fp8 \
	ct-fp8-block ct-nvfp4 ct-mxfp4 ct-mxfp8; do
	score "$f is scored" "$data/$f" a
done
runs 0 "one generates" sh -c "echo '{\"tokens\":[1,2,3],\"max_tokens\":3}' | moe-route '$data/awq'"
has "and answers" '"completion_tokens":[1-3]' out
runs 0 "one is measured" moe-bench -m "$data/gptq-4" -p 8 -n 2 -r 1

# What it is.
runs 0 "--info" moe-shard --info "$data/gptq-4"
has "names the method" '"method": "gptq"' out
runs 0 "--info of one that is not quantised" moe-shard --info "$data/fp8-block-bf16"
! grep -q quantized out
ok $? "has no method"

# Codes of other tools are no shard set.
refuses "no set without a quant" 'awq: its weights are quantised \(awq\).*--quant' moe-shard "$data/awq" set
[ ! -e set ]
ok $? "nothing is written"


# With a quant it is one.
for f in fp8-block gptq-4-order mxfp4; do
	runs 0 "$f: --quant bf16" moe-shard --quant bf16 "$data/$f" "$f.set"
	sed 's/.*"fingerprint":"\([^"]*\)".*/\1/' out >a
	runs 0 "$f: the same folder in bf16" moe-shard "$data/$f-bf16" "$f.same"
	sed 's/.*"fingerprint":"\([^"]*\)".*/\1/' out >b
	same "$f: the same weights" a b
	! grep -q quantization_config "$f.set/config.json"
	ok $? "$f: config.json no longer says that they are quantised"
	runs 0 "$f: --quant q4" moe-shard --quant q4 --devices 2 "$data/$f" "$f.q4"
	runs 0 "$f: verifies" moe-shard --verify "$f.q4"
done
refuses "a quant for a part of it only" 'fp8-block: its weights are quantised' moe-shard --quant experts=q4 "$data/fp8-block" set

# Malformed ones get a line.  damage FIXTURE SED-EXPRESSION: config.json changed.
damage() {
	rm -rf bad
	cp -r "$data/$1" bad
	chmod -R u+w bad
	sed -e "$2" "$data/$1/config.json" >bad/config.json
	cmp -s "$data/$1/config.json" bad/config.json && echo "# nothing changed in $1"
}
damage gptq-4 's/"group_size": 32/"group_size": 16/'
refuses "another group size" 'bad: tensor model\.layers\.0.*scales has shape \[1, 64\], \[2, 64\] is wanted' moe-shard --info bad
damage awq 's/"awq"/"bitsandbytes"/'
refuses "another method" 'bad/config\.json: quantization_config: quant_method "bitsandbytes" is not supported' moe-route --score bad
refuses "for every tool" 'quant_method "bitsandbytes"' moe-policy --model bad --devices 1
damage awq 's/"awq"/"fp8"/'
refuses "codes of another method" 'bad: tensor model.*is none that this mixtral model has' moe-route --score bad
damage fp8-block 's/"mlp"/"mlp"/; s/24,/16,/'
refuses "another block size" 'weight_scale_inv has shape \[[0-9], [0-9]\], \[[0-9], [0-9]\] is wanted' moe-route --score bad
echo '{"tokens":[1,2]}' | moe-route -n 1 "$data/gptq-4" >out 2>err
has "what is decoded is said" 'gptq-4: gptq weights were decoded, [0-9.]+ KiB in memory' err
rm -rf bad
cp -r "$data/fp8-block-bf16" bad
chmod -R u+w bad
cp "$data/gptq-4-order/config.json" bad
runs 0 "a configuration that outlived the codes does no harm" moe-shard --info bad
LC_ALL=C sed 's/q_proj\.scales/q_proj.scalez/g' "$data/awq/model.safetensors" >w
damage awq 's/"gemm"/"GEMM"/'
cp w bad/model.safetensors
refuses "a missing scale" 'tensor model\.layers\.0\.self_attn\.q_proj\.(scales is missing|scalez is none)' moe-route --score bad
finish
