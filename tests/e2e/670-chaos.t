#!/bin/sh
# A short chaos: servers are killed and stopped while requests are under way, and every answer is the undisturbed one.
# tests/chaos/README.md has the long ones.
top=$(cd "$(dirname "$0")/../.." && pwd)
MOE_BIN=${MOE_BIN:-$top/bin} exec "$top/tests/chaos/chaos.sh" --tap --net tcp --faults kill,stop --seed 7 --minutes 0.3 --requests 60 --tokens 30 \
	--patience 300
