#!/bin/sh
# moe-policy plays schedules, and draws them and the roofline.
. "$(dirname "$0")/../lib.sh"

s1="--model mixtral-8x7b --hardware t4 --set host_memory=184GiB --workload mtbench --padded --generate 128 --quant bf16"

for schedule in cgopipe coalesced flexgen flexgen-c; do
	runs 0 "$schedule is played" moe-policy --simulate $schedule $s1 --batch 504 --micro-batch 36 --plot "$work/$schedule.svg"
	cp "$work/out" "$work/$schedule"
	grep -q "$schedule, batch 504 in micro-batches of 36" "$work/out" && grep -q '^h2d .*%.*%$' "$work/out"
	ok $? "its name, sizes and lanes are told"
done
# rate SCHEDULE: its tokens a second.
rate() {
	sed -n 's/^a step: [^,]*, \([0-9.e+]*\) tokens.*/\1/p' "$work/$1"
}
awk "BEGIN { exit !($(rate cgopipe) > $(rate flexgen)) }"
ok $? "cgopipe is faster than flexgen at the same policy"

runs 0 "the roofline beside a policy" moe-policy $s1 --schedule cgopipe --plot "$work/roofs.svg"
grep -q '"schedule": *"cgopipe"' "$work/out"
ok $? "the policy is printed as without"
for f in cgopipe flexgen roofs; do
	head -c 5 "$work/$f.svg" | grep -q '^<svg' && tail -n 1 "$work/$f.svg" | grep -q '^</svg>$' && ! grep -q 'nan\|inf' "$work/$f.svg"
	ok $? "$f.svg is whole and finite"
	if command -v xmllint >/dev/null; then
		xmllint --noout "$work/$f.svg"
		ok $? "$f.svg is well formed"
	fi
done
grep -q 'P1' "$work/roofs.svg" && grep -q 'gpu memory' "$work/roofs.svg"
ok $? "roofs and turning points are named"
runs 0 "a cache on the host is fetched by zero" moe-policy --simulate zero $s1 --batch 8

runs 2 "a roofline of devices without a speed" moe-policy --plot "$work/a.svg" --model mixtral-8x7b --devices 2
refuses "a schedule that is none" 'cgopipe' moe-policy --simulate cgopip $s1
refuses "a picture that cannot be written" 'nowhere' moe-policy $s1 --plot "$work/nowhere/a.svg"
finish
