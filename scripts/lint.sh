#!/bin/sh
# Static checks: cppcheck over the C sources, mandoc over the man pages.
cd "$(dirname "$0")/.." || exit 1
bad=0
cppcheck --quiet --std=c11 --enable=warning,performance,portability --inline-suppr --error-exitcode=1 -j2 \
	--suppress=missingIncludeSystem --suppress=normalCheckLevelMaxBranches --suppress=unmatchedSuppression -D__linux__ -D_GNU_SOURCE \
	-Ilib lib tools || bad=1
mandoc -T lint -W warning man/*.[157] || bad=1
exit $bad
