#!/bin/sh
# The units under a systemd of their own: started, reloaded, hung, killed, stopped.  Run by hand as root, from a built tree:
#
#   tests/launch/systemd.sh
#
# systemd runs in a container (systemd-nspawn) over a throw-away layer on this machine's files: nothing outside changes, and there is
# no network.  What it does inside is below, from "inside" on.
inside() {
	. /moe/tests/lib.sh
	PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin
	unit=moe-serve.service

	# field NAME: a property of the unit.
	field() {
		systemctl show --value -p "$1" "$unit"
	}
	# becomes NAME PATTERN: it is so within 60 seconds.
	becomes() {
		i=0
		while ! field "$1" | grep -Eq -- "$2" && [ $i -lt 600 ]; do
			sleep 0.1
			i=$((i + 1))
		done
		field "$1" | grep -Eq -- "$2"
	}
	route() {
		moe-route --hosts "$1" --client-key /etc/moe-tools/client.key --timeout 60 -p "In the beginning" -n 8 /srv/moe/shards
	}

	runs 0 "systemd checks the units" systemd-analyze verify --man=no moe-serve.service moe-serve@1.service
	moe-route -p "In the beginning" -n 8 /srv/moe/shards >"$work/whole" 2>/dev/null
	runs 1 "without keys nothing is started" systemctl start $unit
	systemctl stop $unit
	moe-serve keygen /etc/moe-tools/server.key >/dev/null
	moe-serve keygen /etc/moe-tools/client.key >/etc/moe-tools/authorized-keys
	cat >/etc/moe-tools/moe-serve.conf <<-X
		MOE_BIND=tcp://127.0.0.1:6000
		MOE_OPTIONS=--weights lock --threads 1
	X
	runs 0 "started: systemctl waits until all servers are ready" systemctl start $unit
	systemctl status --no-pager $unit | sed 's/^/# /'
	[ "$(field SubState)" = running ] || { journalctl --no-pager -q -u $unit | head -20 | sed 's/^/# /'; finish; }
	has "status has moe-serve's words" '^2 servers ready$' /dev/stdin <<-X
		$(field StatusText)
	X
	[ "$(ps -o user= -p "$(field MainPID)")" = moe ] && ! getent -s files passwd moe >/dev/null
	ok $? "the user is made up while it runs"
	has "the ready file has the public key" '^tcp://127.0.0.1:6000 key=' /run/moe-serve/hosts
	runs 0 "moe-serve status: all is well" moe-serve status --hosts /run/moe-serve/hosts --client-key /etc/moe-tools/client.key
	sed 's/^/# /' "$work/out"
	runs 0 "its ready file is where others read it" route /run/moe-serve/hosts
	same "the same answer as without servers" "$work/whole" "$work/out"
	has "WatchdogSec is heard" '^1min$' /dev/stdin <<-X
		$(field WatchdogUSec)
	X

	# ---- a server that hangs is restarted
	mkdir -p /run/systemd/system/$unit.d
	printf '[Service]\nWatchdogSec=2s\n' >/run/systemd/system/$unit.d/soon.conf
	systemctl daemon-reload
	runs 0 "restarted, with a watchdog of 2 seconds" systemctl restart $unit
	pkill -STOP -P "$(field MainPID)" -o
	becomes NRestarts '^[1-9]' && becomes SubState '^running$'
	ok $? "one of two servers hangs: systemd restarts them"
	journalctl --no-pager -q -u $unit 2>/dev/null | grep -i watchdog | head -2 | sed 's/^/# /'
	runs 0 "and they answer" route /run/moe-serve/hosts
	same "the same" "$work/whole" "$work/out"

	# ---- a server that dies is restarted
	before=$(field NRestarts)
	systemctl kill -s KILL --kill-who=main $unit
	becomes NRestarts "^$((before + 1))\$" && becomes SubState '^running$'
	ok $? "killed: systemd restarts it"
	runs 0 "stopped" systemctl stop $unit
	[ "$(field Result)" = success ] && [ "$(field ExecMainStatus)" = 0 ]
	ok $? "with status 0"
	[ ! -e /run/moe-serve ]
	ok $? "and its folder is gone"

	# ---- wrong usage does not come back
	printf 'MOE_BIND=tcp://127.0.0.1:6000\nMOE_OPTIONS=--nonsense\n' >/etc/moe-tools/moe-serve.conf
	runs 1 "wrong usage does not start" systemctl start $unit
	[ "$(field NRestarts)" = 0 ] && [ "$(field ExecMainStatus)" = 2 ]
	ok $? "and is not tried again"

	# ---- one rank each
	echo 'MOE_OPTIONS=--threads 1' >/etc/moe-tools/moe-serve.conf
	for r in 0 1; do
		echo "MOE_BIND=tcp://127.0.0.1:601$r" >/etc/moe-tools/moe-serve@$r.conf
	done
	runs 0 "two instances" systemctl start moe-serve@0 moe-serve@1
	cat /run/moe-serve-0/hosts /run/moe-serve-1/hosts >"$work/hosts"
	runs 0 "moe-route uses both" route "$work/hosts"
	same "the same again" "$work/whole" "$work/out"
	unit=moe-serve@0.service
	pid0=$(field MainPID)
	unit=moe-serve@1.service
	systemctl kill -s KILL $unit
	becomes NRestarts '^1$' && becomes SubState '^running$'
	ok $? "one is killed and comes back"
	unit=moe-serve@0.service
	[ "$(field MainPID)" = "$pid0" ]
	ok $? "the other did not notice"
	runs 0 "and moe-route uses both" route "$work/hosts"
	runs 0 "stopped" systemctl stop moe-serve@0 moe-serve@1
	finish
}

