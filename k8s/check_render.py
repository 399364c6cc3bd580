"""Checks what Kubernetes' schemas cannot: that the objects of a rendered chart fit each other, the protos and the binary.

Usage: check_render.py RENDERED.yaml VALUES.yaml [BINARY]. Needs PyYAML. Prints every fault, and exits with 1 if there is one.
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import tomllib

import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
MOUNTED = "/etc/tracklayer"
# Settings that the templates write from other values; the rest of a section is `<service>.settings`.
WRITTEN = {"database_url", "redis_url", "policy_file", "control_address", "identity_address", "consent_address", "delivery_address"}
WRITTEN |= {"journal", "kafka_brokers", "kafka_prefix", "kafka_replication", "kafka_security_protocol", "kafka_sasl_mechanism"}
WRITTEN |= {"kafka_ca", "kafka_certificate", "kafka_certificate_key", "kafka_user", "kafka_password"}


class Chart:
    """The rendered objects, and what was found wrong with them."""

    def __init__(self, rendered, values):
        documents = yaml.safe_load_all(pathlib.Path(rendered).read_text())
        self.objects = [document for document in documents if document]
        self.values = yaml.safe_load(pathlib.Path(values).read_text()) or {}
        self.faults = []
        # What the values say is in the cluster already.
        self.given = {block["existingSecret"] for block in self.values.values() if isinstance(block, dict) and block.get("existingSecret")}
        kafka = self.values.get("journal", {}).get("kafka", {})
        self.given |= {kafka[block].get("existingSecret") for block in ("ca", "certificate", "sasl") if block in kafka}
        for volume in self.values.get("extraVolumes", []):
            self.given |= {source["name"] for source in volume.values() if isinstance(source, dict) and "name" in source}

    def fault(self, about, what):
        self.faults.append(f"{about['kind']} {about['metadata']['name']}: {what}")

    def of(self, kind, hooks=False):
        return [o for o in self.objects if o["kind"] == kind and (hook_weight(o) is not None) == hooks]

    def deployments_selected(self, selector):
        wanted = (selector or {}).items()
        return [d for d in self.of("Deployment") if wanted <= d["spec"]["template"]["metadata"]["labels"].items()]


def hook_weight(thing):
    annotations = thing["metadata"].get("annotations") or {}
    return int(annotations.get("helm.sh/hook-weight", 0)) if "helm.sh/hook" in annotations else None


def pod(workload):
    return workload["spec"]["template"]["spec"]


def role(deployment):
    return deployment["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"]


def names_are_unique(chart):
    seen = set()
    for thing in chart.objects:
        key = (thing["kind"], thing["metadata"]["name"], hook_weight(thing) is not None)
        if key in seen:
            chart.fault(thing, "stands there twice")
        seen.add(key)
        if len(thing["metadata"]["name"]) > 63:
            chart.fault(thing, "has a name of more than 63 characters")


def references(spec):
    """(kind, name, keys) of everything that a pod cannot start without."""
    yield "ServiceAccount", spec["serviceAccountName"], set()
    for container in spec["containers"]:
        for variable in container.get("env", []):
            source = variable.get("valueFrom", {})
            for field, kind in (("secretKeyRef", "Secret"), ("configMapKeyRef", "ConfigMap")):
                if field in source:
                    yield kind, source[field]["name"], {source[field]["key"]}
    for volume in spec.get("volumes", []):
        for source in volume.get("projected", {}).get("sources", [volume]):
            if "secret" in source:
                secret = source["secret"]
                yield "Secret", secret.get("name") or secret["secretName"], {i["key"] for i in secret.get("items", [])}
            if "configMap" in source:
                yield "ConfigMap", source["configMap"]["name"], {i["key"] for i in source["configMap"].get("items", [])}


def content(thing):
    return {**(thing.get("data") or {}), **(thing.get("stringData") or {})}


def what_pods_lean_on_is_there(chart):
    """A service may lean on what the release makes; a hook only on hooks before it, since the release is not there yet."""
    for workload in chart.of("Deployment") + chart.of("Job", hooks=True):
        weight = hook_weight(workload)
        for kind, name, keys in references(pod(workload)):
            if name in chart.given:
                continue
            there = [o for o in chart.of(kind, hooks=weight is not None) if o["metadata"]["name"] == name]
            if weight is not None:
                there = [o for o in there if hook_weight(o) < weight]
            if not there:
                chart.fault(workload, f"leans on the {kind} {name}, which is not there at that time")
            elif missing := keys - content(there[0]).keys():
                chart.fault(workload, f"wants {', '.join(sorted(missing))} from the {kind} {name}, which has no such key")


def selectors_and_ports_fit(chart):
    for service in chart.of("Service"):
        selected = chart.deployments_selected(service["spec"]["selector"])
        if len(selected) != 1:
            chart.fault(service, f"selects {len(selected)} Deployments")
            continue
        ports = {p["name"] for p in pod(selected[0])["containers"][0]["ports"]}
        for port in service["spec"]["ports"]:
            if port["targetPort"] not in ports:
                chart.fault(service, f"port {port['name']} leads to {port['targetPort']}, which the pods do not have")
    for kind, selector in (("PodDisruptionBudget", "selector"), ("NetworkPolicy", "podSelector")):
        for thing in chart.of(kind):
            selected = chart.deployments_selected(thing["spec"][selector]["matchLabels"])
            if len(selected) != 1:
                chart.fault(thing, f"selects {len(selected)} Deployments")
            for rule in thing["spec"].get("ingress", []):
                for port in rule["ports"]:
                    if port["port"] not in {p["name"] for p in pod(selected[0])["containers"][0]["ports"]}:
                        chart.fault(thing, f"names port {port['port']}, which the pods do not have")
    for deployment in chart.of("Deployment"):
        if deployment["spec"]["selector"]["matchLabels"].items() - deployment["spec"]["template"]["metadata"]["labels"].items():
            chart.fault(deployment, "does not select its own pods")
    for scaler in chart.of("HorizontalPodAutoscaler"):
        target = [d for d in chart.of("Deployment") if d["metadata"]["name"] == scaler["spec"]["scaleTargetRef"]["name"]]
        if not target:
            chart.fault(scaler, "scales nothing that is there")
        elif "replicas" in target[0]["spec"]:
            chart.fault(scaler, "and its Deployment both say how many replicas there are")
        elif scaler["spec"]["minReplicas"] > scaler["spec"]["maxReplicas"]:
            chart.fault(scaler, "has a minReplicas above its maxReplicas")
    services = {s["metadata"]["name"]: {p["name"] for p in s["spec"]["ports"]} for s in chart.of("Service")}
    for ingress in chart.of("Ingress"):
        for path in (p for r in ingress["spec"]["rules"] for p in r["http"]["paths"]):
            backend = path["backend"]["service"]
            if backend["port"]["name"] not in services.get(backend["name"], set()):
                chart.fault(ingress, f"leads to {backend['name']}:{backend['port']['name']}, which is not there")


def probes_name_what_is_served(chart):
    for deployment in chart.of("Deployment"):
        container = pod(deployment)["containers"][0]
        ports = {p["name"]: p["containerPort"] for p in container["ports"]}
        paths = {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}
        for probe, path in paths.items():
            asked = container[probe]["httpGet"]
            if asked["port"] != "ops" or asked["port"] not in ports:
                chart.fault(deployment, f"{probe} goes to port {asked['port']}; operators are answered on ops")
            if asked["path"] != path:
                chart.fault(deployment, f"{probe} asks for {asked['path']}, it is answered at {path}")


def pods_are_locked_down(chart):
    for workload in chart.of("Deployment") + chart.of("Job", hooks=True):
        spec = pod(workload)
        around, inside = spec["securityContext"], spec["containers"][0]["securityContext"]
        wanted = {
            "runAsNonRoot": around["runAsNonRoot"] is True,
            "seccompProfile RuntimeDefault": around["seccompProfile"] == {"type": "RuntimeDefault"},
            "automountServiceAccountToken false": spec["automountServiceAccountToken"] is False,
            "readOnlyRootFilesystem": inside["readOnlyRootFilesystem"] is True,
            "allowPrivilegeEscalation false": inside["allowPrivilegeEscalation"] is False,
            "drop ALL": inside["capabilities"] == {"drop": ["ALL"]},
            "requests and a memory limit": {"cpu", "memory"} <= spec["containers"][0]["resources"]["requests"].keys()
            and "memory" in spec["containers"][0]["resources"]["limits"],
        }
        for what, fine in wanted.items():
            if not fine:
                chart.fault(workload, f"lacks {what}")


def settings_files(chart):
    """The parsed settings file of each service."""
    maps = {m["metadata"]["name"]: m["data"] for m in chart.of("ConfigMap")}
    for deployment in chart.of("Deployment"):
        for volume in pod(deployment)["volumes"]:
            if volume["name"] == "settings":
                files = {i["path"]: maps[volume["configMap"]["name"]][i["key"]] for i in volume["configMap"]["items"]}
                yield deployment, files


def addresses_lead_somewhere(chart):
    there = {
        f"http://{s['metadata']['name']}:{p['port']}"
        for s in chart.of("Service")
        for p in s["spec"]["ports"]
        # A name that stands for every replica: behind one virtual address a caller's connection would end at one of them. What
        # it says is taken as it is, so the port must be the pods' own.
        if p["name"] == "grpc" and s["spec"].get("clusterIP") == "None" and p["port"] == 7000
    }
    for deployment, files in settings_files(chart):
        settings = tomllib.loads(files["tracklayer.toml"])
        for key, value in settings[role(deployment)].items():
            if key.endswith("_address") and value not in there:
                chart.fault(deployment, f"{key} is {value}, which is not the name of every replica of a service")


def run(binary, arguments, environment):
    return subprocess.run([binary, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=60)


def the_binary_takes_the_settings(chart, binary):
    """Lays a pod's files and variables out in a folder and asks the binary itself, once for each service."""
    schema = json.loads((ROOT / "k8s/chart/values.schema.json").read_text())["properties"]
    for deployment, files in settings_files(chart):
        name = role(deployment)
        with tempfile.TemporaryDirectory() as folder:
            stands = lambda text: text.replace(MOUNTED, folder)
            for path, text in files.items():
                target = pathlib.Path(folder, "settings", path)
                target.parent.mkdir(exist_ok=True)
                target.write_text(stands(text))
            pathlib.Path(folder, "secrets").mkdir()
            certificate = "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"
            for file, text in (
                ("database-url", "postgres://h/d"),
                ("redis-url", "redis://h"),
                ("master-key", "00" * 32),
                ("kafka-ca", certificate),
                ("kafka-certificate", certificate),
                ("kafka-certificate-key", certificate.replace("CERTIFICATE", "PRIVATE KEY")),
                ("kafka-password", "secret"),
            ):
                pathlib.Path(folder, "secrets", file).write_text(text)
            for volume in pod(deployment)["volumes"]:
                for source in volume.get("projected", {}).get("sources", []):
                    for item in source["secret"]["items"]:
                        if not pathlib.Path(folder, "secrets", item["path"]).exists():
                            chart.fault(deployment, f"mounts a secret as {item['path']}, which nothing reads")

            known = set(re.findall(r"\[env: (\w+)", run(binary, [name, "--help"], {}).stdout))
            environment = {}
            for variable in pod(deployment)["containers"][0]["env"]:
                key = variable["name"]
                if key.startswith("TRACKLAYER_") and "__" in key:
                    section, setting = key.removeprefix("TRACKLAYER_").split("__", 1)
                    if section.lower() not in ("common", "process", name):
                        chart.fault(deployment, f"{key} sets a section that {name} does not read")
                    # What is common is passed over where it is not known; here it must be.
                    key = f"TRACKLAYER_{name.upper()}__{setting}" if section == "COMMON" else key
                elif key.startswith("TRACKLAYER_") and key not in known:
                    chart.fault(deployment, f"{key} is no variable of `tracklayer {name}`")
                environment[key] = stands(variable.get("value", ""))
            for section in ("process", name):
                answer = run(binary, ["config", "check", section], environment)
                if answer.returncode != 0:
                    chart.fault(deployment, answer.stderr.strip())
            extra = tomllib.loads(files["tracklayer.toml"]).keys() - {"process", name}
            if extra:
                chart.fault(deployment, f"its file has sections that nothing reads: {', '.join(extra)}")

            slip = {**environment, f"TRACKLAYER_{name.upper()}__NO_SUCH_KEY": "1"}
            answer = run(binary, ["config", "check", name], slip).stderr
            allowed = re.search(r"no_such_key: .*?allowed: ([a-z0-9_, ]+)", answer, re.S)
            if not allowed:
                chart.fault(deployment, f"the binary did not refuse an unknown key but said: {answer.strip()}")
                continue
            offered = set(schema[name]["properties"]["settings"]["properties"])
            reads = set(allowed[1].strip().split(", ")) - WRITTEN
            if offered != reads:
                chart.fault(deployment, f"values.schema.json and the binary differ about settings: {sorted(offered ^ reads)}")


def main():
    rendered, values, *binary = sys.argv[1:]
    chart = Chart(rendered, values)
    roles = sorted(role(d) for d in chart.of("Deployment"))
    if roles != ["consent", "control", "delivery", "identity", "ingest"]:
        sys.exit(f"{values}: expected the five services, got {roles}")
    checks = [
        names_are_unique,
        what_pods_lean_on_is_there,
        selectors_and_ports_fit,
        probes_name_what_is_served,
        pods_are_locked_down,
        addresses_lead_somewhere,
    ]
    if binary:
        checks.append(lambda chart: the_binary_takes_the_settings(chart, os.path.abspath(binary[0])))
    for check in checks:
        check(chart)
        # Those after it rely on what it has found to be right.
        if chart.faults:
            sys.exit("\n".join(chart.faults))
    also = "; the binary takes every setting" if binary else ""
    print(f"{len(chart.objects)} objects fit each other and the protos{also}")


main()
