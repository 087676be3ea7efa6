"""`tidewise init`: looks at a cluster, a cloud and Prometheus, and writes a first configuration in shadow mode."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from controllers.config import Cluster, Prometheus, contradictions
from controllers.init.cloud import CloudError, read_cloud
from controllers.init.cluster import default_kubeconfig, read_cluster
from controllers.init.draft import Draft, Queue, joined, text
from controllers.init.series import read_series
from controllers.kubernetes_api import ApiError
from controllers.schema import file_model
from controllers.sources.prometheus import Source, SourceError
from exporters.runtime.config import ConfigError, validate

DEFAULT_PROMETHEUS = "http://127.0.0.1:9090"


def main(argv: list[str]) -> int:
    """0: written. 1: nothing was found, or what was named could not be asked. 2: the file is there. ConfigError."""
    options = _options(argv)
    out: Path = options.out
    if str(out) != "-" and out.exists():
        print(
            f"{out}: is there already and is not overwritten; name another with --out, or - to see it", file=sys.stderr
        )
        return 2
    validate(Prometheus, {"url": options.prometheus or DEFAULT_PROMETHEUS}, Path("--prometheus"))
    looked = _Looked()
    drafts = [*_cluster(options, looked), *_cloud(options, looked)]
    queues, services = _series(options, looked)
    found = joined(drafts, queues, services)
    content = text(found, options.prometheus or DEFAULT_PROMETHEUS, looked.said)
    for sentence in looked.said:
        print(f"looked at {sentence}", file=sys.stderr)
    for problem in looked.problems:
        print(f"could not look at {problem}", file=sys.stderr)
    if not found:
        print(
            "nothing to scale was found, so nothing is written; docs/configuration.md shows a first one by hand",
            file=sys.stderr,
        )
        return 1
    _check(content, out)
    if str(out) == "-":
        sys.stdout.write(content)
    else:
        _write(out, content)
        guesses = sum(line.lstrip().startswith("# guess:") for line in content.splitlines())
        count = f"{len(found)} workload{'' if len(found) == 1 else 's'}"
        print(f"{out}: {count} in shadow mode, {guesses or 'no'} guess{'' if guesses == 1 else 'es'} to look at")
        print(f"next: tidewise check {out}")
    return int(looked.is_named_lost)


class _Looked:
    """What was looked at, what could not be, and whether somebody had named that."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.problems: list[str] = []
        self.is_named_lost = False

    def lost(self, problem: str, *, named: bool) -> None:
        self.problems.append(problem)
        self.is_named_lost |= named


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tidewise init",
        description="Writes a first configuration, in shadow mode, from what is there: HPAs and KEDA ScaledObjects of "
        "a cluster, Auto Scaling groups of an AWS region, queues in Prometheus. What nobody said is marked as a guess.",
        epilog="Example: tidewise init --kubeconfig ~/.kube/config --prometheus http://prometheus:9090",
    )
    parser.add_argument("--kubeconfig", type=Path, metavar="FILE", help="default: where kubectl looks")
    parser.add_argument("--context", help="of the kubeconfig; default: its current one")
    parser.add_argument("--namespace", action="append", default=[], help="only this one; may be given again")
    parser.add_argument("--no-cluster", action="store_true", help="look at no Kubernetes")
    parser.add_argument("--prometheus", metavar="URL", help=f"default: {DEFAULT_PROMETHEUS}, if it answers")
    parser.add_argument("--aws-region", metavar="R", help="look at the Auto Scaling groups of this region")
    parser.add_argument("--aws-profile", metavar="P", help="of boto3; default: its own way")
    parser.add_argument("--aws-endpoint-url", metavar="URL", help="another endpoint than Amazon's")
    parser.add_argument("--out", type=Path, default=Path("tidewise.yaml"), help="- prints it (default: %(default)s)")
    return parser.parse_args(argv)


def _cluster(options: argparse.Namespace, looked: _Looked) -> list[Draft]:
    if options.no_cluster:
        return []
    if options.kubeconfig is not None:
        cluster: Cluster | None = Cluster(
            kubeconfig=options.kubeconfig.expanduser().absolute(), context=options.context
        )
    else:
        cluster = default_kubeconfig(os.environ, Path.home())
        if cluster is not None and cluster.kubeconfig is not None:
            cluster = Cluster(kubeconfig=cluster.kubeconfig.absolute(), context=options.context)
    if cluster is None:
        looked.said.append("no cluster: there is no kubeconfig where kubectl looks; name one with --kubeconfig")
        return []
    try:
        drafts, said = read_cluster(cluster, options.namespace)
    except ApiError as error:
        hint = " (or name what you may read with --namespace)" if error.status == 403 and not options.namespace else ""
        looked.lost(f"the cluster: {error}{hint}", named=options.kubeconfig is not None)
        return []
    looked.said += said
    return drafts


def _cloud(options: argparse.Namespace, looked: _Looked) -> list[Draft]:
    if options.aws_region is None:
        looked.said.append("no cloud: name a region with --aws-region")
        return []
    try:
        drafts, said = read_cloud(options.aws_region, options.aws_profile, options.aws_endpoint_url)
    except CloudError as error:
        looked.lost(f"the cloud: {error}", named=True)
        return []
    looked.said.append(said)
    return drafts


def _series(options: argparse.Namespace, looked: _Looked) -> tuple[list[Queue], list[str]]:
    source = Source(Prometheus(url=options.prometheus or DEFAULT_PROMETHEUS))
    try:
        queues, services, said = read_series(source)
    except SourceError as error:
        looked.lost(f"Prometheus {source.url}: {error}", named=options.prometheus is not None)
        return [], []
    looked.said.append(said)
    return queues, services


def _check(content: str, out: Path) -> None:
    """What is written passes `tidewise check --no-prometheus`. Raises ConfigError: a mistake of ours."""
    config = validate(file_model(), yaml.safe_load(content), out)
    problems = contradictions(config)
    if problems:
        raise ConfigError([f"{out}: {problem}" for problem in problems])


def _write(out: Path, content: str) -> None:
    """Raises ConfigError."""
    try:
        with out.open("x", encoding="utf-8") as file:  # x: not over what came there meanwhile
            file.write(content)
    except OSError as error:
        raise ConfigError([f"{out}: cannot be written ({error.strerror}); name another with --out"]) from None
