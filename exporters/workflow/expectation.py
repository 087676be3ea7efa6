"""From when a workflow's expected interval counts, so that what was just activated or edited is not late at once."""

from exporters.workflow.state import Workflow, latest


class Expectations:
    """Remembers when each workflow began to be expected. Times are Unix seconds; the clock is the caller's."""

    def __init__(self) -> None:
        self._began: dict[str, float | None] = {}  # workflow -> None: it was so when the exporter started
        self._first_look = True

    def since(self, workflow: Workflow, expected: float | None, last_success: float | None, now: float) -> float | None:
        """From when its interval counts; None while nothing is expected of it."""
        if expected is None:
            self._began.pop(workflow.workflow_id, None)
            return None
        began = self._began.setdefault(workflow.workflow_id, None if self._first_look else now)
        if last_success is not None:
            return latest(min(last_success, now), began)
        if began is None and workflow.changed is None:
            began = self._began[workflow.workflow_id] = now
        return latest(None if workflow.changed is None else min(workflow.changed, now), began)

    def looked(self, workflow_ids: set[str]) -> None:
        """Ends a look at all workflows: what appears later has begun later. Forgets those that are no more."""
        self._first_look = False
        for gone in self._began.keys() - workflow_ids:
            del self._began[gone]
