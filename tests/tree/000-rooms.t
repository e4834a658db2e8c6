#!/bin/sh
# The house: a room includes only itself and the rooms before it; tools include no tool; no room is unknown;
# a room's private headers stay inside.
. "$(dirname "$0")/../lib.sh"
cd "$top" || exit 1

rooms="base watch http tensor checkpoint text schedule plan shard compute measure pool net engine run"

rank() {
	i=0
	for r in $rooms; do
		[ "$r" = "$1" ] && { echo $i; return; }
		i=$((i + 1))
	done
	echo -1
}

# includes FILE: the room and header of every include of ours.
includes() {
	sed -n 's/^#include "\(.*\)".*/\1/p' "$1"
}

for dir in lib/*/; do
	room=$(basename "$dir")
	me=$(rank "$room")
	[ "$me" -ge 0 ]
	ok $? "$room is a room of the plan"
	wrong=
	for f in $(find "$dir" -name '*.[ch]' -o -name '*.inc' -o -name '*.cu' -o -name '*.cuh'); do
		for inc in $(includes "$f"); do
			case $inc in
			../*)
				case $(realpath --relative-to=. "$(dirname "$f")/$inc") in
				"lib/$room"/*) ;;
				*) wrong="$wrong $f:$inc" ;;
				esac
				continue
				;;
			*/*) other=${inc%%/*} ;;
			*) continue ;;
			esac
			[ -d "lib/$other" ] || continue
			it=$(rank "$other")
			[ "$it" -le "$me" ] || wrong="$wrong $f:$inc"
			if [ "$other" != "$room" ] && [ "$other" != base ] && [ "$inc" != "$other/$other.h" ]; then
				wrong="$wrong $f:$inc(private)"
			fi
			if { [ "$room" = net ] && [ "$other" = engine ]; } || { [ "$room" = engine ] && [ "$other" = net ]; }; then
				wrong="$wrong $f:$inc(net and engine meet only in run)"
			fi
		done
	done
	[ -z "$wrong" ]
	ok $? "$room includes only rooms before it, by their public header"
	[ -z "$wrong" ] || echo "# $wrong"
done

wrong=
for f in tools/*/*.[ch]; do
	tool=$(basename "$(dirname "$f")")
	for inc in $(includes "$f"); do
		case $inc in
		tensor/*) wrong="$wrong $f:$inc" ;;
		*/*)
			room=${inc%%/*}
			[ -f "lib/$inc" ] || wrong="$wrong $f:$inc"
			[ "$room" = base ] || [ "$inc" = "$room/$room.h" ] || wrong="$wrong $f:$inc"
			;;
		*) [ -f "tools/$tool/$inc" ] || wrong="$wrong $f:$inc" ;;
		esac
	done
done
[ -z "$wrong" ]
ok $? "tools use public headers, their own, and no tensor internals"
[ -z "$wrong" ] || echo "# $wrong"

wrong=$(grep -lE '\b(exit|abort|_exit)\(|\b(printf|puts|perror)\(|fprintf\((stdout|stderr)' lib/*/*.c lib/*/cpu/*.c 2>/dev/null |
	grep -vE '^lib/base/(log|opts|progress)\.c$')
[ -z "$wrong" ]
ok $? "the library neither prints nor exits (but for base's log, opts and progress)"
[ -z "$wrong" ] || echo "# $wrong"

wrong=$(grep -L CM_OUTPUT_TAP tests/unit/*.c tests/cuda/*.c)
[ -z "$wrong" ]
ok $? "unit tests print TAP"
[ -z "$wrong" ] || echo "# $wrong"

wrong=$(grep -rlE 'cJSON' lib tools --include='*.[ch]' | grep -vE '^lib/base/json')
[ -z "$wrong" ]
ok $? "cJSON is known in one place"
[ -z "$wrong" ] || echo "# $wrong"

finish
