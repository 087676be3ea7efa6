"""n8n through its public API, where its database is out of reach: `/api/v1/workflows` and `/api/v1/executions`.

The list of executions has the ended ones, the newest number first. What ends late stands deeper in it: at least one
page of 250 is read each time, and newer versions also tell which executions are open, so that each is followed.
"""

import time
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from exporters.jsonapi import ApiError, get_json, secret
from exporters.workflow.config import N8n
from exporters.workflow.executions import Execution, Follower, Tally
from exporters.workflow.reading import Reading, moment
from exporters.workflow.schedule import expected_seconds
from exporters.workflow.state import Workflow

PAGE = 250  # the most that n8n gives
PAGES = 8  # of executions in one look
FIRST_PAGES = 4  # at the start: when each workflow last succeeded
SEEN_MOST = 20_000  # numbers that are known to be counted
LATE_MOST = 20  # executions asked for one by one in one look
WORKFLOWS_SECONDS = 300.0  # their list has all nodes in it: it is not asked for at every scrape
WORKFLOWS_PAGE = 100
WORKFLOWS_MOST = 100_000
LIST_SHARE = 0.8  # of the time that a look has left, when all else is read
OPEN_STATUSES = ("running", "waiting")


class ApiReader:
    """Reads one n8n's API."""

    def __init__(self, config: N8n) -> None:
        self._config = config
        self._workflows: list[Workflow] = []
        self._beyond = 0
        self._listed: set[str] = set()
        self._refresh_at = 0.0
        self._has_list = False
        self._found: dict[str, Workflow | None] = {}  # of the list that is being read; None: it is put away
        self._cursor: str | None = None  # where that goes on
        self._workflows_page = WORKFLOWS_PAGE
        self._started = False
        self._seen: set[int] = set()
        self._floor = 0  # lower numbers ended before the exporter started
        self._late: dict[int, None] = {}  # numbers that were open when last looked at
        self._tells_open = True

    def read(self, deadline: float, tally: Tally) -> Reading:
        problems: list[str] = []
        half = (deadline - time.monotonic()) / 2
        still_open = self._open(deadline)
        if not self._ended(deadline, tally):
            problems.append("more executions ended than can be read at once; some are not counted")
        if still_open is not None:
            self._follow(still_open, deadline, tally)
        if time.monotonic() >= self._refresh_at:
            problems += self._list_workflows(deadline, half)
        opened = None if still_open is None else Follower(0, still_open.values()).still_open()
        return Reading(self._workflows, self._beyond, None, opened, problems)

    def _list_workflows(self, deadline: float, half: float) -> list[str]:
        """Lists them on from where the last look stopped; what is wrong with that. Shown is the last whole list.

        Raises ApiError where there is none yet. A page that takes more than `half` of a look, in seconds, is too
        large: it is quartered, which means to begin again, for a cursor holds its page's size.
        """
        began = time.monotonic()
        until = began + LIST_SHARE * (deadline - began)
        before = len(self._found)
        try:
            while time.monotonic() < until:
                limit = {"limit": str(self._workflows_page)}
                page, self._cursor = self._page("workflows", limit, self._cursor, until)
                self._found |= {str(one["id"]): _workflow(one) for one in page}
                if self._cursor is None or len(self._found) >= WORKFLOWS_MOST:
                    self._conclude_list()
                    return []
        except ApiError as error:
            now = time.monotonic()
            if now < until:  # that was no want of time
                self._found, self._cursor = {}, None
            elif len(self._found) == before and now - began > half:
                self._workflows_page = max(1, self._workflows_page // 4)
                self._found, self._cursor = {}, None
            if now < until or len(self._found) <= before:
                if not self._has_list:
                    raise
                return [f"the list of workflows is an old one: {error}"]
        if not self._has_list:
            raise ApiError(
                f"{self._config.api}: {len(self._found)} workflows are listed; it goes on at the next look, and all "
                f"are shown when all are listed"
            )
        return []

    def _conclude_list(self) -> None:
        found = [workflow for workflow in self._found.values() if workflow is not None]
        found.sort(key=lambda workflow: (not workflow.active, workflow.workflow_id))
        most = self._config.workflows_max
        self._workflows, self._beyond = found[:most], max(0, len(found) - most)
        self._listed |= {workflow.workflow_id for workflow in found}
        self._found, self._cursor, self._has_list = {}, None, True
        self._refresh_at = time.monotonic() + WORKFLOWS_SECONDS

    def _open(self, deadline: float) -> dict[int, Execution] | None:
        """What runs and waits; None where this version does not tell."""
        if not self._tells_open:
            return None
        found: dict[int, Execution] = {}
        for status in OPEN_STATUSES:
            try:
                for one in self._pages("executions", {"limit": str(PAGE), "status": status}, deadline, most=PAGES):
                    execution = _execution({**one, "status": status})
                    found[execution.number] = execution
            except ApiError as error:
                if error.status != 400:
                    raise
                self._tells_open = False  # asked again when the exporter is started anew
                return None
        return found

    def _ended(self, deadline: float, tally: Tally) -> bool:
        """Counts what has ended and was not counted. False: there was more than could be read."""
        first = not self._started
        found, whole = self._uncounted(FIRST_PAGES if first else PAGES, deadline)
        for execution in found:
            self._seen.add(execution.number)
            (tally.remember if first else tally.add)(execution)
            if execution.workflow_id not in self._listed:
                self._refresh_at = 0.0  # one that is newer than the list
                self._listed.add(execution.workflow_id)  # once: what is put away never is in the list
        if first:
            self._started, self._floor = True, min(self._seen, default=0)
        if len(self._seen) > 2 * SEEN_MOST:
            self._seen = set(sorted(self._seen)[-SEEN_MOST:])
            self._floor = min(self._seen)
        return whole or first

    def _uncounted(self, pages: int, deadline: float) -> tuple[Collection[Execution], bool]:
        """What has ended and was not counted, and whether that is all.

        Where a page fails, nothing is taken of the others: the next look would stop there and miss what stands behind.
        """
        new: dict[int, Execution] = {}
        cursor: str | None = None
        for _ in range(pages):
            found, cursor = self._page("executions", {"limit": str(PAGE)}, cursor, deadline)
            before = len(new)
            for execution in map(_execution, found):
                if execution.ended and execution.number not in self._seen and execution.number >= self._floor:
                    new[execution.number] = execution
            if len(new) == before or cursor is None:
                return new.values(), True
        return new.values(), False

    def _follow(self, still_open: Mapping[int, Execution], deadline: float, tally: Tally) -> None:
        """Asks for those that were open, are no longer, and stood too deep in the list."""
        gone = [number for number in self._late if number not in still_open and number not in self._seen]
        for number in gone[:LATE_MOST]:
            try:
                execution = _execution(self._get(f"executions/{number}", {}, deadline))
            except ApiError as error:
                if error.status != 404:
                    raise
                continue  # deleted
            if execution.ended:
                self._seen.add(number)
                tally.add(execution)
        self._late = dict.fromkeys([*gone[LATE_MOST:], *still_open])

    def _pages(self, what: str, query: dict[str, str], deadline: float, most: int) -> Iterator[dict[str, Any]]:
        """The objects of up to `most` pages of a list."""
        cursor: str | None = None
        for _ in range(most):
            found, cursor = self._page(what, query, cursor, deadline)
            yield from found
            if cursor is None:
                return

    def _page(
        self, what: str, query: dict[str, str], cursor: str | None, deadline: float
    ) -> tuple[list[dict[str, Any]], str | None]:
        """One page of a list, and what asks for the next one; None after the last."""
        answer = self._get(what, query | ({"cursor": cursor} if cursor else {}), deadline)
        found, following = answer.get("data"), answer.get("nextCursor")
        if not isinstance(found, list) or not all(isinstance(one, dict) and "id" in one for one in found):
            raise ApiError(f"{self._config.api}/api/v1/{what}: an answer of another kind; is this n8n?")
        return found, str(following) if following else None

    def _get(self, what: str, query: Mapping[str, str], deadline: float) -> dict[str, Any]:
        if self._config.api_key_file is None:
            raise ApiError("api_key_file is missing")
        key = secret(self._config.api_key_file, "exporters.workflow.n8n.api_key_file")
        url = f"{self._config.api}/api/v1/{what}"
        answer = get_json(url, {"X-N8N-API-KEY": key}, deadline, query, self._config.ca_file)
        if not isinstance(answer, dict):
            raise ApiError(f"{url}: an answer of another kind; is this n8n?")
        return answer


def _workflow(one: Mapping[str, Any]) -> Workflow | None:
    """None: it is archived."""
    if one.get("isArchived"):
        return None
    active = bool(one.get("active"))
    return Workflow(
        str(one["id"]),
        str(one.get("name", ""))[:400],
        active,
        moment(one.get("updatedAt")),
        expected_seconds(one.get("nodes") or []) if active else None,
    )


def _execution(one: Mapping[str, Any]) -> Execution:
    status = one.get("status")
    return Execution(
        int(one["id"]),
        str(one.get("workflowId")),
        str(one.get("mode")),
        None if status is None else str(status),
        one.get("finished"),
        moment(one.get("startedAt")),
        moment(one.get("stoppedAt")),
        one.get("waitTill") is not None,
    )
