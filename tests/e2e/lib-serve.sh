# Servers for end-to-end tests; source it after ../lib.sh.
#
#   serve_start SHARDS [OPTION...]   moe-serve in the background, until its ready file is there.  Sets $hosts (the file)
#                                    and $server (its process).  Status 1 when the servers end or stay silent.
#   serve_stop                       SIGTERM and wait: moe-serve's exit status
#   waits FILE N PATTERN             until the file has N lines that match
#
# Sockets lie under $work/run, servers' words in $work/serve.err.

mkdir -p -m 700 "$work/run"
XDG_RUNTIME_DIR=$work/run
export XDG_RUNTIME_DIR
server=
hosts=
serve_n=0

serve_start() {
	serve_n=$((serve_n + 1))
	hosts=$work/hosts.$serve_n
	serve_shards=$1
	shift
	moe-serve --ready-file "$hosts" "$@" "$serve_shards" >"$work/serve.out" 2>"$work/serve.err" </dev/null &
	server=$!
	pids="$pids $server"
	serve_tries=0
	while [ ! -e "$hosts" ]; do
		kill -0 "$server" 2>/dev/null || break
		serve_tries=$((serve_tries + 1))
		[ $serve_tries -lt 600 ] || break
		sleep 0.1
	done
	[ -e "$hosts" ] && return 0
	sed 's/^/# /' "$work/serve.err" | head -5
	return 1
}

serve_stop() {
	kill -TERM "$server" 2>/dev/null
	wait "$server"
	serve_status=$?
	pids=$(for p in $pids; do [ "$p" = "$server" ] || echo "$p"; done | tr '\n' ' ')
	server=
	return $serve_status
}

waits() {
	tries=0
	while [ ! -e "$1" ] || [ "$(grep -Ec -- "$3" "$1")" -lt "$2" ]; do
		tries=$((tries + 1))
		[ $tries -lt 1200 ] || { tail -5 "$1" | sed 's/^/# /'; return 1; }
		sleep 0.1
	done
}
