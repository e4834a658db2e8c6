# TAP for shell tests.  A test sources this file, calls the checks below and ends with `finish`.
#   . "$(dirname "$0")/../lib.sh"
#
# It gives: $top (the project), $work (a fresh folder, removed at the end), the tools on PATH.

top=$(cd "$(dirname "$0")/../.." && pwd)
PATH=${MOE_BIN:-$top/bin}:$PATH
export PATH
work=$(mktemp -d "${TMPDIR:-/tmp}/moe-test.XXXXXX")
n=0
bad=0
pids=
trap 'for p in $pids; do kill "$p" 2>/dev/null; done; rm -rf "$work"' EXIT
trap 'exit 1' INT TERM

# ok STATUS WORDS...: one check; STATUS 0 is success.
ok() {
	n=$((n + 1))
	s=$1
	shift
	if [ "$s" -eq 0 ]; then echo "ok $n - $*"; else echo "not ok $n - $*"; bad=1; fi
}

# same WORDS FILE FILE: the two files are equal, byte for byte.
same() {
	cmp -s "$2" "$3"
	s=$?
	ok $s "$1"
	[ $s -eq 0 ] || { diff "$2" "$3" | head -10 | sed 's/^/# /'; }
}

# runs STATUS WORDS COMMAND...: the exit status is STATUS; output is kept in $work/out and $work/err.
runs() {
	want=$1
	words=$2
	shift 2
	"$@" >"$work/out" 2>"$work/err" </dev/null
	got=$?
	[ "$got" -eq "$want" ]
	s=$?
	ok $s "$words"
	[ $s -eq 0 ] || { echo "# exit status $got, wanted $want"; head -5 "$work/err" | sed 's/^/# /'; }
}

# refuses WORDS PATTERN COMMAND...: exit status 1, exactly one line on stderr, and it matches PATTERN (egrep).
refuses() {
	words=$1
	pattern=$2
	shift 2
	"$@" >"$work/out" 2>"$work/err" </dev/null
	got=$?
	[ "$got" -eq 1 ] && [ "$(wc -l <"$work/err")" -eq 1 ] && grep -Eq -- "$pattern" "$work/err"
	s=$?
	ok $s "$words"
	[ $s -eq 0 ] || { echo "# exit status $got, stderr:"; head -5 "$work/err" | sed 's/^/# /'; }
}

# has WORDS PATTERN FILE
has() {
	grep -Eq -- "$2" "$3"
	s=$?
	ok $s "$1"
	[ $s -eq 0 ] || head -5 "$3" | sed 's/^/# /'
}

skip() {
	n=$((n + 1))
	echo "ok $n # SKIP $*"
}

finish() {
	echo "1..$n"
	exit $bad
}
