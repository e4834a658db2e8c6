#!/bin/sh
# moe-bench divergence: how far models are from a reference.
. "$(dirname "$0")/../lib.sh"

here=$(cd "$(dirname "$0")/../.." && pwd)
ref=synth:tiny-mixtral,dtype=f32
# The cells of column N of the only row.
cell() {
	awk -F' *[|] *' -v n="$1" '/synth|models/ && !/--/ {print $(n + 1)}' "$work/out"
}

runs 0 "a model and itself" moe-bench divergence -m $ref --positions 100 --length 30 --exact $ref
[ "$(cell 4)" = 0.000e+00 ] && [ "$(cell 8)" = 100.00 ] && [ "$(cell 3)" = 100 ]
ok $? "do not diverge"
runs 0 "rounded weights" moe-bench divergence -m $ref --positions 100 --length 30 $ref,seed=2 synth:tiny-mixtral synth:tiny-mixtral,dtype=f16
set -- $(cell 4)
awk "BEGIN {exit !($1 > $2 && $2 > $3 && $3 > 0)}"
ok $? "the more they lose the more they diverge: another model $1, bf16 $2, f16 $3"
runs 0 "a text" moe-bench divergence -m "$here/models/kjv-mixtral" --text "$here/README.md" --positions 64 "$here/models/kjv-mixtral"
[ "$(cell 3)" = 64 ]
ok $? "is cut to the positions asked for"
runs 0 "for programs" moe-bench divergence -m $ref --positions 20 -o jsonl synth:tiny-mixtral,quant=q4
has "numbers are numbers" '^\{"reference":"synth:tiny-mixtral,dtype=f32","model_filename":"synth:tiny-mixtral,quant=q4","model_quants":"q4,q8","bits_per_weight":[0-9.]+,"n_positions":20,"kl_mean":[0-9.]+,' "$work/out"
runs 2 "a format that is none" moe-bench divergence -m $ref -o xml $ref

# Sequences fit the shortest context.
moe-bench synth --like tiny-mixtral "$work/long" && moe-bench synth --like tiny-mixtral "$work/short" &&
	sed -i 's/"max_position_embeddings": *[0-9]*/"max_position_embeddings": 40/' "$work/short/config.json"
runs 0 "models with a short context" moe-bench divergence -m "$work/long" --positions 100 "$work/short"
refuses "a length that is longer" '40 positions' moe-bench divergence -m "$work/long" --length 41 "$work/short"
refuses "another vocabulary" "vocabulary" moe-bench divergence -m $ref "$here/models/kjv-mixtral"
refuses "a text without a tokenizer" "tokenizer" moe-bench divergence -m $ref --text "$here/README.md" $ref
runs 2 "no reference" moe-bench divergence $ref
runs 2 "nothing to compare" moe-bench divergence -m $ref
finish
