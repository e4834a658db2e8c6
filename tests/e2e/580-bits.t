#!/bin/sh
# The same answer every time: no setting that is not in the numerics shows in a bit of an answer or a score.
#
# What may show is the weights (their type and quants), --exact, --activations and --kv.  For each such combination that is met a plain run is
# made: one process, one thread, one request and one token at a time.  Every other run must print its bytes.  covering.pl
# chooses runs so that any two settings meet in each of their combinations; with MOE_LONG any three do, and in one process
# threads, batch, chunk, prefixes and instruction sets are tried in all combinations too.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib-serve.sh"
cd "$work" || exit 1
here=$top/tests/e2e

strength=2
[ -z "$MOE_LONG" ] || strength=3

# config VOCABULARY HIDDEN HEADS KV-HEADS HEAD-DIM EXPERT-WIDTH SHARED-WIDTH EXPERTS
config() {
	cat <<-END
		{"architectures": ["Qwen2MoeForCausalLM"], "model_type": "qwen2_moe", "torch_dtype": "bfloat16", "vocab_size": $1,
		"hidden_size": $2, "num_hidden_layers": 2, "num_attention_heads": $3, "num_key_value_heads": $4, "head_dim": $5,
		"intermediate_size": 100, "moe_intermediate_size": $6, "shared_expert_intermediate_size": $7, "num_experts": $8,
		"num_experts_per_tok": 2, "norm_topk_prob": false, "decoder_sparse_step": 1, "mlp_only_layers": [],
		"hidden_act": "silu", "max_position_embeddings": 512, "rms_norm_eps": 1e-06, "rope_theta": 10000.0,
		"tie_word_embeddings": false, "bos_token_id": 1, "eos_token_id": 2}
	END
}

# One shape whose widths no block, vector or tile divides, with rows that have a segment of a sum and a bit; one of whole blocks.
config 331 278 6 2 22 37 71 7 >odd.json
config 320 256 4 2 32 128 64 4 >even.json

# request ID TOKENS SEED: requests of one seed begin with the same 65 tokens.  Every second answer is sampled.
request() {
	tokens=$(awk -v n="$2" -v seed="$3" -v id="$1" \
		'BEGIN { for (i = 0; i < n; i++) printf "%s%d", i ? "," : "", 3 + (i * i * 7 + i * seed + (i > 64) * id) % 317 }')
	echo "{\"id\":$1,\"tokens\":[$tokens],\"max_tokens\":4,\"temperature\":0.$(($1 % 2 * 8)),\"seed\":$1,\"ignore_eos\":true,\"logprobs\":true}"
}
i=0
for length in 70 1 71 3 17 2 66 5 9; do
	i=$((i + 1))
	seed=$i
	[ $length -lt 66 ] || seed=11
	request $i $length $seed
done >requests

# The instruction sets of this CPU, the simplest first.
cpus=
for cpu in base neon avx2 avx2vnni avx512 avx512vnni avx512bf16; do
	echo '{"tokens":[3]}' | MOE_CPU=$cpu moe-route -q -n 1 synth:tiny-olmoe >/dev/null 2>&1 && cpus="$cpus${cpus:+,}$cpu"
done
best=${cpus##*,}

# checkpoint SHAPE VALUES KEPT: its folder in $checkpoint
checkpoint() {
	checkpoint=ck.$1.$2.$3
	[ -e "$checkpoint" ] && return
	moe-bench synth --config "$1.json" --dtype "$2" $([ "$3" = three ] || echo --fused) "$checkpoint"
}

# weights SHAPE VALUES KEPT EXPERTS REST LAYOUT DEVICES: a folder to run from in $weights, the checkpoint itself where nothing is to be done
weights() {
	checkpoint "$1" "$2" "$3"
	weights=$checkpoint
	[ "$4$5$7" = keepkeep1 ] && return
	weights="set"
	rm -rf set
	quant=experts=$4,rest=$5,embed=$5,head=$5
	[ "$4$5" = keepkeep ] && quant=keep
	layout=$6
	[ $quant = keep ] && layout=plain
	moe-shard -q --quant "$quant" --layout "$layout" --devices "$7" "$checkpoint" set >/dev/null
}

# answers NAME OPTION...: scores and generated text from $weights in NAME.  Status 1 unless all is answered.
answers() {
	answers_to=$1
	shift
	moe-route -q --score "$@" "$weights" <requests >"$answers_to" 2>err &&
		moe-route -q "$@" "$weights" <requests >>"$answers_to" 2>>err && [ ! -s err ]
}

# numerics NAME: the options in $numerics
numerics() {
	case $1 in
	exact) numerics=--exact ;;
	rounded) numerics="--activations bf16 --kv f16" ;;
	*) numerics="--kv $1" ;;
	esac
}

