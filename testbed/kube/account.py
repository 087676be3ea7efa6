"""One ServiceAccount of a cluster, asking what it may do with a token of its own, as its pod would."""

import json
import ssl
import urllib.request
from pathlib import Path
from typing import Any

Json = dict[str, Any]
Right = tuple[str, str, str, str]  # group, resource, name ("" for all), verb


class Account:
    """`Account(cluster.url, cluster.ca_file, cluster.token(namespace, name)).may("list", "pods", "prod")`"""

    def __init__(self, url: str, ca_file: Path, token: str) -> None:
        self._url, self._token = url, token
        self._open = urllib.request.build_opener(
            urllib.request.ProxyHandler({}),
            urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=str(ca_file))),
        ).open

    def may(self, verb: str, resource: str, namespace: str = "", name: str = "") -> bool:
        """As `kubectl auth can-i`; resource: "pods", "pods/exec", "deployments.apps/scale". No namespace: in all."""
        whole, _, subresource = resource.partition("/")
        plural, _, group = whole.partition(".")
        asked = {
            "verb": verb,
            "group": group,
            "resource": plural,
            "subresource": subresource,
            "namespace": namespace,
            "name": name,
        }
        return bool(self._post("selfsubjectaccessreviews", {"resourceAttributes": asked})["allowed"])

    def rights(self, namespace: str) -> set[Right]:
        """All that it may do there."""
        return {
            (group, resource, name, verb)
            for rule in self._post("selfsubjectrulesreviews", {"namespace": namespace})["resourceRules"]
            for group in rule.get("apiGroups") or [""]
            for resource in rule.get("resources") or []
            for name in rule.get("resourceNames") or [""]
            for verb in rule["verbs"]
        }

    def _post(self, resource: str, spec: Json) -> Json:
        request = urllib.request.Request(  # noqa: S310 - always https to the loopback
            f"{self._url}/apis/authorization.k8s.io/v1/{resource}",
            method="POST",
            data=json.dumps({"spec": spec}).encode(),
            headers={"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"},
        )
        with self._open(request, timeout=10.0) as answer:
            status: Json = json.load(answer)["status"]
            return status
