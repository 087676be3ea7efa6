"""Amazon SQS: what is asked, how often, and the page of a fake AWS that boto3 talks to."""

import json
import socket
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from pydantic import TypeAdapter, ValidationError

from exporters.collector import CollectFunction, PartialReadError
from exporters.queue import sqs
from exporters.queue.sqs import (
    Account,
    ReadError,
    SqsQueues,
    collectors,
    dead_letter_queues,
    queue_state,
    redrive_targets,
    said,
)
from testbed.parts import HOST, free_port

REGION = "eu-central-1"
Page = Callable[[Mapping[str, CollectFunction]], str]

MISTAKES = [
    pytest.param([{"region": REGION, "queues": []}], "at least 1 item", id="no queue"),
    pytest.param(
        [{"region": REGION, "queues": [{"name": "a b"}]}], "match pattern", id="a name that SQS does not take"
    ),
    pytest.param([{"region": REGION, "queues": [{"name": "a"}] * 2}], "the queue 'a' stands twice", id="a queue twice"),
    pytest.param(
        [{"region": REGION, "endpoint_url": "https://key:secret@h", "queues": [{"name": "a"}]}],
        "holds more than scheme, host, port and path",
        id="credentials in an address",
    ),
    pytest.param(
        [{"region": REGION, "queues": [{"name": name}]} for name in "ab"],
        "eu-central-1 stands twice",
        id="a region twice",
    ),
    pytest.param(
        [{"region": REGION, "profile": profile, "queues": [{"name": "a"}]} for profile in "xy"],
        "the queue 'a' is in eu-central-1/x and eu-central-1/y; give one of them a label_prefix",
        id="one name in two accounts",
    ),
]


@pytest.mark.parametrize(("accounts", "sentence"), MISTAKES)
def test_a_mistake_in_the_configuration_is_a_sentence(accounts: list[dict[str, Any]], sentence: str) -> None:
    with pytest.raises(ValidationError) as refused:
        TypeAdapter(sqs.Servers).validate_python(accounts)
    messages = "; ".join(detail["msg"] for detail in refused.value.errors(include_input=False))
    assert sentence in messages
    assert "secret" not in messages


def redrive(queue: str) -> dict[str, str]:
    return {"RedrivePolicy": json.dumps({"deadLetterTargetArn": f"arn:aws:sqs:{REGION}:1:{queue}"})}


REDRIVEN = [
    pytest.param({"a": redrive("dead"), "b": {}}, {"a": "dead"}, id="a queue with dead letters and one without"),
    pytest.param({"a": redrive("dead"), "b": redrive("dead")}, {}, id="shared dead letters are nobody's"),
    pytest.param({"a": redrive("dead"), "dead": {}}, {}, id="dead letters that are watched would count twice"),
    pytest.param({"a": {"RedrivePolicy": "[]"}, "b": {"RedrivePolicy": "{"}}, {}, id="a policy that is none"),
    pytest.param({"a": {"RedrivePolicy": '{"deadLetterTargetArn": 3}'}}, {}, id="an ARN that is none"),
]


@pytest.mark.parametrize(("read", "letters"), REDRIVEN)
def test_dead_letters_count_for_the_one_queue_that_sends_them(
    read: dict[str, dict[str, str]], letters: dict[str, str]
) -> None:
    targets = redrive_targets(read)
    assert {name: arn.split(":")[-1] for name, arn in dead_letter_queues(targets, read).items()} == letters
    assert dead_letter_queues(targets, read, targets.values()) == {}, "another entry watches them, or sends there too"


def test_a_count_that_is_none_is_a_sentence() -> None:
    counts = dict.fromkeys(sqs.COUNTS.values(), "0")
    assert queue_state(counts, None, 7.0, 0.0).oldest_age == {"ready": 0.0}  # CloudWatch is late: nobody waits now
    for text in ("-1", "1.5", "", "²"):
        with pytest.raises(ValueError, match=r"its ApproximateNumberOfMessages is .*, which is no count"):
            queue_state({**counts, "ApproximateNumberOfMessages": text}, None, None, 0.0)


SAID = [
    ("AWS.SimpleQueueService.NonExistentQueue", "there is no such queue, or it may not be seen"),
    ("AccessDenied", "refused (AccessDenied); the credentials need sqs:GetQueueUrl"),
    ("InvalidClientTokenId", "the credentials were refused (InvalidClientTokenId)"),
    ("ThrottlingException", "ThrottlingException: slow\ndown"),
]


@pytest.mark.parametrize(("code", "sentence"), SAID, ids=[code for code, _ in SAID])
def test_what_aws_refuses_is_a_sentence(code: str, sentence: str) -> None:
    error = ClientError({"Error": {"Code": code, "Message": "slow\ndown"}}, "GetQueueAttributes")
    assert said(error).startswith(sentence)


def test_cloudwatch_refused_names_the_right_that_is_missing() -> None:
    error = ClientError({"Error": {"Code": "AccessDenied", "Message": "User: x is not authorized"}}, "GetMetricData")
    assert said(error) == (
        "refused (AccessDenied); the credentials need cloudwatch:GetMetricData, or set oldest_age to false"
    )


@pytest.fixture
def client(moto_url: str) -> Any:
    """A client of the fake AWS."""
    return boto3.client("sqs", endpoint_url=moto_url, region_name=REGION)


