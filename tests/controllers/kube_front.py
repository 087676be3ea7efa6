"""A front of the real API server that can be told to misbehave: what passes is carried out, by the real rules."""

import json
import ssl
import urllib.error
import urllib.request
from typing import Any

from testbed.kube.cluster import Cluster
from tests.controllers.fake_api import FakeApi

Json = dict[str, Any]


class Front(FakeApi):
    """Passes requests on with the caller's own token, so that the server's versions, rights and quotas count."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__()
        self._server = cluster.url
        trust = ssl.create_default_context(cafile=str(cluster.ca_file))
        self._open = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trust)
        ).open

    def carry_out(self, method: str, path: str, body: Json | None) -> tuple[int, dict[str, str], Json]:
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        query = "&".join(f"{key}={value}" for key, values in self.queries[-1].items() for value in values)
        request = urllib.request.Request(
            f"{self._server}{path}{'?' if query else ''}{query}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": kind},
        )
        try:
            with self._open(request, timeout=10) as answer:
                return answer.status, {}, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                after, said = error.headers.get("Retry-After"), error.read().decode()
                answer = json.loads(said) if said.startswith("{") else {"message": said}  # "404 page not found"
                return error.code, {"Retry-After": after} if after else {}, answer
