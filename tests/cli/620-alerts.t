#!/bin/sh
# The alert rules for Prometheus: well formed, and each fires when it should.
. "$(dirname "$0")/../lib.sh"
rules=$top/share/prometheus

if command -v promtool >/dev/null; then
	runs 0 "the rules are well formed" promtool check rules "$rules/moe-alerts.yml"
	runs 0 "so is the configuration that reads them" promtool check config "$rules/moe-prometheus.yml"
	runs 0 "each alert fires when it should" promtool test rules "$rules/moe-alerts.test.yml"
	sed 's/^/# /' "$work/out" | grep FAILED
else
	skip "no promtool"
fi

# A rule on a metric that nobody counts would never fire.
wrong=
for name in $(grep -oE '\bmoe_[a-z_]+' "$rules/moe-alerts.yml" | sort -u); do
	grep -Eq "(^|[ ,])$name( |$)" "$top/man/moe-metrics.7" || wrong="$wrong $name"
done
[ -z "$wrong" ]
ok $? "all metrics of the rules are in moe-metrics(7)"
[ -z "$wrong" ] || echo "# not there:$wrong"
wrong=
for alert in $(sed -n 's/.*- alert: //p' "$rules/moe-alerts.yml"); do
	grep -A1 "alertname: $alert\$" "$rules/moe-alerts.test.yml" | grep -q exp_alerts || wrong="$wrong $alert"
done
[ -z "$wrong" ]
ok $? "every alert has a test in which it fires"
[ -z "$wrong" ] || echo "# without:$wrong"
finish