def make_queue(client: Any, name: str, **attributes: str) -> str:
    url: str = client.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
    return url


@pytest.mark.real
def test_a_real_client_puts_messages_and_the_page_shows_them_by_state(client: Any, moto_url: str, page: Page) -> None:
    dead = make_queue(client, "dead")
    jobs = make_queue(client, "jobs", VisibilityTimeout="600")
    client.set_queue_attributes(
        QueueUrl=jobs,
        Attributes={"RedrivePolicy": json.dumps({
            "maxReceiveCount": 1,
            "deadLetterTargetArn": client.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])
            ["Attributes"]["QueueArn"],
        })},
    )  # fmt: skip
    for delay in (0, 0, 0, 300):
        client.send_message(QueueUrl=jobs, MessageBody="job", DelaySeconds=delay)
    client.receive_message(QueueUrl=jobs)
    client.send_message(QueueUrl=dead, MessageBody="job")

    account = Account(region=REGION, endpoint_url=moto_url, queues=[{"name": "jobs"}])
    functions = collectors([account])
    assert list(functions) == [f"{REGION}/{moto_url.removeprefix('http://')}"]
    before = time.time()
    shown = page(functions)
    for state, count in {"ready": 2.0, "active": 1.0, "delayed": 1.0, "failed": 1.0}.items():
        assert f'queue_messages{{queue="jobs",state="{state}",system="sqs"}} {count}' in shown
    for absent in ("oldest", "consumers", "_total"):  # nobody knows
        assert f"queue_{absent}" not in shown
    read_at = float(next(line for line in shown.splitlines() if line.startswith("queue_read_t")).split()[-1])
    assert before <= read_at <= time.time()

    client.send_message(QueueUrl=jobs, MessageBody="job")
    assert page(functions) == shown  # not asked again, and the page says when it was


@pytest.mark.real
def test_dead_letters_that_another_entry_watches_count_there_alone(client: Any, moto_url: str, page: Page) -> None:
    letters = make_queue(client, "letters")
    arn = client.get_queue_attributes(QueueUrl=letters, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    policy = json.dumps({"maxReceiveCount": 1, "deadLetterTargetArn": arn})
    make_queue(client, "orders", RedrivePolicy=policy)
    client.send_message(QueueUrl=letters, MessageBody="order")
    entries = [
        Account(region=REGION, endpoint_url=url, queues=[{"name": name}])
        for url, name in ((moto_url, "letters"), (moto_url.replace(HOST, "localhost"), "orders"))
    ]
    watching, sending = collectors(entries).values()
    list(watching(time.monotonic() + 5))
    shown = page({"watching": watching, "sending": sending})
    assert 'queue_messages{queue="letters",state="ready",system="sqs"} 1.0' in shown
    assert 'queue="orders",state="ready"' in shown
    assert 'queue="orders",state="failed"' not in shown


@pytest.mark.real
def test_a_queue_that_is_not_there_takes_only_itself_off_the_page(client: Any, moto_url: str, page: Page) -> None:
    make_queue(client, "jobs.fifo", FifoQueue="true")
    queues = [{"name": "jobs.fifo"}, {"name": "nowhere"}]
    reader = SqsQueues(Account(region=REGION, endpoint_url=moto_url, queues=queues, label_prefix="eu/"))
    assert 'queue_messages{queue="eu/jobs.fifo",state="ready",system="sqs"} 0.0' in page({"a": reader.collect})
    with pytest.raises(PartialReadError, match=r"^'nowhere': there is no such queue, or it may not be seen"):
        list(reader.collect(time.monotonic() + 5))


@pytest.mark.real
def test_the_oldest_age_comes_from_cloudwatch_where_it_is_asked_for(client: Any, moto_url: str) -> None:
    client.send_message(QueueUrl=make_queue(client, "jobs"), MessageBody="job")
    now = time.time()
    boto3.client("cloudwatch", endpoint_url=moto_url, region_name=REGION).put_metric_data(
        Namespace="AWS/SQS",
        MetricData=[{
            "MetricName": "ApproximateAgeOfOldestMessage", "Dimensions": [{"Name": "QueueName", "Value": "jobs"}],
            "Timestamp": datetime.fromtimestamp(now - 120, UTC), "Value": 30,
        }],
    )  # fmt: skip
    account = Account(region=REGION, endpoint_url=moto_url, oldest_age=True, queues=[{"name": "jobs"}])
    families = {metric.name: metric for metric in SqsQueues(account).collect(time.monotonic() + 5)}
    (sample,) = families["queue_oldest_message_age_seconds"].samples
    assert 150 <= sample.value <= 215  # it was 30 s old two minutes ago; CloudWatch's times are whole minutes


@pytest.mark.parametrize("silent", [False, True], ids=["nobody listens", "somebody listens and says nothing"])
def test_an_aws_that_does_not_answer_is_a_failed_read(silent: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDSECRET")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "geheim")
    with socket.create_server((HOST, 0)) as server:
        port = server.getsockname()[1] if silent else free_port()
        account = Account(region=REGION, endpoint_url=f"http://{HOST}:{port}", queues=[{"name": "jobs"}])
        began = time.monotonic()
        with pytest.raises(ReadError, match=r"^'jobs': (no answer in time|.*Could not connect)") as failed:
            list(SqsQueues(account).collect(began + 0.6))
        assert "geheim" not in str(failed.value)
        assert time.monotonic() - began < 3
