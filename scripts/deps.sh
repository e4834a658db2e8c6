#!/bin/sh
# What moe-tools needs of Debian: deps.sh list | present | install
#
#   list     print the packages
#   present  exit 0 when all that building and testing needs is there, else name what is missing
#   install  install it (as root), or say what to install

packages="gcc libc6-dev make pkg-config libzmq3-dev libcjson-dev libpcre2-dev libutf8proc-dev libxxhash-dev libmicrohttpd-dev coinor-libcbc-dev libcmocka-dev perl diffutils mandoc"

missing() {
	for c in cc:gcc pkg-config:pkg-config prove:perl diff:diffutils mandoc:mandoc; do
		command -v "${c%%:*}" >/dev/null 2>&1 || echo "${c#*:}"
	done
	for l in libzmq:libzmq3-dev libcjson:libcjson-dev libpcre2-8:libpcre2-dev libutf8proc:libutf8proc-dev libxxhash:libxxhash-dev libmicrohttpd:libmicrohttpd-dev cbc:coinor-libcbc-dev \
		cmocka:libcmocka-dev; do
		pkg-config --exists "${l%%:*}" 2>/dev/null || echo "${l#*:}"
	done
	[ -e /usr/include/stdlib.h ] || echo libc6-dev
}

case $1 in
list)
	echo "$packages"
	;;
present)
	m=$(missing | tr '\n' ' ')
	[ -z "$m" ] || { echo "missing: $m"; exit 1; }
	;;
install)
	m=$(missing | tr '\n' ' ')
	[ -n "$m" ] || exit 0
	if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then
		echo "missing: $m" >&2
		echo "install them as root: apt-get install $packages" >&2
		exit 1
	fi
	echo "installing: $m"
	{ apt-get install -y --no-install-recommends $packages || { apt-get update && apt-get install -y --no-install-recommends $packages; }; } \
		>/tmp/moe-deps.$$ 2>&1 || { tail -n 5 /tmp/moe-deps.$$ >&2; rm -f /tmp/moe-deps.$$; exit 1; }
	rm -f /tmp/moe-deps.$$
	;;
*)
	echo "usage: deps.sh list|present|install" >&2
	exit 2
	;;
esac