# reference SHAPE VALUES EXPERTS REST NUMERICS: the plain run, once, in the file $reference
reference() {
	reference=ref.$1.$2.$3.$4.$5
	[ -e "$reference" ] && return
	weights "$1" "$2" three "$3" "$4" plain 1
	numerics "$5"
	# shellcheck disable=SC2086
	MOE_CPU=$best answers "$reference" $numerics --threads 1 --batch 1 --chunk 1 --no-prefix-cache
	ok $? "$1 $2, experts $3, rest $4, $5: a plain run"
	[ "$(grep -c '"logprobs":\[.*-[0-9]' "$reference")" -eq 17 ] # a prompt of one token has no score
	ok $? "answers everything"
}

# servers N TRANSPORT CPU THREADS NUMERICS: of $weights; the options to reach them in $reach
servers() {
	reach=
	[ "$1" -eq 0 ] && return
	how="-t $4"
	[ "$5" = exact ] && how="$how --exact"
	[ "$5" = rounded ] && how="$how --activations bf16"
	reach="--transport $2"
	[ "$2" = tcp ] && reach="--transport zmq" how="$how --bind tcp://127.0.0.1:0 --insecure"
	# shellcheck disable=SC2086
	MOE_CPU=$3 serve_start "$weights" $how
	reach="$reach --hosts $hosts"
}

# try ROW: its settings, in the order below, compared with their plain run
try() {
	values=$1 shape=$2 experts=$3 rest=$4 with=$5 kept=$6 layout=$7 n_servers=$8
	shift 8
	reference "$shape" "$values" "$experts" "$rest" "$with"
	devices=$n_servers
	[ "$n_servers" -eq 0 ] && devices=1
	weights "$shape" "$values" "$kept" "$experts" "$rest" "$layout" "$devices"
	servers "$n_servers" "$1" "$2" "$3" "$with"
	numerics "$with"
	options="$numerics --threads $5 --batch $6 --chunk $7"
	[ "$8" = off ] && options="$options --no-prefix-cache"
	[ "$n_servers" -eq 0 ] || options="$options --overlap $9 $reach"
	# shellcheck disable=SC2086
	MOE_CPU=$4 answers answers $options || sed 's/^/# /' err
	[ "$n_servers" -eq 0 ] || serve_stop
	cmp "$reference" answers >differs 2>&1
	ok $? "$shape $values, experts $experts, rest $rest, $with: $kept $layout, $n_servers servers by $1 on $2, threads $3;" \
		"$4, threads $5, batch $6, chunk $7, prefixes $8, overlap $9"
	sed 's/^/# /' differs
}

perl "$here/covering.pl" $strength values=bf16,f32 shape=odd,even experts=keep,q8,q4,q3,q2 rest=keep,q8,q4 \
	numerics=exact,f32,f16,bf16,q8,rounded kept=three,fused layout=plain,packed servers=0,1,2,4 transport=shm,zmq,tcp \
	"servers' instructions=$cpus" "servers' threads=1,2" "instructions=$cpus" threads=1,2,3 batch=1,3,8 chunk=1,7,64 \
	prefixes=on,off overlap=on,off \
	>rows 2>covered
ok $? "$(cat covered)"
every=1
[ "$MOE_SAN" != thread ] || every=4
awk -v every=$every 'NR % every == 0' rows | sort >sorted
echo "# $(wc -l <sorted) of $(wc -l <rows) runs; instruction sets of this CPU: $cpus"
while read -r row; do
	# shellcheck disable=SC2086
	try $row
done <sorted

# What may show does: the plain runs differ from each other.
differ=$(cksum ref.* | cut -d' ' -f1,2 | sort -u | wc -l)
[ "$differ" -gt $(($(ls -d ref.* | wc -l) * 3 / 4)) ]
ok $? "$differ of $(ls -d ref.* | wc -l) plain runs differ from all others"

# all SHAPE VALUES EXPERTS REST NUMERICS: in one process, how it is run in all combinations
all() {
	reference "$@"
	weights "$1" "$2" three "$3" "$4" packed 1
	numerics "$5"
	for cpu in $(echo "$cpus" | tr , ' '); do
		differ=0
		for threads in 1 2 3; do for batch in 1 3 8; do for chunk in 1 7 64; do for prefixes in '' --no-prefix-cache; do
			# shellcheck disable=SC2086
			MOE_CPU=$cpu answers answers $numerics --threads $threads --batch $batch --chunk $chunk $prefixes &&
				cmp -s "$reference" answers && continue
			differ=$((differ + 1))
			echo "# threads $threads, batch $batch, chunk $chunk $prefixes"
		done; done; done; done
		ok $differ "$*: $cpu with any threads, batch, chunk, prefixes"
	done
}
if [ -n "$MOE_LONG" ]; then
	all odd bf16 q4 q8 f16
	all odd f32 keep keep exact
	all odd bf16 keep q8 rounded
fi
finish
