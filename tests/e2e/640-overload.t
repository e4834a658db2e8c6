#!/bin/sh
# More requests than can be done: who waits, who is refused, and that each gets its line.
. "$(dirname "$0")/../lib.sh"

model=$top/models/kjv-mixtral
request() {
	printf '{"id":"%s","prompt":"And it came to pass","max_tokens":4%s}\n' "$@"
}
route() {
	moe-route --ctx 64 --batch 1 "$@" "$model" >"$work/out" 2>"$work/err"
	status=$?
}
# ids CODE: the ids of the answers with that error, or (none) of those without one, sorted.
ids() {
	case $1 in
	none) grep -v '"error"' "$work/out" ;;
	*) grep "\"code\":\"$1\"" "$work/out" ;;
	esac | sed 's/^{"id":"\([^"]*\)".*/\1/' | sort | tr -d '\n'
}
is() { # is WORDS GOT WANTED
	[ "$2" = "$3" ]
	s=$?
	ok $s "$1"
	[ $s -eq 0 ] || { echo "# $2, wanted $3"; sed 's/^/# /' "$work/out" "$work/err" | head -20; }
}

# All lines are there at once, so they are read before the first step.
for id in a b c d e f; do request $id; done >"$work/in"
route <"$work/in"
is "by default all wait" "$(ids none)" abcdef
cp "$work/out" "$work/all"

route --max-waiting 2 --unordered <"$work/in"
is "with --max-waiting 2 one runs and two wait" "$(ids none)" abc
is "the others are refused" "$(ids overloaded)" def
is "which makes the exit status 1" "$status" 1
grep -v '"error"' "$work/out" | sort >"$work/some"
head -3 "$work/all" | sort >"$work/first"
same "those that are not refused have the same answers" "$work/first" "$work/some"

route --max-waiting 2 <"$work/in"
is "in order, refusals have their place" "$(sed 's/^{"id":"\([^"]*\)".*/\1/' "$work/out" | tr -d '\n')" abcdef

{ request a; request b; request c; request d ',"priority":5'; request e ',"priority":-1'; } >"$work/in"
route --max-waiting 2 --unordered <"$work/in"
is "the last of the lowest priority gives way" "$(ids overloaded)" ce
has "and is told why" '"id":"c".*gave way to a request of higher priority' "$work/out"

route --max-waiting 0 <"$work/in"
is "with --max-waiting 0 nobody waits" "$(ids none)" d

# Memory is short from the start: how short decides whether requests wait or are refused.
for id in a b c; do request $id; done >"$work/in"
route --memory-pressure 0.001 <"$work/in"
is "with memory short each request has its line" "$(sed 's/^{"id":"\([^"]*\)".*/\1/' "$work/out" | tr -d '\n')" abc
is "answered, or refused as too much" "$(grep -c '"length"\|"overloaded"' "$work/out")" 3
has "the operator is told" 'memory: [0-9]+ % in use; no prompts are kept' "$work/err"
route --memory-pressure 1 <"$work/in"
is "--memory-pressure 1 takes no notice" "$(ids none)" abc
runs 2 "--memory-pressure is a share" moe-route --memory-pressure 2 "$model"

runs 2 "--max-waiting does not go with -p" moe-route --max-waiting 1 -p And "$model"
runs 2 "--max-waiting takes no negative number" moe-route --max-waiting -1 "$model"

finish
