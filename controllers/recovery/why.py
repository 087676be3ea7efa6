"""`tidewise recovery status` and `tidewise recovery why TARGET`: what is being mended, what was done or not, and why.

Both read the journal, which has every decision that differed from the one before; neither needs the process to run.
"""

import argparse
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from controllers.config import load
from controllers.config.recovery import RecoverySection
from controllers.recovery.book import Book, Entry, Kind
from controllers.recovery.journal import JournalError, read_journal
from controllers.recovery.meaning import MEANING
from controllers.recovery.operation import Operation, Reason
from exporters.runtime.config import ConfigError, nearest


def main(argv: list[str]) -> int:
    """0 answered, 1 the journal cannot be read or says nothing, 2 no such target. Raises ConfigError."""
    parser = argparse.ArgumentParser(prog="tidewise recovery")
    questions = parser.add_subparsers(dest="question", required=True)
    status = questions.add_parser("status", help="what is being mended now, and what is held back")
    because = questions.add_parser("why", help="what was done about a target, and why, oldest first")
    because.add_argument("target", help="a target's name")
    because.add_argument("--last", type=int, default=40, metavar="N", help="lines to show (default: %(default)s)")
    for question in (status, because):
        question.add_argument("--config", type=Path, default=Path("tidewise.yaml"), help="default: %(default)s")
    options = parser.parse_args(argv)
    config = load(options.config)
    if config.recovery is None:
        raise ConfigError([f"{options.config}: recovery: is missing; docs/recovery.md shows a first one"])
    known = [target.name for target in config.recovery.targets]
    if options.question == "why" and options.target not in known:
        print(f"{options.config}: no target '{options.target}'{nearest(options.target, known)}", file=sys.stderr)
        return 2
    try:
        entries, book = read_journal(config.recovery.journal)
    except JournalError as error:
        print(error, file=sys.stderr)
        return 1
    lines = _status(config.recovery, book) if options.question == "status" else _why(options, entries, book)
    print("\n".join(lines))
    return 0


def _status(section: RecoverySection, book: Book) -> Iterator[str]:
    for target in section.targets:
        opened = [one for one in book.open_operations() if one.target == target.name]
        yield f"{target.name}: {len(opened) or 'nothing'} open (mode {target.mode})"
        for operation in opened:
            yield f"  {operation.instance}: {_summary(operation)}"
            decided = book.decided.get((target.name, operation.instance))
            if decided is not None:
                yield f"    since {_time(decided.at)}: {_decision(decided.body or {})}"
        for (name, instance), entry in book.decided.items():
            held = name == target.name and (entry.body or {}).get("next") in ("freeze", "wait")
            if held and book.open_one(name, instance) is None:
                yield f"  {instance or '(all)'}: since {_time(entry.at)}: {_decision(entry.body or {})}"


def _why(options: argparse.Namespace, entries: list[Entry], book: Book) -> Iterator[str]:
    told = [line for entry in entries if entry.target == options.target for line in _lines(entry)]
    yield from told[-options.last :] if told else [f"{options.target}: nothing was ever done or held back"]
    seconds = [value for target, value in book.repairs if target == options.target]
    if seconds:
        yield ""
        yield f"repaired {len(seconds)} times, in {sum(seconds) / len(seconds):.0f} s on average"


def _lines(entry: Entry) -> Iterator[str]:
    body = entry.body or {}
    begin = f"{_time(entry.at)}  {entry.instance or '(all)'}  "
    match entry.kind:
        case Kind.OPENED:
            steps = " -> ".join(body["ladder"])
            yield f"{begin}operation {entry.operation} opened: {body['symptom']} is confirmed; ladder {steps}"
        case Kind.DECIDED:
            yield f"{begin}{_decision(body)}"
            for reason in body["reasons"]:
                yield f"{'':<{len(begin)}}  {reason}: {MEANING[Reason(reason)]}"
            yield from (f"{'':<{len(begin)}}  {text}" for text in _rests_on(body))
        case Kind.JUDGED:
            yield f"{begin}{'came back' if body['relapsed'] else 'verification failed'}: {body['failed'] or 'relapsed'}"
        case Kind.RESERVED:
            yield f"{begin}{body['step']} attempt {body['number']} begins"
        case Kind.OUTCOME:
            yield f"{begin}  ended: {body['result']}{': ' + body['detail'] if body['detail'] else ''}"
        case Kind.HANDED:
            yield f"{begin}handed over to people: {body['reason']}"
        case Kind.CLOSED:
            yield f"{begin}operation {entry.operation} closed: {body['reason']}"


def _decision(body: Any) -> str:
    step = f" ({body['step']})" if body.get("step") and body["step"] != body["next"] else ""
    because = f" because {', '.join(body['reasons'])}" if body["reasons"] else ""
    return f"{body['next']}{step}{because}"


def _rests_on(body: Any) -> Iterator[str]:
    peers = body["peers"]
    alive = {True: ", alive", False: ", not alive", None: ""}[body["alive"]]
    yield (
        f"seen: {body['health']}{alive}; of its peers {peers['healthy']} healthy, {peers['sick']} sick, "
        f"{peers['unknown']} unknown"
    )
    if body["dependency"]:
        yield f"waits for: {body['dependency']}"
    if body["problem"]:
        yield f"problem: {body['problem']}"
    if body["until"]:
        yield f"until: {_time(body['until'])}"


def _summary(operation: Operation) -> str:
    made = ", ".join(f"{a.step} {a.number} {a.result or 'under way'}" for a in operation.attempts) or "nothing tried"
    handed = f"; handed over to people ({operation.handed_for})" if operation.handed_for else ""
    return f"{operation.symptom} since {_time(operation.opened_at)}; {made}{handed}"


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
