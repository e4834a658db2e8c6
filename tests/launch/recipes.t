#!/bin/sh
# Files under share/, and moe-launch(7), as people copy them: options that there are, manifests that can be read.
. "$(dirname "$0")/../lib.sh"
cd "$top" || exit 1

# Options of each tool, and of all.
for t in moe-serve moe-route moe-shard moe-policy moe-bench; do
	{ "$t" --help; [ $t != moe-serve ] || moe-serve status --help; } | grep -o -- '--[a-z][a-z-]*' | sort -u >"$work/$t"
done

# options FILE: TOOL and OPTION of every command of ours in it that is not a comment.  In a manifest the command comes before its args.
options() {
	sed 's/^#.*//; s/\\&//g; s/ # .*//' "$1" | awk '{
		gsub(/[][,"|()]/, " ")
		for (i = 1; i <= NF; i++) {
			if ($i ~ /(^|\/)moe-(serve|route|shard|policy|bench)$/) { tool = $i; sub(/.*\//, "", tool) }
			else if ($i ~ /^(rsync|srun|sbatch|scancel|mpirun|systemctl|kubectl|scontrol|cat)$/) tool = ""
			else if (tool && $i ~ /^(MOE_OPTIONS=)?--[a-z][a-z-]*/) { sub(/^MOE_OPTIONS=/, "", $i); sub(/=.*/, "", $i); print tool, $i }
		}
	}' | sort -u
}

for f in share/*/* man/moe-launch.7; do
	options "$f" >"$work/used"
	[ -s "$work/used" ] || continue
	unknown=$(while read -r tool option; do grep -qx -e "$option" "$work/$tool" || echo "$tool $option"; done <"$work/used" | tr '\n' ' ')
	[ -z "$unknown" ]
	ok $? "$f: $(wc -l <"$work/used") options that there are"
	[ -z "$unknown" ] || echo "# unknown: $unknown"
done
[ "$n" -ge 5 ]
ok $? "recipes were found"

if python3 -c 'import yaml' 2>/dev/null; then
	for f in share/kubernetes/*.yaml; do
		runs 0 "$f is YAML, and each document has a kind and a name" python3 -c '
import sys, yaml
for d in yaml.safe_load_all(open(sys.argv[1])):
    assert d["apiVersion"] and d["kind"] and d["metadata"]["name"]' "$f"
	done
else
	skip "no yaml for python3 here"
fi

# What belongs together.
set -- $(sed -n 's/.*clusterIP: *//p' share/kubernetes/experts.yaml) $(sed -n 's/.*serviceName: *//p' share/kubernetes/experts.yaml)
[ "$*" = "None moe-experts" ] && grep -q 'dns://moe-experts:5555' share/kubernetes/route-job.yaml
ok $? "moe-route asks for the name of the headless service"
finish
