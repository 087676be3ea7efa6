"""Amazon SQS: approximate counts of each queue, asked for at most every half minute, because each call costs money.

Counts are Amazon's approximations, which settle within about a minute. The age of the oldest message is only in
CloudWatch, minutes late and paid for by the metric: it is asked for where the configuration says so.
"""

import json
import threading
import time
from collections.abc import Container, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from prometheus_client.metrics_core import Metric
from pydantic import AfterValidator, Field, model_validator

from exporters.collector import CollectFunction, PartialReadError
from exporters.labels import clean
from exporters.queue.state import QueueState, queue_metrics
from exporters.runtime.config import ConfigError, HttpUrl, Section, repeated

SYSTEM = "sqs"
COUNTS = {
    "ready": "ApproximateNumberOfMessages",
    "active": "ApproximateNumberOfMessagesNotVisible",
    "delayed": "ApproximateNumberOfMessagesDelayed",
}
AT_ONCE = 8  # queues asked side by side
AGES_PER_CALL = 500  # the most that CloudWatch takes
# CloudWatch has SQS's metrics by the minute and a few minutes late; an older value tells nothing of now.
AGE_WINDOW = timedelta(minutes=10)


class ReadError(Exception):
    """Nothing could be read; a sentence."""


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,80}(\.fifo)?$")]


class Queue(Section):
    """One queue. `url`: where it is in another account; else it is looked up by its name."""

    name: Name
    url: HttpUrl | None = None


class Account(Section):
    """The queues of one account and region. Credentials are boto3's: environment, profile, or the machine's role."""

    region: Annotated[str, Field(pattern="^[a-z0-9-]{1,40}$")]
    profile: Annotated[str, Field(min_length=1)] | None = None
    endpoint_url: HttpUrl | None = None
    at_most_every_seconds: Annotated[float, Field(ge=1, le=60)] = 30.0
    oldest_age: bool = False  # CloudWatch, paid for by the metric
    oldest_age_every_seconds: Annotated[float, Field(ge=60, le=900)] = 300.0
    queues: Annotated[list[Queue], Field(min_length=1, max_length=2000)]
    label_prefix: Annotated[str, Field(max_length=50)] = ""  # before each name in the label `queue`

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        names = [queue.name for queue in self.queues]
        twice = repeated(names)
        if twice:
            raise ValueError(f"the queue '{twice}' stands twice; remove one")
        return self

    @property
    def address(self) -> str:
        """The region, and the profile or the endpoint's host where one is named."""
        host = urlsplit(self.endpoint_url).netloc if self.endpoint_url else None
        return "/".join(part for part in (self.region, self.profile, host) if part)


def _distinct(accounts: list[Account]) -> list[Account]:
    addresses = [account.address for account in accounts]
    twice = repeated(addresses)
    if twice:
        raise ValueError(f"{twice} stands twice; write its queues in one place")
    where: dict[str, str] = {}
    for account in accounts:
        for queue in account.queues:
            label = account.label_prefix + queue.name
            if where.setdefault(label, account.address) != account.address:
                raise ValueError(
                    f"the queue '{label}' is in {where[label]} and {account.address}; give one of them a label_prefix"
                )
    return accounts


Servers = Annotated[list[Account], AfterValidator(_distinct)]


def collectors(servers: Sequence[Account]) -> Mapping[str, CollectFunction]:
    """One a region of an account. Raises ConfigError where the package `boto3` is not installed."""
    try:
        import boto3  # noqa: F401 - only to say so at the start and not at each scrape
    except ImportError:
        raise ConfigError(["exporters.queue.sqs: needs the package boto3; install tidewise[aws]"]) from None
    arns: dict[str, frozenset[str]] = {}
    return {account.address: SqsQueues(account, arns).collect for account in servers}


@dataclass(frozen=True)
class Reading:
    """What one round of calls gave. `at`: time.monotonic() and Unix seconds."""

    at: tuple[float, float]
    states: Mapping[str, QueueState]
    problems: Sequence[str]


