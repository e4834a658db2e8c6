#!/bin/sh
# The CUDA backend on an emulated GPU, through a whole model: the lines that the CPU gives.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib-serve.sh"
cd "$work" || exit 1
[ -x "$MOE_EMULATED/moe-route" ] || { echo "1..0 # SKIP no emulated GPU in this build"; exit 0; }

for i in 0 1 2; do
	t=$(seq -s, $i $((i * 23 + 3)))
	echo "{\"id\":$i,\"tokens\":[$t],\"max_tokens\":3,\"temperature\":$((i % 2)),\"seed\":$i,\"ignore_eos\":true,\"logprobs\":true}"
done >requests

try() {
	machine=$1 model=synth:tiny-mixtral,layers=2$2
	shift 2
	moe-route "$@" $model <requests >plain
	ok $? "$model $* on the CPU"
	MOE_EMULATOR=$machine "$MOE_EMULATED/moe-route" --device cuda --schedule cgopipe --resident 0.5 "$@" $model <requests >out 2>err
	ok $? "$model $* on a GPU ($machine)" || sed 's/^/# /' err
	same "the same lines" plain out
}
try sm=80,seed=3 ""
try sm=75,seed=4 ,quant=q4
try sm=90,seed=5 ,quant=q8 --activations f32 --kv q8
MOE_EMULATOR=devices=0 "$MOE_EMULATED/moe-route" --device cuda synth:tiny-mixtral,layers=2 <requests >out 2>err
[ $? -eq 1 ]
ok $? "without a driver"
has "it is said" 'no GPU here, or no driver' err
MOE_EMULATOR=memory=100000 "$MOE_EMULATED/moe-route" --device cuda synth:tiny-mixtral,layers=2 <requests >out 2>err
[ $? -eq 1 ] && [ ! -s out ]
ok $? "a GPU that is too small is refused: $(tail -n 1 err)"
finish
