"""One control plane on loopback: started, asked, stopped. Its nodes are played by kwok, its pods run nothing.

Everything is what a cluster has (certificates, RBAC, ServiceAccounts, scheduler, controllers), except that nothing is
worth keeping: it ends at once.
"""

import base64
import contextlib
import itertools
import json
import secrets
import ssl
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from testbed.kube import build, certificates
from testbed.kube.account import Account
from testbed.parts import HOST, Part, PartError, free_port, http_status

NODE = "node-1"
READY_SECONDS = 30.0
Json = dict[str, Any]


class AnswerError(RuntimeError):
    """The API server said no: `status` and its words."""

    def __init__(self, status: int, said: str) -> None:
        self.status = status
        super().__init__(f"{status}: {said}")


class Program(Part):
    """One program of the control plane, on one port."""

    def __init__(self, name: str, folder: Path, root: Path, flags: Mapping[str, str], port: int | None = None) -> None:
        self.name = name
        super().__init__(folder, root=root, port=port)
        self.flags = flags

    def argv(self) -> list[str]:
        return [str(self.root / self.name), *(f"--{flag}={value}" for flag, value in self.flags.items())]

    def answers(self) -> bool:
        return self.running  # kwok, scheduler and controllers show by what they do that they work


class Etcd(Program):
    """etcd on plain HTTP; it never waits for a disk."""

    def __init__(self, folder: Path, root: Path) -> None:
        super().__init__("etcd", folder, root, {})
        peers = f"http://{HOST}:{free_port()}"
        self.flags = {
            "data-dir": str(folder / "etcd"),
            "listen-client-urls": self.url,
            "advertise-client-urls": self.url,
            "listen-peer-urls": peers,
            "initial-advertise-peer-urls": peers,
            "initial-cluster": f"default={peers}",
            "unsafe-no-fsync": "true",
            "log-level": "warn",
        }

    def answers(self) -> bool:
        return http_status(self.port, "/health") == 200


class ApiServer(Program):
    """The API server: TLS, tokens, client certificates, RBAC, and the way to extension servers."""

    stop_seconds = 1.0  # it would wait a minute for its watchers to leave

    def __init__(self, folder: Path, root: Path, etcd_url: str, trust: ssl.SSLContext) -> None:
        super().__init__("kube-apiserver", folder, root, {})
        self._trust = trust
        self.flags = {
            "etcd-servers": etcd_url,
            "bind-address": HOST,
            "advertise-address": HOST,
            "secure-port": str(self.port),
            "endpoint-reconciler-type": "none",  # it would publish the address, and a loopback one is refused
            "service-cluster-ip-range": "10.96.0.0/16",
            "tls-cert-file": str(folder / "apiserver.crt"),
            "tls-private-key-file": str(folder / "apiserver.key"),
            "client-ca-file": str(folder / "ca.crt"),
            "token-auth-file": str(folder / "tokens.csv"),
            "authorization-mode": "RBAC",
            "service-account-issuer": "https://kubernetes.default.svc",
            "service-account-key-file": str(folder / "service-accounts.pub"),
            "service-account-signing-key-file": str(folder / "service-accounts.key"),
            "requestheader-client-ca-file": str(folder / "front-proxy-ca.crt"),
            "requestheader-allowed-names": "front-proxy",
            "requestheader-username-headers": "X-Remote-User",
            "requestheader-group-headers": "X-Remote-Group",
            "requestheader-extra-headers-prefix": "X-Remote-Extra-",
            "proxy-client-cert-file": str(folder / "front-proxy.crt"),
            "proxy-client-key-file": str(folder / "front-proxy.key"),
            # It would mark the node as not ready until the controllers have looked at it, five seconds later.
            "disable-admission-plugins": "TaintNodesByCondition",
        }

    @property
    def url(self) -> str:
        return f"https://{HOST}:{self.port}"

    def answers(self) -> bool:
        try:
            with urllib.request.build_opener(
                urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=self._trust)
            ).open(f"{self.url}/readyz", timeout=2.0) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