class SqsQueues:
    """Asks for one account's queues side by side, and shows that until it is asked again.

    arns: by the address of each entry of the configuration the queues that it watches or whose dead letters go there,
    as they were last read; two entries may be of one account.
    """

    def __init__(self, account: Account, arns: dict[str, frozenset[str]] | None = None) -> None:
        self._account = account
        self._arns = {} if arns is None else arns
        self._aws = Aws(account)
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="sqs")
        self._last: Reading | None = None
        self._ages: dict[str, float] = {}  # Unix seconds at which each queue's oldest message came
        self._ages_at = -float("inf")

    def collect(self, deadline: float) -> Iterator[Metric]:
        last = self._last
        if last is None or time.monotonic() - last.at[0] >= self._account.at_most_every_seconds:
            last = self._last = self._read(deadline)
        prefix = self._account.label_prefix
        yield from queue_metrics(SYSTEM, {prefix + name: state for name, state in last.states.items()})
        if last.problems:
            more = f"; and {len(last.problems) - 3} more" if len(last.problems) > 3 else ""
            kind = PartialReadError if last.states else ReadError
            raise kind("; ".join(last.problems[:3]) + more)

    def _read(self, deadline: float) -> Reading:
        at = (time.monotonic(), time.time())
        names = [queue.name for queue in self._account.queues]
        asked = {queue.name: self._threads.submit(self._aws.attributes, queue) for queue in self._account.queues}
        if self._account.oldest_age and at[0] - self._ages_at >= self._account.oldest_age_every_seconds:
            ages: Future[dict[str, float]] | None = self._threads.submit(self._aws.oldest_at, names, at[1])
        else:
            ages = None
        read, problems = _results(asked, deadline)
        targets = redrive_targets(read)
        own = frozenset(attributes["QueueArn"] for attributes in read.values() if "QueueArn" in attributes)
        self._arns[self._account.address] = own.union(targets.values())
        elsewhere = [arns for address, arns in self._arns.copy().items() if address != self._account.address]
        letters = dead_letter_queues(targets, read, frozenset().union(*elsewhere))
        failed, more = _results(
            {name: self._threads.submit(self._aws.attributes_of, arn) for name, arn in letters.items()}, deadline
        )
        problems += [f"the dead letters of {problem}" for problem in more]
        if ages is not None:
            found, more = _results({"CloudWatch": ages}, deadline)
            problems += more
            self._ages, self._ages_at = found.get("CloudWatch", {}), at[0]
        states: dict[str, QueueState] = {}
        for name, attributes in read.items():
            try:
                oldest = None if name not in self._ages else max(0.0, at[1] - self._ages[name])
                states[name] = queue_state(attributes, failed.get(name), oldest, at[1])
            except ValueError as error:
                problems.append(f"'{name}': {error}")
        return Reading(at, states, problems)


def _results(futures: Mapping[str, "Future[Any]"], deadline: float) -> tuple[dict[str, Any], list[str]]:
    """What is there by `deadline`, and what went wrong with the others, as sentences that begin with their name."""
    wait(futures.values(), timeout=max(0.0, deadline - time.monotonic() - 0.2))
    found: dict[str, Any] = {}
    problems: list[str] = []
    for name, future in futures.items():
        if future.cancel() or not future.done():
            problems.append(f"'{name}': no answer in time")
        elif (error := future.exception()) is not None:
            problems.append(f"'{name}': {said(error)}")
        else:
            found[name] = future.result()
    return found, problems


def redrive_targets(read: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """The ARN of the queue to which each queue's dead letters go."""
    found: dict[str, str] = {}
    for name, attributes in read.items():
        try:
            arn = json.loads(attributes.get("RedrivePolicy", "{}")).get("deadLetterTargetArn", "")
        except (ValueError, AttributeError, RecursionError):
            continue
        if str(arn).count(":") == 5:
            found[name] = str(arn)
    return found


def dead_letter_queues(
    targets: Mapping[str, str], watched: Container[str], elsewhere: Container[str] = ()
) -> dict[str, str]:
    """Those `targets` that are for one queue alone and are not watched themselves.

    watched: names, here; elsewhere: ARNs that other entries watch or send to.
    """
    arns = list(targets.values())
    return {
        name: arn
        for name, arn in targets.items()
        if arns.count(arn) == 1 and arn.split(":")[5] not in watched and arn not in elsewhere
    }


def queue_state(
    attributes: Mapping[str, str], dead: Mapping[str, str] | None, oldest_age: float | None, read_at: float
) -> QueueState:
    """One queue's numbers. `dead`: the attributes of its dead letters' queue. Raises ValueError, as a sentence."""
    messages = {state: _count(attributes, name) for state, name in COUNTS.items()}
    if dead is not None:
        messages["failed"] = sum(_count(dead, name) for name in COUNTS.values())
    ages = {} if oldest_age is None else {"ready": oldest_age if messages["ready"] else 0.0}
    return QueueState(messages, ages, read_at=read_at)


def _count(attributes: Mapping[str, str], name: str) -> int:
    text = attributes.get(name, "nothing")
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"its {name} is {text[:40]!r}, which is no count")
    return int(text)


