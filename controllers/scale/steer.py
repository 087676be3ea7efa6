"""`tidewise surge`, `pause`, `resume` and `overrides`: what a person asks of the running scaler for a time.

Each asks the scaler at `scale.url`, which answers once it is on its disk. Exit status: 0 done, 1 the scaler does not
answer or refuses, 2 wrong usage or no such workload.
"""

import argparse
import getpass
import os
import re
import socket
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from controllers.config import Config, Workload, load
from controllers.domain import Direction
from controllers.recovery.http import NeighbourError, exchange
from controllers.scale.moments import coming, length, spoken, zone_of
from controllers.scale.overrides import LONGEST_SECONDS, MOST_SURGE
from exporters.runtime.bearer import TokenError, read_token

SECONDS = 10.0  # for one answer
TRIES = 5  # behind one address there may be several scalers, of which one acts
LEADS_NOT = "another replica of the scaler acts"


class SteerError(Exception):
    """It was not done; a sentence for the person, and the exit status."""

    def __init__(self, text: str, status: int = 1) -> None:
        self.status = status
        super().__init__(text)


def surge(argv: list[str]) -> int:
    """`tidewise surge WORKLOAD +N --until WHEN`. Raises ConfigError."""
    parser = _parser(
        "surge",
        "More replicas of a workload than it needs, until a time. Within replicas.max and the budget.",
        "Example: tidewise surge video-analysis +5 --until 21:00 --note 'launch on television'",
    )
    parser.add_argument("workload", help="name or namespace/name")
    parser.add_argument("replicas", type=_surge, metavar="+N", help="so many on top of what is needed")
    return _begin(parser, argv)


def pause(argv: list[str]) -> int:
    """`tidewise pause WORKLOAD [--up|--down] --until WHEN`. Raises ConfigError."""
    parser = _parser(
        "pause",
        "No change of a workload's replicas until a time: upwards, downwards, or at all.",
        "Example: tidewise pause video-analysis --down --until 2h --note 'importing the archive'",
    )
    parser.add_argument("workload", help="name or namespace/name")
    ways = parser.add_mutually_exclusive_group()
    ways.add_argument("--up", dest="way", action="store_const", const=Direction.UP, help="only: add none")
    ways.add_argument("--down", dest="way", action="store_const", const=Direction.DOWN, help="only: end none")
    parser.set_defaults(way=Direction.BOTH)
    return _begin(parser, argv)


def resume(argv: list[str]) -> int:
    """`tidewise resume WORKLOAD`. Raises ConfigError."""
    parser = _parser("resume", "End all overrides of a workload.", "Example: tidewise resume video-analysis")
    parser.add_argument("workload", help="name or namespace/name")
    options = parser.parse_args(argv)
    config = load(options.config)
    try:
        workload = _workload(config, options)
        body = {"workload": workload.identity, "by": who()}
        ended = _shown(ask(config, "POST", "/override/end", body), "ended")
    except SteerError as error:
        return _said(error)
    zone = zone_of(workload, config)
    if not ended:
        print(f"{workload.identity}: nothing was in force")
    for one in ended:
        print(f"{workload.identity}: ended {one.what} until {spoken(one.until, zone)}, by {one.by}{one.noted}")
    return 0


def overrides(argv: list[str]) -> int:
    """`tidewise overrides [WORKLOAD]`. Raises ConfigError."""
    parser = _parser(
        "overrides", "What people asked of the scaler: in force, and before. Times are in each workload's zone.", None
    )
    parser.add_argument("workload", nargs="?", help="name or namespace/name; default: all")
    parser.add_argument("--last", type=int, default=20, metavar="N", help="so many of those before (%(default)s)")
    options = parser.parse_args(argv)
    config = load(options.config)
    try:
        wanted = _workload(config, options).identity if options.workload else None
        answer = ask(config, "GET", "/overrides", None)
        found = [one for one in _shown(answer, "overrides") if wanted in (None, one.workload)]
        now = answer.get("now")
        if not isinstance(now, (int, float)):
            raise _of_another_kind(f"now: {now!r}")
    except SteerError as error:
        return _said(error)
    print("\n".join(_listed(found, config, now, options.last)))
    return 0


@dataclass(frozen=True, slots=True)
class _Shown:
    """One override as the scaler tells of it."""

    workload: str
    kind: str
    surge: int
    since: float
    until: float
    by: str
    note: str
    in_force: bool
    ended_at: float | None
    ended_by: str | None

    @classmethod
    def of(cls, told: Any) -> "_Shown":
        """Raises SteerError where it is something else."""
        try:
            return cls(**{name: told[name] for name in cls.__slots__})
        except (KeyError, TypeError) as error:
            raise _of_another_kind(repr(error)) from None

    @property
    def what(self) -> str:
        return f"+{self.surge}" if self.kind == "surge" else self.kind.replace("_", " ")

    @property
    def noted(self) -> str:
        return f": {self.note}" if self.note else ""

    def became(self, zone: ZoneInfo) -> str:
        if self.ended_at is None:
            return "lapsed"
        return f"ended {spoken(self.ended_at, zone)} by {self.ended_by}"


def _shown(answer: Mapping[str, Any], key: str) -> list[_Shown]:
    """Raises SteerError where there are none."""
    told = answer.get(key)
    if not isinstance(told, list):
        raise _of_another_kind(f"{key}: {told!r}")
    return [_Shown.of(one) for one in told]


