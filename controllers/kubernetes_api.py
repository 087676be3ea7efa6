"""Questions to one Kubernetes API server, each with a deadline that holds and an error that says what to do.

The official client knows how to reach a cluster and who we are; this adds what a controller needs of every request: a
total deadline, no hidden retries, credentials read again when they are refused, and the server's wish to be left alone.
"""

import json
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import urllib3
import yaml

from controllers.config import Cluster

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

Json = dict[str, Any]

MAX_BYTES = 64 * 2**20  # of one answer
MAX_LEFT_BEHIND = 8  # requests past their deadline that still hang
PAGE = 500  # objects
METHODS = {"create": "POST", "update": "PUT", "patch": "PATCH"}
UNSENT = (urllib3.exceptions.ConnectTimeoutError, urllib3.exceptions.SSLError)  # nothing reached the server


class ApiError(Exception):
    """The API server did not do what was asked.

    status: of the HTTP answer, None when there was none.
    permanent: asking again will not help before a person has changed something.
    maybe_done: the request may have been carried out all the same.
    """

    def __init__(
        self, message: str, *, status: int | None = None, permanent: bool = False, maybe_done: bool = False
    ) -> None:
        self.status = status
        self.permanent = permanent
        self.maybe_done = maybe_done
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Place:
    """Something in the API: `Place("apps/v1", "prod", "deployments", "worker", "scale")`. No name: all of them."""

    api_version: str
    namespace: str
    resource: str
    name: str | None = None
    subresource: str | None = None

    @property
    def path(self) -> str:
        parts = [group_path(self.api_version), "namespaces", self.namespace, self.resource, self.name, self.subresource]
        return "/".join(part for part in parts if part)

    @property
    def right(self) -> str:
        """As a Role names it: "deployments/scale in API group apps"."""
        group = self.api_version.rpartition("/")[0]
        resource = f"{self.resource}/{self.subresource}" if self.subresource else self.resource
        return f"{resource} in API group {group}" if group else resource

    def __str__(self) -> str:
        return f"{self.namespace}/{self.resource}" + (f"/{self.name}" if self.name else "")


def group_path(api_version: str) -> str:
    """Where a group's version is served: "apps/v1" under /apis/apps/v1, "v1" under /api/v1."""
    return f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"


@dataclass(frozen=True, slots=True)
class _Reply:
    status: int
    retry_after_seconds: float | None
    body: bytes


