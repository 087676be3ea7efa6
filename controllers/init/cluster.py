"""HPAs and KEDA ScaledObjects of a cluster, as drafts of workloads."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from controllers.actuators.kubernetes_scalers import DEFAULTS, FIELDS, HPA, SCALED_OBJECT, parsed, place_of
from controllers.config import Cluster
from controllers.init.draft import Draft, Value, bounds, label
from controllers.kubernetes_api import Api, ApiError, Json, Place

SECONDS = 30.0
PATHS = {
    HPA: "/apis/autoscaling/v2/horizontalpodautoscalers",
    SCALED_OBJECT: "/apis/keda.sh/v1alpha1/scaledobjects",
}
QUEUES = {  # of KEDA's triggers: the system here, and the key that names the queue
    "redis": ("redis", "listName"),
    "redis-streams": ("redis_streams", "stream"),
    "rabbitmq": ("rabbitmq", "queueName"),
    "aws-sqs-queue": ("sqs", "queueURL"),
}
RATES = ("rate(", "irate(")

Cores = Callable[[], float | None]


def read_cluster(cluster: Cluster, namespaces: Sequence[str]) -> tuple[list[Draft], list[str]]:
    """The drafts, and sentences about what was looked at. `namespaces`: () is all. Raises ApiError."""
    api, until = Api(cluster), time.monotonic() + SECONDS
    kinds = [HPA] + ([SCALED_OBJECT] if api.discover("/apis/keda.sh", until) is not None else [])
    objects = {kind: _objects(api, kind, namespaces, until) for kind in kinds}
    of_keda = {
        (str(_meta(one).get("namespace")), str(_meta(one).get("name"))) for one in objects.get(SCALED_OBJECT, [])
    }
    drafts: list[Draft] = []
    for kind, found in objects.items():
        for body in found:
            owner = parsed(kind, str(_meta(body).get("namespace")), body).owner
            if kind == HPA and owner is not None and (str(_meta(body).get("namespace")), owner[1]) in of_keda:
                continue  # KEDA's own: its ScaledObject is there
            drafts.append(draft_of(kind, body, cluster, _cores(api, body, until)))
    where = f"the cluster of {cluster.kubeconfig}" if cluster.kubeconfig else "the cluster this runs in"
    part = f", namespace {' and '.join(namespaces)}" if namespaces else ""
    said = [f"{where}{part}: {_count(len(objects[HPA]), 'HorizontalPodAutoscaler')}"]
    if SCALED_OBJECT in objects:
        said.append(f"{where}{part}: {_count(len(objects[SCALED_OBJECT]), 'ScaledObject')} of KEDA")
    else:
        said.append(f"{where}: no KEDA")
    return drafts, said


def _objects(api: Api, kind: str, namespaces: Sequence[str], until: float) -> list[Json]:
    if namespaces:
        found = [(name, one) for name in namespaces for one in api.items(place_of(kind, name), until)]
        return [{**one, "metadata": {"namespace": name, **_meta(one)}} for name, one in found]
    return list((api.discover(PATHS[kind], until) or {}).get("items") or [])


def _meta(body: Json) -> Json:
    return dict(body.get("metadata") or {})


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"


def draft_of(kind: str, body: Json, cluster: Cluster, cores: Cores) -> Draft:
    """One HPA or ScaledObject as a draft. `cores`: what a pod of its target asks for; None: it does not say."""
    namespace = str(_meta(body).get("namespace") or "default")
    scaler = parsed(kind, namespace, body)
    reference = (body.get("spec") or {}).get("scaleTargetRef") or {}
    version, of_kind, name = (
        str(reference.get("apiVersion") or "apps/v1"),
        str(reference.get("kind") or "Deployment"),
        str(reference.get("name")),
    )
    own = {"Deployment": "deployment", "StatefulSet": "statefulset"}.get(of_kind if version == "apps/v1" else "")
    where: dict[str, Any] = {"kubeconfig": str(cluster.kubeconfig)} if cluster.kubeconfig else {}
    if cluster.context:
        where["context"] = cluster.context
    where["namespace"] = namespace
    if own:
        where[own] = name
    else:
        where["generic"] = {"kind": of_kind, "name": name, "api_version": version}
    read = _hpa_demand if kind == HPA else _keda_demand
    demand, capacity, notes = read(body, namespace, name, cores)
    stated = (body.get("spec") or {}).get(FIELDS[kind][1])
    guess = None if stated else f"it states no {FIELDS[kind][1]}, so KEDA's own counts"
    return Draft(
        name=label(name),
        namespace=label(namespace),
        origin=f"the {kind} {namespace}/{_meta(body).get('name')}",
        target=Value({"kubernetes": where}),
        replicas=bounds(scaler.minimum, int(stated or DEFAULTS[kind][1]), guess),
        demand=demand,
        capacity=capacity,
        notes=tuple(notes),
    )


Read = tuple[Value | None, Value | None, list[str]]


def _hpa_demand(body: Json, namespace: str, name: str, cores: Cores) -> Read:
    """The first metric that says what arrives; the others are notes."""
    chosen: tuple[Value, Value] | None = None
    notes: list[str] = []
    for metric in (body.get("spec") or {}).get("metrics") or []:
        found = _hpa_metric(metric, namespace, name, cores)
        if found is not None and chosen is None:
            chosen = found
        else:
            notes.append(f"left out: its metric {_metric_name(metric)}")
    return (*chosen, notes) if chosen else (None, None, notes)


def _hpa_metric(metric: Json, namespace: str, name: str, cores: Cores) -> tuple[Value, Value] | None:
    kind = str(metric.get("type"))
    inner = metric.get(kind[:1].lower() + kind[1:]) or {}
    target = inner.get("target") or {}
    if kind in ("Resource", "ContainerResource"):
        if inner.get("name") != "cpu":
            return None
        return _cpu(namespace, name, target, cores)
    selected: dict[str, str] = ((inner.get("metric") or {}).get("selector") or {}).get("matchLabels") or {}
    matchers = {**({} if kind == "External" else {"namespace": namespace}), **selected}
    if kind == "Pods":
        matchers = {**matchers, "pod": f"~{name}-.+"}
    each = quantity(target.get("averageValue"))  # `value` is a level for all together, which no replica has a part of
    metric_name = str((inner.get("metric") or {}).get("name"))
    return (
        (
            Value(
                {"promql": f"sum({_selector(metric_name, matchers)})"},
                f"that Prometheus has its metric {metric_name} under this name, and that it is per second",
            ),
            Value({"service_seconds": _seconds(each)}, f"from its target of {each:g} a replica"),
        )
        if each
        else None
    )


def _cpu(namespace: str, name: str, target: Json, cores: Cores) -> tuple[Value, Value]:
    """Work is CPU seconds: a replica does as many a second as its target lets it."""
    selector = _selector("container_cpu_usage_seconds_total", {"namespace": namespace, "pod": f"~{name}-.+"})
    demand = Value(
        {"promql": f"sum(rate({selector}[2m]))"}, "CPU seconds a second are its work; a queue or service is better"
    )
    absolute = quantity(target.get("averageValue"))
    if absolute:
        return demand, Value({"service_seconds": _seconds(absolute)}, f"from its target of {absolute:g} cores")
    share = float(target.get("averageUtilization") or 80) / 100
    asked = cores()
    each = (asked or 1.0) * share
    said = f"{asked:g} cores" if asked else "1 core, for its pods do not say"
    return demand, Value({"service_seconds": _seconds(each)}, f"from its target of {share:.0%} of {said}")


def _seconds(each: float) -> float:
    """Of one piece of work, where a replica does `each` a second: bytes, it may be, so digits and not places count."""
    return float(f"{1 / each:.6g}")


def _keda_demand(body: Json, namespace: str, name: str, cores: Cores) -> Read:
    chosen: tuple[Value, Value | None] | None = None
    notes: list[str] = []
    for trigger in (body.get("spec") or {}).get("triggers") or []:
        found = _trigger(trigger, namespace, name, cores)
        if found is not None and chosen is None:
            chosen = found
        else:
            notes.append(_left_out(trigger))
    return (*chosen, notes) if chosen else (None, None, notes)


def _trigger(trigger: Json, namespace: str, name: str, cores: Cores) -> tuple[Value, Value | None] | None:
    kind, meta = str(trigger.get("type")), trigger.get("metadata") or {}
    if kind in QUEUES and (queue := str(meta.get(QUEUES[kind][1]) or "")):
        system = QUEUES[kind][0]
        why = f"that the exporters call it so, of system {system}; Prometheus does not have it yet"
        return Value({"queue": queue.rstrip("/").rpartition("/")[2], "system": system}, why), None
    if kind == "prometheus" and any(rate in str(meta.get("query")) for rate in RATES):
        each = quantity(meta.get("threshold"))
        capacity = Value({"service_seconds": _seconds(each)}, f"from its threshold of {each:g}") if each else None
        query = " ".join(str(meta["query"]).split())
        return Value({"promql": query}, "that its query gives all that arrives, per second"), capacity
    if kind == "cpu":
        of_type = str(trigger.get("metricType") or "Utilization")
        value = meta.get("value")
        target = {"averageValue": value} if of_type == "AverageValue" else {"averageUtilization": quantity(value)}
        return _cpu(namespace, name, target, cores)
    return None


def _left_out(trigger: Json) -> str:
    kind, meta = str(trigger.get("type")), trigger.get("metadata") or {}
    if kind == "cron":
        hours = f"from '{meta.get('start')}' to '{meta.get('end')}' in {meta.get('timezone')}"
        return f"left out: its cron trigger, {meta.get('desiredReplicas')} replicas {hours}; write it as schedule"
    if kind == "prometheus":
        query = " ".join(str(meta.get("query")).split())
        return f"left out: its prometheus trigger, a level and no rate: {query}"
    return f"left out: its trigger {kind}"


def _metric_name(metric: Json) -> str:
    kind = str(metric.get("type"))
    inner = metric.get(kind[:1].lower() + kind[1:]) or {}
    return str(inner.get("name") or (inner.get("metric") or {}).get("name") or kind)


def _selector(metric: str, labels: Mapping[str, str]) -> str:
    """A value that begins with ~ is a regular expression."""
    parts = []
    for key, value in labels.items():
        regex = value.startswith("~")
        quoted = value.removeprefix("~").replace("\\", "\\\\").replace('"', '\\"')
        parts.append(f'{key}{"=~" if regex else "="}"{quoted}"')
    return f"{metric}{{{','.join(parts)}}}" if parts else metric


def quantity(value: Any) -> float | None:
    """Of Kubernetes, such as 500m; None for what is none, or not more than zero."""
    from kubernetes.utils.quantity import parse_quantity

    try:
        number = float(parse_quantity(str(value)))  # type: ignore[no-untyped-call]
    except (ValueError, ArithmeticError):
        return None
    return number if number > 0 else None


def _cores(api: Api, body: Json, until: float) -> Cores:
    """What one pod of the scaler's target asks for, all containers together; asked only where it matters."""

    def read() -> float | None:
        reference = (body.get("spec") or {}).get("scaleTargetRef") or {}
        kind = str(reference.get("kind") or "Deployment")
        if str(reference.get("apiVersion") or "apps/v1") != "apps/v1":
            return None
        place = Place("apps/v1", str(_meta(body).get("namespace")), f"{kind.lower()}s", str(reference.get("name")))
        try:
            found = api.read(place, until)
        except ApiError:  # it is gone, or may not be read: then the guess says so
            return None
        containers = (((found.get("spec") or {}).get("template") or {}).get("spec") or {}).get("containers") or []
        asked = [quantity(((one.get("resources") or {}).get("requests") or {}).get("cpu")) for one in containers]
        known = [one for one in asked if one is not None]
        return sum(known) if known and len(known) == len(asked) else None

    return read


def default_kubeconfig(environment: Mapping[str, str], home: Path) -> Cluster | None:
    """Where kubectl would look; None where there is nothing."""
    named = environment.get("KUBECONFIG", "").split(":")[0]
    path = Path(named) if named else home / ".kube" / "config"
    if path.is_file():
        return Cluster(kubeconfig=path)
    return Cluster() if environment.get("KUBERNETES_SERVICE_HOST") else None