class Cluster:
    """`with Cluster(folder) as cluster: cluster.kubeconfig`. Start and stop it from the main thread.

    folder: taken as it is or made; holds logs, certificates and etcd's data; a cluster starts anew in a fresh one.
    root: the folder of the programs; None asks `build.ensure()`, which builds them when they are not there yet.
    kubeconfig: the path of an administrator's, by client certificate.
    """

    def __init__(self, folder: Path, *, root: Path | None = None) -> None:
        self.folder = Path(folder).resolve()
        self.root = build.ensure() if root is None else Path(root)
        self.kubeconfig = self.folder / "admin.kubeconfig"
        self._numbers = itertools.count(1)
        self._running = contextlib.ExitStack()

    @property
    def url(self) -> str:
        return self.api_server.url

    @property
    def ca_file(self) -> Path:
        """What signs the API server's certificate."""
        return self.folder / "ca.crt"

    def start(self) -> Self:
        """Start it and wait until pods can run. PartError quotes the log of what did not start."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)  # keys and tokens
        certificates.create(self.folder)
        tokens = {
            user: secrets.token_hex(16) for user in ("admin", "kube-controller-manager", "kube-scheduler", "kwok")
        }
        self._admin_token = tokens["admin"]
        (self.folder / "tokens.csv").write_text(
            "".join(
                f'{token},{user},{user},"system:masters"\n'
                if user in ("admin", "kwok")
                else f"{token},system:{user},{user},\n"
                for user, token in tokens.items()
            )
        )
        trust = ssl.create_default_context(cafile=str(self.ca_file))
        self._open = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trust)
        ).open
        etcd = Etcd(self.folder, self.root)
        self.api_server = ApiServer(self.folder, self.root, etcd.url, trust)
        self._write_kubeconfig(self.kubeconfig, {"client-certificate": "admin.crt", "client-key": "admin.key"})
        for user in ("kube-controller-manager", "kube-scheduler", "kwok"):
            self._write_kubeconfig(self.folder / f"{user}.kubeconfig", {"token": tokens[user]})
        self._programs: tuple[Program, ...] = (etcd, self.api_server, *self._clients())
        try:
            for program in self._programs:
                self._running.callback(program.kill)
                program.start()
            self._add_node()
            self._wait_for_service_account("default")
        except BaseException:  # also Ctrl-C while waiting: nothing that was started may stay behind
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End it at once: nothing in it is worth an orderly end."""
        self._running.close()

    @contextlib.contextmanager
    def outage(self) -> Iterator[None]:
        """Without an API server, as after a crash; at the end it is back, on its port and with everything it had."""
        self.api_server.kill()
        try:
            yield
        finally:
            self.api_server.start()
            # Started anew, they look at once; left to themselves they wait up to half a minute before they try again.
            for program in self._programs[2:]:
                program.kill()
                program.start()

    def request(self, method: str, path: str, body: Json | None = None, *, kind: str = "application/json") -> Json:
        """Ask the API server as an administrator. AnswerError when it says no, OSError when it does not answer."""
        asked = urllib.request.Request(  # noqa: S310 - always https to the loopback
            f"{self.url}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self._admin_token}", "Content-Type": kind},
        )
        try:
            with self._open(asked, timeout=10.0) as answer:
                found: Json = json.load(answer)
                return found
        except urllib.error.HTTPError as error:
            with error:
                raise AnswerError(error.code, error.read().decode(errors="replace")) from None

    def namespace(self, prefix: str = "test") -> str:
        """A fresh namespace in which pods can run. It is left behind: deleting one takes longer than a test."""
        name = f"{prefix}-{next(self._numbers)}"
        self.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        self._wait_for_service_account(name)
        return name

    def service_account(self, namespace: str, name: str, rules: Sequence[Json]) -> Path:
        """The kubeconfig of a new ServiceAccount that may do there what `rules` say (as in a Role), by its token."""
        meta = {"name": name, "namespace": namespace}
        core, rbac = f"/api/v1/namespaces/{namespace}", f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
        self.request("POST", f"{core}/serviceaccounts", {"metadata": meta})
        self.request("POST", f"{rbac}/roles", {"metadata": meta, "rules": list(rules)})
        binding = {
            "metadata": meta,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
        }
        self.request("POST", f"{rbac}/rolebindings", binding)
        token_file = self.folder / f"{namespace}-{name}.token"
        token_file.write_text(self.token(namespace, name))
        kubeconfig = self.folder / f"{namespace}-{name}.kubeconfig"
        self._write_kubeconfig(kubeconfig, {"tokenFile": token_file.name})
        return kubeconfig

    def token(self, namespace: str, service_account: str) -> str:
        """A fresh token of a ServiceAccount, good for an hour."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{service_account}/token"
        answer = self.request("POST", path, {"spec": {"expirationSeconds": 3600}})
        return str(answer["status"]["token"])

    def account(self, namespace: str, name: str) -> Account:
        """A ServiceAccount that is there, to be asked what it may do."""
        return Account(self.url, self.ca_file, self.token(namespace, name))

    def helm(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run helm against this cluster and wait. The caller looks at `returncode`, `stdout` and `stderr`."""
        homes = {f"HELM_{kind}_HOME": str(self.folder / "helm" / kind.lower()) for kind in ("CACHE", "CONFIG", "DATA")}
        return subprocess.run(
            [str(self.root / "helm"), *map(str, arguments)],
            env={**homes, "KUBECONFIG": str(self.kubeconfig), "HOME": str(self.folder)},
            capture_output=True,
            text=True,
            check=False,
        )

    def _clients(self) -> list[Program]:
        """What works through the API server."""
        manager = {
            "service-account-private-key-file": str(self.folder / "service-accounts.key"),
            "root-ca-file": str(self.ca_file),
            "use-service-account-credentials": "true",  # else no pods: only these identities may make them
            "leader-elect": "false",
            "secure-port": "0",
            "horizontal-pod-autoscaler-sync-period": "1s",
            "kube-api-qps": "500",
            "kube-api-burst": "500",
        }
        kwok = {"manage-all-nodes": "true", "config": str(Path(__file__).parent / "stages.yaml")}
        options: dict[str, dict[str, str]] = {
            "kube-controller-manager": manager,
            "kube-scheduler": {"leader-elect": "false", "secure-port": "0"},
            "kwok": {**kwok, "node-lease-duration-seconds": "40"},
        }
        return [
            Program(name, self.folder, self.root, {"kubeconfig": str(self.folder / f"{name}.kubeconfig"), **flags})
            for name, flags in options.items()
        ]

    def _write_kubeconfig(self, path: Path, user: Mapping[str, str]) -> None:
        """Paths in it are relative to its folder."""
        cluster = {
            "server": self.url,
            "certificate-authority-data": base64.b64encode(self.ca_file.read_bytes()).decode(),
        }
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "testbed", "cluster": cluster}],
            "users": [{"name": "user", "user": dict(user)}],
            "contexts": [{"name": "testbed", "context": {"cluster": "testbed", "user": "user"}}],
            "current-context": "testbed",
        }
        path.write_text(yaml.safe_dump(content))

    def _add_node(self) -> None:
        labels = {"kubernetes.io/hostname": NODE, "kubernetes.io/os": "linux"}
        self.request("POST", "/api/v1/nodes", {"metadata": {"name": NODE, "labels": labels}})

    def _wait_for_service_account(self, namespace: str) -> None:
        """Until the controllers have made the namespace's default ServiceAccount, without which it takes no pods."""
        deadline = time.monotonic() + READY_SECONDS
        while True:
            try:
                self.request("GET", f"/api/v1/namespaces/{namespace}/serviceaccounts/default")
                return
            except AnswerError as error:
                if error.status != 404:
                    raise
            ended = [program for program in self._programs if not program.running]
            if ended or time.monotonic() > deadline:
                suspects = ended or [program for program in self._programs if program.name == "kube-controller-manager"]
                raise PartError(
                    f"namespace {namespace} got no default ServiceAccount; "
                    f"{suspects[0].log_path} ({suspects[0].ending or 'running'}):\n{suspects[0].log_tail()}"
                )
            time.sleep(0.05)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
