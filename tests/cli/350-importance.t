#!/bin/sh
# Importance of columns: gathered from text by moe-route, obeyed by moe-shard.
. "$(dirname "$0")/../lib.sh"
cd "$work" || exit 1

{
	echo '{"tokens": [1, 17, 30, 4, 99, 120, 7, 8, 200, 31, 77, 13, 5, 64]}'
	echo '{"tokens": [2, 18, 31, 5, 98, 121, 6, 9, 201, 30, 76, 12, 4, 65]}'
} >calibration

fingerprint() {
	sed -n 's/.*"fingerprint":"\([^"]*\)".*/\1/p' out
}

for model in synth:tiny-mixtral synth:tiny-qwen2-moe synth:tiny-mixtral,fused; do
	moe-route --score "$model" <calibration >plain 2>/dev/null
	moe-route --importance file --score "$model" <calibration >answers 2>err
	ok $? "$model: importance is gathered"
	same "$model: the answers are the same" plain answers
	moe-route -t 1 --importance again --score "$model" <calibration >answers 2>err
	same "$model: and the file does not depend on threads" file again
	rm -rf with without
	runs 0 "$model: quantised without" moe-shard --quant q3 "$model" without
	before=$(fingerprint)
	runs 0 "$model: and with importance" moe-shard --quant q3 --importance file "$model" with
	[ -n "$before" ] && [ "$(fingerprint)" != "$before" ]
	ok $? "$model: which makes other codes"
	rm -f file again
done

moe-route --importance file --score synth:tiny-mixtral <calibration >out 2>err
runs 1 "a file of another model is refused" moe-shard --quant q4 --importance file synth:tiny-olmoe other
has "naming a tensor" 'importance' err
runs 1 "a file that is none is refused" moe-shard --quant q4 --importance calibration synth:tiny-mixtral other
runs 1 "importance that nothing has a use for is refused" moe-shard --quant q8 --importance file synth:tiny-mixtral other
has "and says what it is for" 'importance is for tensors that become q4, q3 or q2' err
runs 2 "importance without quantising is wrong usage" moe-shard --importance file synth:tiny-mixtral other
runs 2 "with servers it is wrong usage" moe-route --importance new --connect ipc://none --score synth:tiny-mixtral
moe-route --importance new --score synth:tiny-mixtral </dev/null >out 2>err
[ $? = 1 ] && [ ! -e new ]
ok $? "no text, no file"
finish