def _of_another_kind(what: str) -> SteerError:
    return SteerError(
        f"the scaler's answer is of another kind ({what}); is scale.url its address, and is it of this version?"
    )


def _listed(found: Sequence[_Shown], config: Config, now: float, last: int) -> list[str]:
    zones = {w.identity: zone_of(w, config) for w in config.workloads}

    def zone(one: _Shown) -> ZoneInfo:
        return zones.get(one.workload, ZoneInfo("UTC"))

    force = [one for one in found if one.in_force]
    before = [one for one in found if not one.in_force][-last:] if last > 0 else []
    rows = [
        (o.workload, o.what, f"until {spoken(o.until, zone(o))}", f"{length(o.until - now)} left", _asked(o, zone(o)))
        for o in force
    ]
    lines = ["in force", *_columns(rows)] if rows else ["in force: none"]
    rows = [
        (o.workload, o.what, f"until {spoken(o.until, zone(o))}", o.became(zone(o)), _asked(o, zone(o))) for o in before
    ]
    return [*lines, "", "before", *_columns(rows)] if rows else lines


def _asked(one: _Shown, zone: ZoneInfo) -> str:
    return f"{spoken(one.since, zone)} by {one.by}{one.noted}"


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]


def _begin(parser: argparse.ArgumentParser, argv: list[str]) -> int:
    parser.add_argument(
        "--until", required=True, metavar="WHEN", help="21:00 in the workload's zone, a length such as 2h, or ISO 8601"
    )
    parser.add_argument("--note", default="", help="why; kept with it")
    options = parser.parse_args(argv)
    config = load(options.config)
    now = time.time()
    try:
        workload = _workload(config, options)
        zone = zone_of(workload, config)
        until = _until(options.until, now, zone)
        body = {
            "id": uuid.uuid4().hex,  # so that the same request heard twice counts once
            "workload": workload.identity,
            "by": who(),
            "until": until,
            "note": _one_line(options.note),
            **({"surge": options.replicas} if "replicas" in options else {"pause": options.way.value}),
        }
        answer = ask(config, "POST", "/override", body)
        kept = _Shown.of(answer.get("override"))
    except SteerError as error:
        return _said(error)
    when = f"until {spoken(kept.until, zone)} (in {length(kept.until - now)})"
    print(f"{workload.identity}: {kept.what} {when}, by {kept.by}{kept.noted}")
    for sentence in answer.get("said", ()):
        print(f"  {sentence}")
    print(f"  to end it sooner: tidewise resume {workload.identity}")
    return 0


def ask(config: Config, method: str, path: str, body: object) -> dict[str, Any]:
    """The scaler's answer. Raises SteerError with what to do."""
    url, token_file = config.scale.url, config.scale.token_file
    try:
        read_token(token_file, "scale.token_file")
    except TokenError as error:
        raise SteerError(str(error), 2) from None
    reply = None
    for last in (*[False] * (TRIES - 1), True):
        try:
            reply = exchange(method, url + path, SECONDS, body, token_file, "scale.token_file")
        except NeighbourError as error:
            if error.may_have_arrived and not last:
                continue  # the same id: asking again is safe
            said = f"{url} does not answer ({error}); is `tidewise scale` running, and is scale.url its address?"
            more = " It may have been heard all the same: see `tidewise overrides`." if error.may_have_arrived else ""
            raise SteerError(said + more) from None
        if not (reply.status == 503 and LEADS_NOT in str(reply.body)):
            break
    if reply is None or not isinstance(reply.body, dict):
        raise SteerError(f"{url}{path}: the answer is no JSON object; is scale.url the address of `tidewise scale`?")
    if reply.status == 200:
        return reply.body
    error_text = str(reply.body.get("error", f"status {reply.status}"))
    if reply.status == 401:
        error_text = (
            f"the token in {token_file} is not the scaler's (scale.token_file there); use the same file's words"
        )
    elif LEADS_NOT in error_text:
        error_text = f"this one does not lead, and another may; give scale.url the address of the one that does ({url})"
    raise SteerError(f"{url}: {error_text}")


def who() -> str:
    """user@host, as this machine knows them."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = f"uid{os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def _parser(name: str, description: str, epilog: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"tidewise {name}", description=description, epilog=epilog)
    parser.add_argument("--config", type=Path, default=Path("tidewise.yaml"), help="default: %(default)s")
    return parser


def _surge(text: str) -> int:
    if not re.fullmatch(r"\+?[1-9]\d{0,5}", text) or int(text) > MOST_SURGE:
        raise argparse.ArgumentTypeError(f"found '{text}'; a surge only adds: write +1 to +{MOST_SURGE}")
    return int(text)


def _workload(config: Config, options: argparse.Namespace) -> Workload:
    found = config.workload(options.workload)
    if found is None:
        raise SteerError(f"{options.config}: {config.unknown(options.workload)}", 2)
    return found


def _until(text: str, now: float, zone: ZoneInfo) -> float:
    try:
        until = coming(text, now, zone)
    except ValueError as error:
        raise SteerError(f"--until: {error}", 2) from None
    if until > now + LONGEST_SECONDS:
        days = LONGEST_SECONDS / 86_400
        raise SteerError(
            f"--until: found '{text}', more than {days:.0f} days ahead; what is to last belongs into the file", 2
        )
    return until


def _one_line(text: str) -> str:
    return " ".join(text.split())[:500]


def _said(error: SteerError) -> int:
    print(error, file=sys.stderr)
    return error.status
