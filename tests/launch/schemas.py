#!/usr/bin/env python3
"""Are the manifests in share/kubernetes what Kubernetes' own schemas allow?  Run by hand; takes packages that tests do without:

    pip install kubernetes-validate pyyaml jsonschema
    tests/launch/schemas.py --crd leaderworkerset.yaml [--kubernetes 1.34]

--crd names the CustomResourceDefinition of LeaderWorkerSet (config/crd/bases in kubernetes-sigs/lws); fields that a schema does
not have are errors.
"""
import argparse
import glob
import os
import sys

import jsonschema
import kubernetes_validate
import yaml


def closed(schema):
    """The schema of a custom resource with every object closed that lists its properties, as strict validation has it."""
    if isinstance(schema, list):
        return [closed(s) for s in schema]
    if not isinstance(schema, dict):
        return schema
    out = {k: closed(v) for k, v in schema.items()}
    if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema and "type" in schema:
        out["additionalProperties"] = False
    if schema.get("x-kubernetes-int-or-string"):
        out.pop("type", None)
    return out


def check(document, version, crd):
    """None, or what is wrong."""
    try:
        if crd and document["kind"] == crd["spec"]["names"]["kind"]:
            schema = next(v for v in crd["spec"]["versions"] if document["apiVersion"].endswith("/" + v["name"]))
            schema = closed(schema["schema"]["openAPIV3Schema"])
            schema["properties"]["metadata"] = {"type": "object"}
            jsonschema.validate(document, schema)
        else:
            kubernetes_validate.validate(document, version, strict=True)
    except jsonschema.ValidationError as e:
        return e.message
    except kubernetes_validate.ValidationError as e:
        return e.message
    return None


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--crd")
    p.add_argument("--kubernetes", default=kubernetes_validate.latest_version())
    a = p.parse_args()
    crd = yaml.safe_load(open(a.crd)) if a.crd else None
    bad = n = 0
    top = os.path.join(os.path.dirname(__file__), "..", "..", "share", "kubernetes", "*.yaml")
    for path in sorted(glob.glob(top)):
        for document in yaml.safe_load_all(open(path)):
            name = "%s: %s %s" % (os.path.basename(path), document["kind"], document["metadata"]["name"])
            n += 1
            if document["kind"] == "LeaderWorkerSet" and not crd:
                print("ok %d # SKIP %s: --crd is missing" % (n, name))
                continue
            wrong = check(document, a.kubernetes, crd)
            bad += wrong is not None
            print("%s %d - %s, Kubernetes %s" % ("not ok" if wrong else "ok", n, name, a.kubernetes))
            if wrong:
                print("#", wrong)
    print("1..%d" % n)
    return bad > 0


sys.exit(main())