class Api:
    """One API server, asked by one identity; may be used from several threads. `until` is on the monotonic clock."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._client: ApiClient | None = None
        self._left_alone_until = 0.0
        self._left_behind: set[threading.Thread] = set()

    def read(self, place: Place, until: float) -> Json:
        """The object. Raises ApiError, like all that follow."""
        return self._ask("get", place.path, place, until)

    def create(self, place: Place, body: Json, until: float) -> Json:
        """The object as it was created; `place` is without a name. 409 where it exists."""
        return self._ask("create", place.path, place, until, body=body)

    def replace(self, place: Place, body: Json, until: float) -> Json:
        """The object as it is now. 409 where it is no longer the version (or the UID) that `body` names."""
        return self._ask("update", place.path, place, until, body=body)

    def patch(self, place: Place, body: Json, until: float) -> Json:
        """The object as it is after this merge patch (RFC 7386: null takes a key out), as `replace` says."""
        return self._ask("patch", place.path, place, until, body=body, query={"fieldManager": "tidewise"})

    def may(self, verb: str, place: Place, until: float) -> bool:
        """Whether we may, as the server's authorizer says."""
        asked = {
            "verb": verb,
            "group": place.api_version.rpartition("/")[0],
            "resource": place.resource,
            "subresource": place.subresource or "",
            "namespace": place.namespace,
            "name": place.name or "",
        }
        body = {"kind": "SelfSubjectAccessReview", "spec": {"resourceAttributes": asked}}
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        answer = self._ask("create", path, None, until, body={"apiVersion": "authorization.k8s.io/v1", **body})
        return bool((answer.get("status") or {}).get("allowed"))

    def items(self, place: Place, until: float, **query: str) -> list[Json]:
        """All objects there, page by page; from the start again where the server has forgotten the pages (410)."""
        for attempt in (1, 2):
            try:
                return self._pages(place, until, query)
            except ApiError as error:
                if error.status != 410 or attempt == 2:
                    raise
        raise AssertionError("unreachable")

    def discover(self, path: str, until: float) -> Json | None:
        """What the server says it serves under `path` ("/apis/keda.sh"); None when it serves no such thing."""
        try:
            return self._ask("get", path, None, until)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def _pages(self, place: Place, until: float, query: dict[str, str]) -> list[Json]:
        found: list[Json] = []
        asked = {**query, "limit": str(PAGE)}
        while True:
            page = self._ask("list", place.path, place, until, query=asked)
            items = page.get("items")
            if not isinstance(items, list):
                raise ApiError(f"{place}: the answer is no list; is another server behind this address?")
            found += items
            if not (more := (page.get("metadata") or {}).get("continue")):
                return found
            asked = {**asked, "continue": more}

    def _ask(
        self,
        verb: str,
        path: str,
        place: Place | None,
        until: float,
        body: Json | None = None,
        query: dict[str, str] | None = None,
    ) -> Json:
        """One answer, as JSON. 401 is tried again with fresh credentials, 429 after the time the server asks for."""
        what = f"{verb} {place or path}"
        fresh = False
        while True:
            self._wait_where_told(what, until)
            reply = self._within(
                until, what, body is not None, lambda left: self._exchange(verb, path, body, query, left)
            )
            if reply.status == 401 and not fresh:
                self._client, fresh = None, True
            elif reply.status == 429:
                self._left_alone_until = time.monotonic() + (reply.retry_after_seconds or 1.0)
            elif 200 <= reply.status < 300:
                return _parsed(reply.body, what)
            else:
                raise refused(reply.status, reply.body, verb, what, place)

    def _wait_where_told(self, what: str, until: float) -> None:
        wait = self._left_alone_until - time.monotonic()
        if wait <= 0:
            return
        if time.monotonic() + wait >= until:
            raise ApiError(
                f"{what}: the API server is overloaded and asked to be left alone for {wait:.0f} s more (429)",
                status=429,
            )
        time.sleep(wait)

    def _within(self, until: float, what: str, writes: bool, exchange: Callable[[float], _Reply]) -> _Reply:
        """The reply by the deadline, be it name resolution, a credential program or the server that hangs."""
        left = until - time.monotonic()
        if left <= 0:
            raise ApiError(f"{what}: its deadline has passed")
        self._left_behind -= {thread for thread in tuple(self._left_behind) if not thread.is_alive()}
        if len(self._left_behind) >= MAX_LEFT_BEHIND:
            raise ApiError(f"{what}: {len(self._left_behind)} earlier requests are still hanging; not asking again")
        outcome: queue.SimpleQueue[_Reply | Exception] = queue.SimpleQueue()

        def answer() -> None:
            try:
                outcome.put(exchange(left))
            except Exception as error:  # crosses to the asker, who raises it
                outcome.put(error)

        thread = threading.Thread(target=answer, name="kubernetes-request", daemon=True)
        thread.start()
        try:
            found = outcome.get(timeout=left)
        except queue.Empty:
            self._left_behind.add(thread)
            raise ApiError(f"{what}: no complete answer within {left:.1f} s", maybe_done=writes) from None
        if isinstance(found, _Reply):
            return found
        if isinstance(found, (urllib3.exceptions.HTTPError, OSError)):
            # urllib3 counts a refused connection among those that took too long.
            unreachable = isinstance(found, urllib3.exceptions.NewConnectionError)
            late = isinstance(found, (urllib3.exceptions.TimeoutError, TimeoutError)) and not unreachable
            said = f"no complete answer within {left:.1f} s" if late else _innermost(found)
            raise ApiError(f"{what}: {said}", maybe_done=writes and not isinstance(found, UNSENT)) from None
        raise found

    def _exchange(self, verb: str, path: str, body: Json | None, query: dict[str, str] | None, left: float) -> _Reply:
        from kubernetes.client import ApiException

        client = self._client = self._client or connect(self._cluster)
        asked = dict(query or {})
        if body is not None:
            asked["timeout"] = f"{max(1, int(left))}s"  # the server, too, gives up then
        content_type = "application/merge-patch+json" if verb == "patch" else "application/json"
        method, url, headers, content, _ = client.param_serialize(
            METHODS.get(verb, "GET"),
            path,
            query_params=list(asked.items()),
            header_params={"Accept": "application/json", "Content-Type": content_type},
            body=body,
            auth_settings=["BearerToken"],
        )
        headers = {key: value.strip() for key, value in headers.items()}  # a token's file may end in a newline
        if not all(value.isprintable() for value in headers.values()):
            raise ApiError("the token holds a line break; is its file the right one?", permanent=True)
        try:
            answer = client.call_api(method, url, headers, content, _request_timeout=(left, left)).response
        except ApiException as error:  # only what TLS did not like; an answer is not judged yet
            raise ApiError(f"{error.reason}; does the kubeconfig name the certificate-authority?") from None
        try:
            data = answer.read(MAX_BYTES + 1)
        finally:
            answer.release_conn()
        if len(data) > MAX_BYTES:
            raise ApiError(f"{path}: the answer is larger than {MAX_BYTES // 2**20} MiB")
        after = answer.headers.get("Retry-After", "")
        return _Reply(answer.status, float(after) if after.isdecimal() else None, data)


