#!/bin/sh
# moe-bench compare: verdicts on results made by hand, noisy ones among them; what is no result is refused.
. "$(dirname "$0")/../lib.sh"

# row TEST THREADS SAMPLES_NS [MODEL]
row() {
	echo "{\"model_filename\":\"/some/where/${4:-m}\",\"model_type\":\"mixtral\",\"n_threads\":$2,\"n_batch\":1,\"n_depth\":0,\"test\":\"$1\",\"samples_ns\":[$3],\"samples_ts\":[1000]}"
}
steady="1000000,1010000,990000,1005000,995000"
slower="1200000,1212000,1188000,1206000,1194000"
bit="1030000,1035000,1025000,1032000,1028000"
noisy="700000,1900000,1250000,900000,1500000"

row pp8 1 $steady >"$work/old"
moe-bench compare -o jsonl "$work/old" "$work/old" >"$work/first.jsonl"
runs 0 "nothing changed" moe-bench compare "$work/old" "$work/old"
has "and that is said" '\| +1\.000 \| +[0-9. a-z]+ \| same' "$work/out"

row pp8 1 $slower >"$work/new"
runs 1 "20 % slower" moe-bench compare "$work/old" "$work/new"
has "is a regression" '\| +0\.83[0-9] \|.*\| regression' "$work/out"
runs 1 "the same as TAP" moe-bench compare --tap "$work/old" "$work/new"
has "is not ok" '^not ok 1 - m pp8, 1 thread, batch 1: 0\.83' "$work/out"
has "with a plan" '^1\.\.1$' "$work/out"
runs 0 "but not beyond 25 %" moe-bench compare --threshold 25 "$work/old" "$work/new"
runs 0 "the other way round" moe-bench compare -o csv "$work/new" "$work/old"
has "it is faster" '"faster"$' "$work/out"

row pp8 1 $noisy >"$work/new"
runs 0 "20 % slower, but the noise is larger" moe-bench compare "$work/old" "$work/new"
has "is no regression" '\| same' "$work/out"
cp "$work/out" "$work/first"
moe-bench compare "$work/old" "$work/new" >"$work/out"
same "the same numbers each time" "$work/first" "$work/out"

row pp8 1 $bit >"$work/new"
runs 0 "3 % slower is within 5 %" moe-bench compare "$work/old" "$work/new"
runs 1 "but not within 1 %" moe-bench compare --threshold 1 "$work/old" "$work/new"

row pp8 1 2000000 >"$work/new"
runs 0 "a single sample" moe-bench compare "$work/old" "$work/new"
has "says nothing" '\| unsure' "$work/out"
for i in 1 2 3; do row pp8 1 $slower; done >"$work/new"
runs 1 "runs one after the other in a file are one row" moe-bench compare "$work/old" "$work/new"
[ "$(wc -l <"$work/out")" -eq 3 ]
ok $? "and one line"