# In namespaces of our own: the layer, what is installed on it, and systemd.
container() {
	layer=$1
	top=$2
	mount --make-rprivate / && mount -t tmpfs tmpfs "$layer" && mkdir "$layer/up" "$layer/work" "$layer/root" &&
		mount -t overlay overlay -o "lowerdir=/,upperdir=$layer/up,workdir=$layer/work" "$layer/root" || return 1
	root=$layer/root
	make -s -C "$top" install DESTDIR="$root" PREFIX=/usr/local || return 1
	mkdir -p "$root/moe/tests" "$root/srv/moe" "$root/etc/moe-tools" "$root/usr/local/lib/systemd/system"
	cp "$top/tests/lib.sh" "$0" "$root/moe/tests/"
	"$top/bin/moe-shard" -q --devices 2 "$top/models/kjv-mixtral" "$root/srv/moe/shards" >/dev/null || return 1
	chmod -R a+rX "$root/srv/moe"
	cat >"$root/usr/local/lib/systemd/system/moe-test.service" <<-X
		[Service]
		Type=oneshot
		ExecStart=/bin/sh /moe/tests/$(basename "$0") inside
		StandardOutput=file:/moe/tap
		StandardError=inherit
		ExecStopPost=/bin/systemctl exit --force
	X
	cat >"$root/usr/local/lib/systemd/system/moe-test.target" <<-X
		[Unit]
		Wants=moe-test.service systemd-journald.service
		After=systemd-journald.service
	X
	SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 timeout 120 systemd-nspawn -q -D "$root" --register=no --keep-unit --private-network \
		--capability=CAP_SYS_RESOURCE,CAP_IPC_LOCK /usr/lib/systemd/systemd --unit=moe-test.target --show-status=no >"$layer/console" 2>&1 </dev/null
	cat "$root/moe/tap" 2>/dev/null || cat "$layer/console"
	! grep -q '^not ok' "$root/moe/tap"
}

case $1 in
inside) inside ;;
container) container "$2" "$3" ;;
*)
	top=$(cd "$(dirname "$0")/../.." && pwd)
	[ "$(id -u)" -eq 0 ] && command -v systemd-nspawn >/dev/null || { echo "1..0 # SKIP it takes root and systemd-nspawn"; exit 0; }
	layer=$(mktemp -d)
	trap 'rmdir "$layer"' EXIT
	unshare --mount sh "$0" container "$layer" "$top"
	;;
esac
