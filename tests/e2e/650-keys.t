#!/bin/sh
# Keys: who has the right ones gets the same answers over tcp; whoever has not gets one clear line, and nothing else.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib-serve.sh"

tap=${MOE_TESTS:-$top/build/release/tests}/tools/wiretap
model=synth:tiny-mixtral
cd "$work" || exit 1
for i in 1 2 3; do echo "{\"id\":$i,\"tokens\":[$i,7,9,11],\"max_tokens\":5,\"logprobs\":true}"; done >requests
moe-route $model <requests >here
ok $? "in one process"

# ask WORDS OPTION...: the same answers as in one process
ask() {
	words=$1
	shift
	moe-route --timeout 60 "$@" $model <requests >there 2>err
	same "$words" here there
}
# denied WORDS PATTERN OPTION...: exit status 1 and one line, which names the server
denied() {
	words=$1
	pattern=$2
	shift 2
	refuses "$words" "$pattern" moe-route "$@" $model
}
keyed() {
	serve_start $model --bind tcp://127.0.0.1:0 --server-key server --authorized-keys clients "$@"
}
port() {
	sed -n 's/.*:\([0-9]*\).*/\1/p' "$hosts" | head -1
}

# ---- files ----

runs 0 "a key for a server" moe-serve keygen server
has "the public line is printed" '^[0-9a-f]{64} server$' out
same "and is what others get" out server.pub
[ "$(stat -c %a server)" = 600 ] && [ "$(stat -c %a server.pub)" = 644 ]
ok $? "the secret is for its owner alone"
refuses "no key is replaced" 'server.*is there already' moe-serve keygen server
for who in alice bob mallory; do moe-serve keygen "$who" >/dev/null || exit 1; done
cat alice.pub bob.pub >clients

# ---- the command line ----

refuses "tcp without keys is refused, and says what to do" 'keygen.*--server-key.*--authorized-keys.*--insecure' \
	moe-serve --bind tcp://127.0.0.1:0 $model
runs 2 "a key and no list" moe-serve --bind tcp://127.0.0.1:0 --server-key server $model
runs 2 "a list and no key" moe-serve --bind tcp://127.0.0.1:0 --authorized-keys clients $model
runs 2 "keys and --insecure" moe-serve --bind tcp://127.0.0.1:0 --server-key server --authorized-keys clients --insecure $model
runs 2 "servers' keys and none of ours" moe-route --server-key server.pub --connect tcp://127.0.0.1:1 $model
runs 2 "keys and no servers" moe-route --client-key alice $model
runs 2 "moe-bench too" moe-bench -m $model --client-key alice
chmod 640 server
refuses "a secret that others may read" 'server: mode 0640 lets others read it' \
	moe-serve --bind tcp://127.0.0.1:0 --server-key server --authorized-keys clients $model
chmod 600 server
refuses "a public key in the secret one's place" 'server.pub: ' \
	moe-serve --bind tcp://127.0.0.1:0 --server-key server.pub --authorized-keys clients $model
refuses "a secret key in a list" 'alice: line 2: this is a file with a secret key' \
	moe-serve --bind tcp://127.0.0.1:0 --server-key server --authorized-keys alice $model

# ---- right keys ----

moe-shard -q --devices 2 $model two >/dev/null || exit 1
serve_start two --bind tcp://127.0.0.1:0 --server-key server --authorized-keys clients
ok $? "two servers with keys"
has "the ready line tells the key" "\"key\":\"$(cut -c 1-64 server.pub)\"" serve.out
[ "$(grep -c " key=$(cut -c 1-64 server.pub)$" "$hosts")" -eq 2 ]
ok $? "so does the ready file, for both"
model=two
ask "the same answers, with the key of the hosts file" --hosts "$hosts" --client-key alice
sed 's/ key=.*//' "$hosts" >bare
cat mallory.pub server.pub >servers
ask "and with a list of keys that servers may have" --hosts bare --client-key bob --server-key servers
runs 0 "moe-bench has the same options" moe-bench -m two --hosts "$hosts" --client-key alice -p 8 -n 2 -r 1 -o csv
cp "$hosts" again
serve_stop
refuses "a ready file of an earlier run is known as one" "rank 9" moe-serve --rank 9 --ready-file again two
[ ! -e again ]
ok $? "and removed"
model=synth:tiny-mixtral
mkdir -m 700 private
serve_start $model --bind "ipc://$work/private/s" --server-key server --authorized-keys clients
ask "over ipc as well" --hosts "$hosts" --client-key alice
denied "where keys are as good" "client's key .* is not on the server's list" --hosts "$hosts" --client-key mallory
serve_stop

# ---- wrong keys, and none ----

keyed
p=$(port)
denied "no key, and the hosts file says that there is one" "tcp://127.0.0.1:$p: .*--client-key" --hosts "$hosts"
denied "no key at all" "tcp://127.0.0.1:$p: the handshake failed: does it want keys" --timeout 3 --connect "tcp://127.0.0.1:$p"
denied "a client that is not on the list" "tcp://127.0.0.1:$p: this client's key \($(cut -c 1-64 mallory.pub)\) is not on the server's list" \
	--hosts "$hosts" --client-key mallory