def connect(cluster: Cluster) -> "ApiClient":
    """The official client for this cluster; its credentials are read now. Raises ApiError."""
    try:
        from kubernetes import client, config
    except ImportError:
        raise ApiError(
            "the Python package kubernetes is missing; install tidewise[kubernetes]", permanent=True
        ) from None
    configuration = client.Configuration()
    configuration.retries = False  # else urllib3 would wait as long as a server's Retry-After says
    try:
        if cluster.kubeconfig is None:
            config.load_incluster_config(configuration)  # type: ignore[no-untyped-call]
        else:
            config.load_kube_config(  # type: ignore[no-untyped-call]
                str(cluster.kubeconfig), cluster.context, client_configuration=configuration, persist_config=False
            )
    except (config.ConfigException, OSError, ValueError, yaml.YAMLError) as error:
        if cluster.kubeconfig is None:
            said = f"not in a pod of Kubernetes ({error}); name a kubeconfig"
        elif not cluster.kubeconfig.exists():
            said = f"{cluster.kubeconfig}: no such file; correct kubeconfig"
        else:
            said = f"{cluster.kubeconfig}: cannot be used ({error})"
        raise ApiError(said, permanent=True) from None
    return client.ApiClient(configuration)


def refused(status: int, body: bytes, verb: str, what: str, place: Place | None) -> ApiError:
    """The error for an answer that is not a success."""
    said = _words(body)
    if status == 401:
        return ApiError(
            f"{what}: the credentials are not accepted (401); renew them: {said}", status=401, permanent=True
        )
    if status == 403:
        right = f"{verb} {place.right} in namespace {place.namespace}" if place else what
        return ApiError(f"may not {right} (403); grant it, see docs/kubernetes.md: {said}", status=403, permanent=True)
    if status == 404:
        return ApiError(f"{what}: not there (404); create it or correct its name: {said}", status=404, permanent=True)
    # 408 and 5xx may come from anything between here and the store, before or after the deed.
    maybe_done = status == 408 or status >= 500
    return ApiError(
        f"{what}: {status}: {said}", status=status, permanent=status in (400, 405, 422), maybe_done=maybe_done
    )


def _parsed(body: bytes, what: str) -> Json:
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise ApiError(f"{what}: the answer is no JSON object ({body[:60]!r}); is another server behind this address?")
    return answer


def _words(body: bytes) -> str:
    """What the server says in its Status object, else the beginning of whatever it sent."""
    try:
        message = json.loads(body)["message"]
    except (ValueError, KeyError, TypeError):
        message = body[:200].decode(errors="replace")
    return " ".join(str(message).split()) or "it says no more"


def _innermost(error: BaseException) -> str:
    """The reason under the layers of urllib3, which is what a person can act on."""
    while isinstance(inner := error.__cause__ or getattr(error, "reason", None), BaseException):
        error = inner
    return str(error)