{ row pp8 1 $steady; row tg8 1 $steady; row pp8 2 $steady; } >"$work/old"
{ echo '['; row pp8 1 $steady; echo ,; row pp9 1 $steady; echo ,; row pp8 2 $slower; echo ']'; } >"$work/new"
runs 1 "rows are matched by test, model and threads" moe-bench compare -o jsonl "$work/old" "$work/new"
[ "$(sed 's/.*"verdict":"\([^"]*\)".*/\1/' "$work/out" | tr '\n' ,)" = "same,only old,regression,only new," ]
ok $? "those in one file only are listed"
moe-bench compare --tap "$work/old" "$work/new" >"$work/out"
has "and skipped in TAP" '^ok 2 - m tg8, 1 thread, batch 1 # SKIP only old' "$work/out"
row pp8 1 $steady other >"$work/new"
refuses "nothing in common" 'no row is in both' moe-bench compare -q -o jsonl "$work/new" "$work/old"


# Other weights, another name: --ignore says that they are to be compared.
{ row pp8 1 $steady a; row tg8 1 $steady a; } >"$work/old"
{ row pp8 1 $slower b; row tg8 1 $steady b; } >"$work/new"
refuses "models that differ" 'no row is in both' moe-bench compare -q -o jsonl "$work/old" "$work/new"
runs 1 "--ignore model" moe-bench compare --ignore model -o jsonl "$work/old" "$work/new"
[ "$(sed 's/.*"verdict":"\([^"]*\)".*/\1/' "$work/out" | tr '\n' ,)" = "regression,same," ]
ok $? "matches them by test"
runs 1 "a field by its name" moe-bench compare --ignore n_threads,model_filename "$work/old" "$work/new"
cat "$work/old" "$work/new" >"$work/both"
refuses "two rows that could be meant" 'several new rows match the old a pp8, 1 thread' moe-bench compare --ignore model -o jsonl "$work/old" "$work/both"
runs 2 "a field that is none" moe-bench compare --ignore model,colour "$work/old" "$work/new"
has "is named" 'colour is nothing' "$work/err"
has "numbers are numbers" '"n_threads":1,"n_servers":null,.*"n_batch":1,.*"n_depth":0,"test":"pp8","old_ns":1' "$work/first.jsonl"

# Programs in turn: each notes that it ran, with what, and prints a row.
for w in a b; do
	samples=$steady
	[ $w = b ] && samples=$slower
	{ echo '#!/bin/sh'; echo "echo \"$w \$*\" >>\"$work/log\""; echo "cat <<.."; row pp8 1 $samples; echo ..; } >"$work/$w"
	chmod +x "$work/$w"
done
runs 1 "two programs" moe-bench compare --run --rounds 3 "$work/a" "$work/b" -- -m model -p 8
has "the second is slower" '\| regression' "$work/out"
[ "$(cut -c1 "$work/log" | tr -d '\n')" = abbaab ]
ok $? "they took turns"
[ "$(cut -c3- "$work/log" | sort -u)" = "-m model -p 8 -o jsonl -q" ]
ok $? "with the arguments given"
printf '#!/bin/sh\nexit 3\n' >"$work/b"
refuses "one that fails" 'b ended with status 3' moe-bench compare --run "$work/a" "$work/b" -- -m model
printf '#!/bin/sh\nexit 0\n' >"$work/b"
refuses "one that prints nothing" 'b printed no rows' moe-bench compare --run "$work/a" "$work/b"
refuses "one that is not there" 'none' moe-bench compare --run "$work/a" "$work/none"
runs 0 "moe-bench itself" moe-bench compare --run --rounds 2 --threshold 99 moe-bench moe-bench -- -m synth:tiny-mixtral -p 8 -n 0 -r 2 -t 1 --no-roofs

: >"$work/bad"
refuses "an empty file" 'bad: there are no rows' moe-bench compare "$work/old" "$work/bad"
echo nonsense >"$work/bad"
refuses "no JSON" 'bad: line 1' moe-bench compare "$work/old" "$work/bad"
{ row pp8 1 $steady; echo '{"test":'; } >"$work/bad"
refuses "a row cut short" 'bad: line 2' moe-bench compare "$work/old" "$work/bad"
echo '[3]' >"$work/bad"
refuses "a number for a row" 'a row is an object' moe-bench compare "$work/bad" "$work/old"
echo '{"test":"pp8"}' >"$work/bad"
refuses "no samples" 'samples_ns' moe-bench compare "$work/old" "$work/bad"
row pp8 1 1,0 >"$work/bad"
refuses "a time of 0" 'no time above 0' moe-bench compare "$work/old" "$work/bad"
refuses "no such file" 'none' moe-bench compare "$work/old" "$work/none"
runs 2 "rounds of files" moe-bench compare --rounds 3 "$work/old" "$work/old"
runs 2 "no programs" moe-bench compare --run -- -m model -p 8
has "are asked for" 'which two programs' "$work/err"
runs 2 "one program" moe-bench compare --run moe-bench -- -m model -p 8
has "is one too few" 'which two programs' "$work/err"
runs 2 "one file" moe-bench compare "$work/old"
runs 2 "three files" moe-bench compare "$work/old" "$work/old" "$work/old"
runs 2 "a format that is none" moe-bench compare -o xml "$work/old" "$work/old"
finish
