#!/bin/sh
# systemd's units: installed where they belong, understood by systemd, closed to what a server does not need.
. "$(dirname "$0")/../lib.sh"
case $MOE_BIN in
*san-*) echo "1..0 # SKIP what is installed is the build without sanitizers"; exit 0 ;;
esac

runs 0 "installed" make -s -C "$top" install DESTDIR="$work/to" PREFIX=/opt/moe
units=$work/to/opt/moe/lib/systemd/system
for u in moe-serve.service moe-serve@.service; do
	has "$u names the program where it is" '^ExecStart=/opt/moe/bin/moe-serve ' "$units/$u"
	[ "$(grep -c '^Type=notify$\|^WatchdogSec=\|^LimitMEMLOCK=infinity$\|^ProtectSystem=strict$\|^NoNewPrivileges=yes$' "$units/$u")" -eq 5 ]
	ok $? "$u: what other pages promise of it"
done
[ -s "$work/to/opt/moe/share/moe-tools/systemd/gpu.conf" ]
ok $? "the rest lies under share"

if command -v systemd-analyze >/dev/null 2>&1; then
	MANPATH=$work/to/opt/moe/share/man
	export MANPATH
	for u in moe-serve.service moe-serve@3.service; do
		mkdir -p "$work/$u"
		sed "s,/opt/moe/,$work/to&," "$units/$(echo "$u" | sed 's/@3/@/')" >"$work/$u/$u"
		runs 0 "$u is what systemd understands" systemd-analyze verify "$work/$u/$u"
		grep -v "Command 'man" "$work/err" >"$work/words"
		[ ! -s "$work/words" ]
		ok $? "and has nothing to say about"
		runs 0 "$u: exposed at most 2.0 of 10" systemd-analyze security --offline=true --threshold=20 "$work/$u/$u"
	done
else
	skip "no systemd-analyze"
fi

runs 0 "uninstalled" make -s -C "$top" uninstall DESTDIR="$work/to" PREFIX=/opt/moe
[ -z "$(find "$work/to" -type f)" ]
ok $? "nothing is left"
finish