def said(error: BaseException) -> str:
    """An error of boto3's as a sentence; it never says a secret."""
    response = getattr(error, "response", None)
    if not isinstance(response, dict):
        return f"{type(error).__name__}: {clean(str(error))}"
    code = str(response.get("Error", {}).get("Code", "an error"))
    if "NonExistent" in code or "DoesNotExist" in code:
        return "there is no such queue, or it may not be seen; check its name, the region and the rights"
    if code in ("AccessDenied", "AccessDeniedException", "AuthorizationError"):
        if getattr(error, "operation_name", "") == "GetMetricData":
            return f"refused ({code}); the credentials need cloudwatch:GetMetricData, or set oldest_age to false"
        return f"refused ({code}); the credentials need sqs:GetQueueUrl and sqs:GetQueueAttributes on it"
    if "Token" in code or "Signature" in code or "Credential" in code or "AccessKey" in code:
        return f"the credentials were refused ({code}); check the environment, the profile or the machine's role"
    return f"{clean(code)}: {clean(str(response.get('Error', {}).get('Message', '')))}"


class Aws:
    """The calls, each of which ends within a few seconds. For several threads at once."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._clients: dict[str, Any] = {}
        self._urls: dict[tuple[str, str | None], str] = {}
        self._lock = threading.Lock()

    def attributes(self, queue: Queue) -> Mapping[str, str]:
        """A queue's counts and where its dead letters go."""
        url = queue.url or self._url(queue.name)
        return self._attributes(queue.name, None, url, [*COUNTS.values(), "RedrivePolicy", "QueueArn"])

    def attributes_of(self, arn: str) -> Mapping[str, str]:
        """The counts of a queue by its ARN, also in another account."""
        *_, owner, name = arn.split(":")
        return self._attributes(name, owner, self._url(name, owner), list(COUNTS.values()))

    def _attributes(self, name: str, owner: str | None, url: str, wanted: list[str]) -> Mapping[str, str]:
        try:
            answer = self._client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=wanted)
        except Exception:
            self._urls.pop((name, owner), None)  # it may have been made anew elsewhere
            raise
        attributes: Mapping[str, str] = answer.get("Attributes", {})
        return attributes

    def _url(self, name: str, owner: str | None = None) -> str:
        if (name, owner) not in self._urls:
            more = {"QueueOwnerAWSAccountId": owner} if owner else {}
            self._urls[name, owner] = self._client("sqs").get_queue_url(QueueName=name, **more)["QueueUrl"]
        return self._urls[name, owner]

    def oldest_at(self, names: Sequence[str], now: float) -> dict[str, float]:
        """When the oldest message of each queue came, in Unix seconds, where CloudWatch has a recent value."""
        client = self._client("cloudwatch")
        found: dict[str, float] = {}
        for start in range(0, len(names), AGES_PER_CALL):
            part = names[start : start + AGES_PER_CALL]
            end = datetime.fromtimestamp(now, UTC)
            answer = client.get_metric_data(
                MetricDataQueries=[_age_query(number, name) for number, name in enumerate(part)],
                StartTime=end - AGE_WINDOW, EndTime=end, ScanBy="TimestampDescending",
            )  # fmt: skip
            for result in answer["MetricDataResults"]:
                if result["Values"]:
                    name = part[int(result["Id"].removeprefix("q"))]
                    found[name] = result["Timestamps"][0].timestamp() - result["Values"][0]
        return found

    def _client(self, service: str) -> Any:
        with self._lock:  # making clients is not safe for threads
            if service not in self._clients:
                import boto3
                from botocore.config import Config

                session = boto3.session.Session(profile_name=self._account.profile, region_name=self._account.region)
                limits = Config(
                    connect_timeout=2, read_timeout=4, retries={"total_max_attempts": 2}, max_pool_connections=AT_ONCE
                )
                self._clients[service] = session.client(service, endpoint_url=self._account.endpoint_url, config=limits)
            return self._clients[service]


def _age_query(number: int, name: str) -> dict[str, Any]:
    metric = {
        "Namespace": "AWS/SQS",
        "MetricName": "ApproximateAgeOfOldestMessage",
        "Dimensions": [{"Name": "QueueName", "Value": name}],
    }
    return {"Id": f"q{number}", "MetricStat": {"Metric": metric, "Period": 60, "Stat": "Maximum"}}
