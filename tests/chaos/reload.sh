#!/bin/sh
# Experts move while they are in use; see README.md, or --help.  The programs are those of MOE_BIN, else of this tree.
here=$(cd "$(dirname "$0")" && pwd)
PATH=${MOE_BIN:-$here/../../bin}:$PATH exec perl "$here/reload.pl" "$@"
