"""Which object a Kubernetes target means, and where the server has its scale."""

from controllers.actuators.interface import PermanentError
from controllers.config import KubernetesTarget
from controllers.kubernetes_api import Api, Place, group_path


def object_of(target: KubernetesTarget) -> tuple[str, str, str]:
    """(API version, kind, name)."""
    if target.generic is not None:
        return target.generic.api_version, target.generic.kind, target.generic.name
    kind, name = ("Deployment", target.deployment) if target.deployment else ("StatefulSet", target.statefulset)
    return "apps/v1", kind, str(name)


def scale_place(api: Api, target: KubernetesTarget, until: float) -> Place:
    """Where the object's scale is; for a kind that is not Kubernetes' own the server is asked.

    Raises ApiError, PermanentError for a kind that has none.
    """
    api_version, kind, name = object_of(target)
    resource = f"{kind.lower()}s" if target.generic is None else _resource(api, api_version, kind, until)
    return Place(api_version, target.namespace, resource, name, "scale")


def _resource(api: Api, api_version: str, kind: str, until: float) -> str:
    """The plural under which the server serves `kind`."""
    served = (api.discover(group_path(api_version), until) or {}).get("resources") or []
    names = {entry.get("name"): entry.get("kind") for entry in served}
    for name, its_kind in names.items():
        if its_kind == kind and f"{name}/scale" in names:
            return str(name)
    found = "has no scale subresource" if kind in names.values() else "is not served by this cluster"
    raise PermanentError(f"target.kubernetes.generic: {kind} of {api_version} {found}; correct it")