has "the server tells whom it refused" "refused a client at 127.0.0.1: its key $(cut -c 1-64 mallory.pub)" serve.err
denied "another server's key" "tcp://127.0.0.1:$p: the handshake failed" --connect "tcp://127.0.0.1:$p" --client-key alice --server-key mallory.pub
denied "nobody said which key the server has" "tcp://127.0.0.1:$p: which key has this server" --connect "tcp://127.0.0.1:$p" --client-key alice
ask "the server serves on" --hosts "$hosts" --client-key alice

# ---- strangers on the port ----

"$tap" garbage "127.0.0.1:$p" 100000 >tapped
has "noise: the connection is ended" 'ended$' tapped
"$tap" record "127.0.0.1:$p" said >listening &
recorder=$!
tries=0
while [ ! -s listening ] && [ $tries -lt 300 ]; do tries=$((tries + 1)); sleep 0.1; done
ask "somebody listens in" --connect "tcp://127.0.0.1:$(cat listening)" --client-key alice --server-key server.pub
wait "$recorder"
ok $? "and keeps what was said"
! LC_ALL=C grep -qa 'MOEW\|f32\|sum2' said
ok $? "of which nothing can be read"
"$tap" replay "127.0.0.1:$p" said >tapped
has "saying it again: the connection is ended" 'ended$' tapped
# Its greeting and its half of the handshake are 300 bytes; an answer is thousands.
[ "$(sed -n 's/ bytes back.*//p' tapped)" -lt 500 ]
ok $? "with nothing answered"

if [ "$(ulimit -n)" -ge 2500 ]; then
	mkfifo hold
	"$tap" idle "127.0.0.1:$p" 1000 <hold >idle &
	idler=$!
	exec 9>hold
	tries=0
	while [ ! -s idle ] && [ $tries -lt 600 ]; do tries=$((tries + 1)); sleep 0.1; done
	has "1000 connections that say nothing" '^1000 open' idle
	ask "and the same answers beside them" --hosts "$hosts" --client-key alice
	exec 9>&-
	wait "$idler"
else
	skip "1000 connections: ulimit -n is $(ulimit -n)"
fi

if [ "$(id -u)" -eq 0 ] && command -v setpriv >/dev/null; then
	stranger="setpriv --reuid=65534 --regid=65534 --clear-groups env XDG_RUNTIME_DIR= TMPDIR=/tmp"
	mkdir -m 777 theirs
	chmod 711 "$work"
	$stranger moe-serve keygen "$work/theirs/key" >/dev/null
	cp server.pub theirs/
	refuses "another user of this host, without a key" "the handshake failed" \
		$stranger moe-route --timeout 3 --connect "tcp://127.0.0.1:$p" $model
	refuses "another user of this host, with a key of his own" "is not on the server's list" \
		$stranger moe-route --connect "tcp://127.0.0.1:$p" --client-key "$work/theirs/key" --server-key "$work/theirs/server.pub" $model
	refuses "our keys are closed to him" "Permission denied|belongs to another user" \
		$stranger moe-route --connect "tcp://127.0.0.1:$p" --client-key "$work/alice" --server-key "$work/theirs/server.pub" $model
	other=$server
	server=
	serve_start $model
	socket=$(head -1 "$hosts")
	refuses "and so is the private folder" "$socket" $stranger moe-route --timeout 2 --connect "$socket" $model
	serve_stop
	server=$other
else
	skip "another user of this host: only root can be one"
fi
serve_stop
ok $? "the server ends as it should"

# ---- off the list ----

# appears PATTERN FILE: within a minute
appears() {
	tries=0
	while ! grep -Eq -- "$1" "$2" && [ $tries -lt 600 ]; do tries=$((tries + 1)); sleep 0.1; done
	grep -Eq -- "$1" "$2"
}
# reread WORDS: the servers read their list
reread() {
	: >serve.err
	kill -HUP "$server"
	appears 'keys was read again|keys stay as they were' serve.err
	ok $? "$1"
}
keyed
mkfifo questions
moe-route --timeout 60 --hosts "$hosts" --client-key bob $model <questions >answers 2>err &
bob=$!
exec 9>questions
head -1 requests >&9
appears '"id":1.*"tokens"' answers
ok $? "bob is served"
cp alice.pub clients
reread "bob is taken off the list"
sed -n 2p requests >&9
exec 9>&-
wait "$bob"
[ $? -eq 1 ]
ok $? "his connection is of no use any more: exit status 1"
has "the request gets an error with its id, and why" '"id":2.*"error".*not on the server.s list any more' answers
denied "he cannot come back" "this client's key .* is not on the server's list" --hosts "$hosts" --client-key bob
ask "others are served on" --hosts "$hosts" --client-key alice
echo "half a li" >clients
reread "a list that cannot be read"
has "is told" 'clients: line 1: not a key' serve.err
ask "and changes nothing" --hosts "$hosts" --client-key alice
serve_stop
cat alice.pub bob.pub >clients

# ---- a client with keys is not talked out of them ----

serve_start $model --bind tcp://127.0.0.1:0 --insecure
denied "a server without keys" "the handshake failed" --hosts "$hosts" --client-key alice --server-key server.pub
serve_stop
finish
