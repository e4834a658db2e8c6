#!/bin/sh
# moe-bench: rows in every format, and synthetic checkpoints.  What it measures is not looked at.
. "$(dirname "$0")/../lib.sh"

m="synth:tiny-mixtral,seed=1 --no-roofs"
runs 0 "md" moe-bench -m $m -p 8 -n 4 -b 1,2 -t 1 -r 2
[ "$(grep -c '^|' "$work/out")" -eq 6 ]
ok $? "a head of two lines and a row for each of pp8, tg4 at two batch sizes"
has "the model is named, and what its weights are in" '^\| mixtral bf16 ' "$work/out"
has "the rows are named" '\| +pp8 \|' "$work/out"
runs 0 "csv" moe-bench -m $m -p 8,16 -n 0 -r 1 -o csv
[ "$(wc -l <"$work/out")" -eq 3 ] && sed -n 2p "$work/out" | grep -q '"pp8"'
ok $? "csv has a head and quoted fields"
runs 0 "sql" moe-bench -m $m -p 8 -n 0 -r 1 -o sql
has "sql makes the table" 'CREATE TABLE IF NOT EXISTS test' "$work/out"
has "and fills it" 'INSERT INTO test \(.*VALUES' "$work/out"
runs 0 "jsonl" moe-bench -m $m -p 8 -n 4 -r 2 -o jsonl
[ "$(grep -c '"samples_ns":\[[0-9]*,[0-9]*\]' "$work/out")" -eq 2 ]
ok $? "jsonl has each sample"
runs 0 "json" moe-bench -m $m -p 8 -n 4 -r 1 -o json
if command -v jq >/dev/null; then
	[ "$(jq -r '[.[].test] | join(" ")' "$work/out")" = "pp8 tg4" ]
	ok $? "json is an array of rows"
fi
runs 0 "every kind of test" moe-bench -m $m -p 8 -n 4 -pg 8,4 -d 0,16 --chunk 16 --mixed --load -r 2 -t 1 -o jsonl
[ "$(sed -n 's/.*"test":"\([^"]*\)".*/\1/p' "$work/out" | tr '\n' ,)" = \
	"ready,load,pp8,tg4,pp8+tg4,pp8 @ d16,tg4 @ d16,pp8+tg4 @ d16,mixed8+4," ]
ok $? "each has its name"
has "llama-bench's fields are there" '"build_commit".*"cpu_info".*"model_filename".*"model_type".*"model_size".*"model_n_params".*"n_threads".*"type_k":"f16","type_v":"f16","n_batch".*"n_prompt".*"n_gen".*"n_depth".*"test_time".*"avg_ns".*"stddev_ns".*"avg_ts".*"stddev_ts".*"samples_ns".*"samples_ts"' "$work/out"
if command -v jq >/dev/null; then
	jq -s -e 'def near(b): . - b | fabs < 1e-6 * (b | fabs) + 0.5;
		all(.[] | select(.test != "load" and .test != "ready"); . as $r | (.avg_ts | near(($r.samples_ts | add) / 2)) and
		(.avg_ns | near(($r.samples_ns | add) / 2)) and
		(if .test[:5] == "mixed" then true else .samples_ts[0] * .samples_ns[0] / 1e9 | near($r.n_prompt + $r.n_gen) end)) and
		(.[0] | .avg_ts == null and .samples_ts == [] and .peak_rss > 1e6 and .model_size > 1e5)' "$work/out" >/dev/null
	ok $? "times, tokens and means belong together"
	moe-bench -m synth:tiny-mixtral,seed=1 -p 8 -n 4 -b 1,3 -r 1 -t 1 -q -o json >"$work/out"
	jq -e 'def near(b): . - b | fabs < 1e-6 * (b | fabs);
		all(.[]; . as $r | (.gb_s | near(($r.weight_bytes + $r.kv_bytes) / $r.median_ns)) and .gflop_s > 0 and
		(if .roof == "bandwidth" then .roof_fraction | near($r.gb_s / $r.bandwidth) else .roof_fraction > 0 end) and
		.steps == (if .n_prompt > 0 then 1 else 4 end) and .experts_step_layer >= 2 and .experts_step_layer <= 8)' "$work/out" >/dev/null
	ok $? "bytes, roofs and fractions belong together"
fi
# Two kinds of test as bars; or, over batch sizes, lines.
runs 0 "bars" moe-bench -m $m -p 8 -n 4 -r 2 -t 1,2 --plot "$work/bars.svg"
[ "$(grep -c 'class="bar"' "$work/bars.svg")" -eq 4 ] && [ "$(grep -c 'class="head"' "$work/bars.svg")" -eq 2 ]
ok $? "one for each row, reading and generating apart"
runs 0 "lines" moe-bench -m $m -p 8 -n 4 -r 2 -b 1,2,3 -t 1,2 --plot "$work/lines.svg"
[ "$(grep -c '<polyline' "$work/lines.svg")" -eq 4 ]
ok $? "one for each test and number of threads"
! grep -q 'nan\|inf' "$work/lines.svg" && tail -n 1 "$work/lines.svg" | grep -q '^</svg>$'
ok $? "whole and finite"
if command -v xmllint >/dev/null; then
	xmllint --noout "$work/bars.svg" "$work/lines.svg"
	ok $? "well formed"
fi
refuses "a picture that cannot be written" 'nowhere' moe-bench -m $m -p 8 -n 0 -r 1 --plot "$work/nowhere/a.svg"
runs 2 "reading at a depth that no step ends at" moe-bench -m $m -p 8 -d 10
runs 2 "a pair that is none" moe-bench -m $m --pg 8
runs 2 "round trips without servers" moe-bench -m $m --net
runs 2 "an unknown format" moe-bench -m $m -o xml
runs 2 "no model" moe-bench
runs 2 "a transport that is none" moe-bench -m $m --transport pigeon
runs 2 "a transport to nobody" moe-bench -m $m --transport zmq
runs 2 "a list that is none" moe-bench -m $m -p 8,x
has "is named" '\-p 8,x' "$work/err"
runs 2 "nothing to measure" moe-bench -m $m -p 0 -n 0
runs 2 "nothing to read in requests of many lengths" moe-bench -m $m -p 0 -n 4 --mixed
runs 2 "nothing to generate in them" moe-bench -m $m -p 8 -n 0 --mixed
refuses "an unknown model" 'nonsense' moe-bench -m synth:nonsense --no-roofs
refuses "an unknown model, before the machine is measured" 'nonsense' moe-bench -m synth:nonsense
runs 0 "a cold start, weights copied" moe-bench -m "$top/models/kjv-mixtral" --no-roofs -p 0 -n 0 -r 1 -t 1 --load --cold --weights copy -o csv
has "is measured until it is ready" '"ready"' "$work/out"
has "and until the first token" '"load"' "$work/out"
runs 2 "--cold without --load" moe-bench -m $m --cold
runs 2 "a model in memory is never cold" moe-bench -m synth:tiny-mixtral --load --cold
runs 2 "no way to load" moe-bench -m $m --weights maybe
refuses "an unknown model to load" 'nonsense' moe-bench -m synth:nonsense --no-roofs --load

# A small matrix, little memory and hardly any time: the row's shape and sums are looked at, not its speed.
kernels="moe-bench kernels --seconds 0.001 --memory 1M -s 64x128"
runs 0 "kernels" $kernels --quant f32,bf16 -m 1,4 -o jsonl
[ "$(wc -l <"$work/out")" -eq 4 ]
ok $? "a row for each quant and number of rows"
has "roofs are said" 'roofs of 1 thread: memory [0-9.]+ GB/s, f32' "$work/err"
if command -v jq >/dev/null; then
	jq -e 'select(((.gop_s * .ns - 2 * 64 * 128 * .rows) | fabs) > 1 or
		((.gb_s * .ns - 64 * 128 * (if .quant == "f32" then 4 else 2 end)) | fabs) > 1 or
		((.gop_s / .peak - .peak_fraction) | fabs) > 0.001)' "$work/out" >/dev/null
	[ $? -eq 4 ]
	ok $? "bytes, operations and fractions belong together"
fi
runs 0 "a call of experts" $kernels --quant bf16 -m 2 --experts 3 --no-roofs -o csv
has "is six products a row" '"3","2",' "$work/out"
runs 0 "without roofs" $kernels --quant bf16 -m 2 --no-roofs
! grep -q nan "$work/out"
ok $? "no fraction of them"
runs 0 "the same for programs" $kernels --quant bf16 -m 2 --no-roofs -o jsonl
has "is null" '"bandwidth":null,"peak":null,"bandwidth_fraction":null,"peak_fraction":null' "$work/out"
runs 2 "a shape that is none" $kernels -s 64
runs 2 "a quant that is none" $kernels --quant q5
refuses "more memory than there is" 'matrices take' $kernels --no-roofs --memory 900000G --quant f32

# Kernels are timed over twice the largest cache: much to fill under a sanitizer, which has seen them in the unit tests.
if [ -z "$MOE_SAN" ]; then
runs 0 "predictions" moe-bench -m synth:tiny-mixtral -t 1 -p 8 -n 4 -r 1 --predict -o jsonl
has "every test has one" '"predicted_ts": *[0-9]' "$work/out"
fi
runs 2 "predictions without roofs" moe-bench -m synth:tiny-mixtral --predict --no-roofs
runs 0 "hardware" moe-bench hardware --seconds 0.01 -t 1,2 --name box $([ "$MOE_SAN" = thread ] && echo --no-kernels || echo --quant q4)
cp "$work/out" "$work/box.json"
has "the first key is the schema" '^  "schema": 1,$' "$work/box.json"
runs 0 "moe-policy takes the profile" moe-policy --model tiny-mixtral --hardware "$work/box.json"
has "and plans for it" '"host": "box"' "$work/out"
[ "$MOE_SAN" = thread ] || has "its kernels are curves" '"rows": \[' "$work/box.json"
has "its network is the loopback" '"network": \{' "$work/box.json"
runs 2 "threads that are none" moe-bench hardware -t 0
runs 2 "a quant that is none" moe-bench hardware --quant q9
refuses "a disk file that is too small" 'at least 64 MiB|past the cache' moe-bench hardware -q --seconds 0.01 -t 1 --no-kernels --no-network --disk "$work/box.json"

runs 0 "synth" moe-bench synth --like tiny-qwen2-moe --seed 3 "$work/a"
runs 0 "synth again" moe-bench synth --like tiny-qwen2-moe --seed 3 "$work/b"
same "the same seed gives the same bytes" "$work/a/model.safetensors" "$work/b/model.safetensors"
runs 0 "the shape of a config" moe-bench synth --config "$work/a/config.json" --seed 4 "$work/c"
! cmp -s "$work/a/model.safetensors" "$work/c/model.safetensors"
ok $? "another seed gives other bytes"
echo '{"prompt":"any text","max_tokens":3,"ignore_eos":true}' | moe-route "$work/a" >"$work/out"
has "its tokenizer is usable" '"completion_tokens":3' "$work/out"
refuses "a folder that is there already" "$work/a" moe-bench synth --like tiny-olmoe "$work/a"
runs 2 "synth without a shape" moe-bench synth "$work/d"
runs 2 "an unknown shape" moe-bench synth --like no-such "$work/d"
has "is named" '--like no-such' "$work/err"
runs 0 "the names" moe-bench synth --list
has "mixtral-8x7b is one" '^mixtral-8x7b$' "$work/out"
finish
