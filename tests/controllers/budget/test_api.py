"""The ledger over HTTP, on a running process: who may ask, what is understood, what is answered."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import requests

from controllers.budget.periods import bounds

Serve = Callable[..., Any]

OCR = {"provider": "acme", "model": "ocr", "units": {"pages": 5}}
FLASH = {"provider": "google", "model": "gemini-2.5-flash"}


def test_a_call_from_permit_to_statement(serve: Serve) -> None:
    asked = serve()
    status, permit = asked.post(
        "/permit", event_id="n8n/7/ocr/0/1", **FLASH, units={"input_tokens": 1000, "output_tokens": 500},
        service="ocr", workflow="n8n-7", workload="default/video",
    )  # fmt: skip
    assert status == 200
    assert permit == {
        "allowed": True,
        "reason": "granted",
        "message": "",
        "level": "normal",
        "hold": "n8n/7/ocr/0/1",
        "state": "held",
        "amount": "2.17",  # (1000 x 0.30 + 500 x 2.50) / million USD x 1400
        "currency": "KRW",
        "period": "2026-11",
        "expires_at": asked.clock.at + 900,
        "repeated": False,
    }
    status, settled = asked.post("/settle", hold="n8n/7/ocr/0/1", units={"input_tokens": 900, "output_tokens": 300})
    assert (status, settled["state"], settled["amount"], settled["period"]) == (200, "posted", "1.428", "2026-11")
    page = asked.get("/statement?month=2026-11")
    assert (page["posted"], page["held"], page["committed"]) == ("1.428", "0", "9900")
    assert page["lines"][1] == {
        "provider": "google",
        "service": "ocr",
        "model": "gemini-2.5-flash",
        "workflow": "n8n-7",
        "workload": "default/video",
        "posted": "1.428",
        "held": "0",
        "committed": "0",
        "entries": 2,
        "units": {"input_tokens": 900, "output_tokens": 300},
    }
    assert (page["start"], page["end"]) == bounds("2026-11", ZoneInfo("Asia/Seoul"))
    assert page["price_table"]["version"].startswith("genai-prices ")
    assert page["price_table"]["dated"] <= asked.clock.at


def test_repeated_requests_get_the_first_answer(serve: Serve) -> None:
    asked = serve()
    for path, body in (
        ("/permit", {"event_id": "a", **OCR}),
        ("/settle", {"hold": "a", "units": {"pages": 3}}),
        ("/permit", {"event_id": "b", **OCR}),
        ("/void", {"hold": "b", "nothing_sent": True}),
        ("/usage", {"event_id": "c", **OCR}),
    ):
        status, first = asked.post(path, **body)
        again, second = asked.post(path, **dict(reversed(body.items())))  # however it is laid out
        assert (status, again) == (200, 200), (path, first)
        assert second == {**first, "repeated": True}
    assert asked.get("/state")["budgets"]["usage"]["posted"] == "16"


def test_denied_is_a_status_that_nobody_takes_for_yes(serve: Serve) -> None:
    asked = serve()
    status, answer = asked.post("/permit", event_id="a", **{**OCR, "units": {"pages": 7501}})
    assert (status, answer["allowed"], answer["reason"], answer["budget"]) == (402, False, "over_limit", "usage")
    assert answer["message"].startswith(
        "this needs 15,002.00 KRW; of the budget 'usage' (15,000.00) 15,000.00 are left"
    )
    status, answer = asked.post("/permit", event_id="a", **{**OCR, "units": {"pages": 7500}})
    assert (status, answer["allowed"]) == (200, True)


def test_an_unknown_model_is_denied_with_how_to_price_it(serve: Serve) -> None:
    status, answer = serve().post(
        "/permit", event_id="a", provider="google", model="gemini-99", units={"input_tokens": 1, "output_tokens": 1}
    )
    assert (status, answer["reason"]) == (402, "unpriced")
    assert answer["message"].endswith(
        "price it in budget.prices with provider, model and per_million, per_unit or per_second"
    )


@pytest.mark.parametrize(
    ("sentence", "header"),
    [
        ("none", None),
        ("an empty one", ""),
        ("the wrong one", "Bearer another-token-of-the-tests-01"),
        ("the start of the right one", "Bearer a-token-of-the-tests"),
        ("the right one and more", "Bearer a-token-of-the-tests-0123456789x"),
        ("another scheme", "Basic a-token-of-the-tests-0123456789"),
        ("no scheme", "a-token-of-the-tests-0123456789"),
        ("bytes that are no text", b"Bearer \xff\xfe"),
    ],
)
def test_a_forged_or_missing_token(serve: Serve, sentence: str, header: str | bytes | None) -> None:
    asked = serve()
    headers = {} if header is None else {"Authorization": header}
    for method, path in (
        ("POST", "/permit"),
        ("POST", "/settle"),
        ("POST", "/void"),
        ("POST", "/usage"),
        ("GET", "/state"),
        ("GET", "/statement"),
    ):
        answer = requests.request(method, asked.url + path, json={"event_id": "a", **OCR}, headers=headers, timeout=30)
        assert answer.status_code == 401, (sentence, path)
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert answer.json() == {"error": "send the token of budget.token_file as 'Authorization: Bearer TOKEN'"}
    assert asked.get("/state")["budgets"]["usage"]["held"] == "0"


@pytest.mark.parametrize(
    ("sentence", "content", "said"),
    [
        ("it is not there", None, "the token cannot be read (No such file or directory)"),
        ("it is empty", b"", "a token is one line of 16 to 4096 characters"),
        ("it is too short to be a secret", b"short\n", "a token is one line of 16 to 4096 characters"),
        ("it has several lines", b"a-token-of-the-tests-0123456789\nanother\n", "a token is one line"),
        ("it is no text", b"\xff" * 40, "it is not plain text"),
    ],
)
def test_without_a_usable_token_file_nobody_is_served(
    serve: Serve, tmp_path: Path, sentence: str, content: bytes | None, said: str
) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    asked = serve(token_file=str(path))
    status, answer = asked.post("/permit", event_id="a", **OCR)
    assert status == 503, sentence
    assert said in answer["error"]
    path.write_text("a-token-of-the-tests-0123456789\n")
    assert asked.post("/permit", event_id="a", **OCR)[0] == 200  # read again, without a restart


def test_without_a_configured_token_file_nobody_is_served_and_metrics_go_on(serve: Serve) -> None:
    asked = serve(token_file=None)
    status, answer = asked.post("/permit", event_id="a", **OCR)
    assert status == 503
    assert answer["error"].startswith("budget.token_file is not configured, so nobody can prove who they are")
    assert "tidewise_budget_ledger_errors_total" in requests.get(asked.url + "/metrics", timeout=30).text


@pytest.mark.parametrize(
    ("sentence", "path", "body", "said"),
    [
        ("no JSON", "/permit", b"{", "the body is not JSON (EOF while parsing"),
        ("nested without end", "/permit", b"[" * 5000, "the body is not JSON (recursion limit exceeded"),
        ("no object", "/permit", b"[]", "the body is not a JSON object"),
        ("nothing", "/void", b"", "the body is not JSON"),
        ("another kind", "/permit", {"kind": "gift"}, "kind: found 'gift'; it must be call or replica"),
        ("a kind that is no text", "/permit", {"kind": {}}, "kind: found '{}'; it must be call or replica"),
        ("a misspelt key", "/permit", {"event_id": "a", **OCR, "priorty": "critical"},
         "priorty: unknown key; did you mean 'priority'?"),
        ("a missing key", "/permit", OCR, "event_id: is missing; add it"),
        ("less than nothing", "/permit", {"event_id": "a", **OCR, "units": {"pages": -1}},
         "units.pages: found -1; it must be at least 0"),
        ("no number", "/permit", {"event_id": "a", **OCR, "units": {"pages": "many"}}, "units.pages: found 'many'"),
        ("an endless number", "/permit", b'{"event_id": "a", "provider": "a", "model": "b", "units": {"pages": 1e999}}',
         "units.pages: found inf; it must be a finite number"),
        ("an id with our own mark", "/permit", {"event_id": "a#closed", **OCR},
         "event_id: write letters, digits and signs without spaces or '#'"),
        ("an id that is too long", "/permit", {"event_id": "a" * 201, **OCR},
         "event_id: found 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa...; it must be at most 200"),
        ("no proof", "/void", {"hold": "a", "nothing_sent": False},
         "nothing_sent: found false; a hold is given back only on proof that nothing was sent or started"),
        ("a guess for a proof", "/void", {"hold": "a", "nothing_sent": "yes"}, "nothing_sent: found 'yes'"),
        ("both units and cost", "/usage", {"event_id": "a", **OCR, "cost": "1 KRW"}, "give either units or cost"),
        ("neither", "/settle", {"hold": "a"}, "give either units or cost"),
        ("a cost without its currency", "/usage", {"event_id": "a", "provider": "a", "cost": 5},
         "cost: found 5; write an amount with its currency, for example '12 KRW'"),
        ("long ago", "/usage", {"event_id": "a", **OCR, "occurred_at": "2026-01-01T00:00:00Z"},
         "it must be within the last 62 days, not ahead"),
        ("a time without its zone", "/usage", {"event_id": "a", **OCR, "occurred_at": "2026-11-18T00:00:00"},
         "occurred_at:"),
    ],
)  # fmt: skip
def test_what_is_not_understood(serve: Serve, sentence: str, path: str, body: Any, said: str) -> None:
    asked = serve()
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = asked.session.post(asked.url + path, data=data, timeout=30)
    assert answer.status_code == 400, (sentence, answer.text)
    assert said in answer.json()["error"], sentence
    assert asked.get("/state")["budgets"]["usage"]["remaining"] == "15000"


@pytest.mark.parametrize(("bytes_sent", "status"), [(64 * 1024, 400), (64 * 1024 + 1, 413), (2 << 20, 413)])
def test_a_body_that_is_too_large(serve: Serve, bytes_sent: int, status: int) -> None:
    asked = serve()
    try:
        answer = asked.session.post(asked.url + "/permit", data=b" " * bytes_sent, timeout=30)
        assert answer.status_code == status
    except requests.ConnectionError:  # the server may hang up on what it will not read
        assert bytes_sent > 1 << 20
    assert asked.post("/permit", event_id="a", **OCR)[0] == 200


@pytest.mark.parametrize(
    ("sentence", "path", "body", "status", "said"),
    [
        ("a hold nobody gave", "/settle", {"hold": "x", "units": {"pages": 1}}, 404, "x: there is no such hold"),
        ("given back after it was settled", "/void", {"hold": "a", "nothing_sent": True}, 409,
         "a: it is posted with 6.00 already and stays so"),
        ("another body", "/permit", {"event_id": "a", **OCR, "workflow": "w"}, 409, "with other contents"),
        ("units that have no price", "/usage", {"event_id": "u", **FLASH, "units": {"images": 1}}, 422,
         "units: images has no price"),
        ("money that has no rate", "/usage", {"event_id": "u", "provider": "a", "cost": "5 XAU"}, 422,
         "no exchange rate from XAU to KRW"),
        ("more than a row holds", "/usage", {"event_id": "u", "provider": "a", "cost": "1000000001 KRW"}, 409,
         "is no amount for one row"),
    ],
)  # fmt: skip
def test_what_cannot_be_booked(
    serve: Serve, sentence: str, path: str, body: dict[str, Any], status: int, said: str
) -> None:
    asked = serve()
    asked.post("/permit", event_id="a", **OCR)
    asked.post("/settle", hold="a", units={"pages": 3})
    found, answer = asked.post(path, **body)
    assert (found, said in answer["error"]) == (status, True), (sentence, answer)
    assert asked.get("/state")["budgets"]["usage"]["posted"] == "6"


def test_usage_is_a_fact_in_whatever_money_it_was_billed(serve: Serve) -> None:
    asked = serve(gross={"tax": 1.1, "fx_buffer": 1})
    asked.post("/usage", event_id="a", provider="aws", service="s3", cost="10 USD")
    asked.post("/usage", event_id="b", provider="host", cost="20000 KRW")  # beyond the limit, and true
    state = asked.get("/state")["budgets"]["usage"]
    assert (state["posted"], state["remaining"]) == ("35400", "-20400")
    assert asked.post("/permit", event_id="c", **OCR)[0] == 402


def test_a_hold_is_settled_at_the_rate_it_was_taken_at(serve: Serve) -> None:
    asked = serve()
    asked.post("/permit", event_id="a", **FLASH, units={"input_tokens": 10**6, "output_tokens": 0})
    status, answer = asked.post("/settle", hold="a", cost="0.1 USD")
    assert (status, answer["amount"]) == (200, "140")


def test_replicas_are_held_renewed_and_released(serve: Serve) -> None:
    asked = serve(at=1_795_000_000.0)
    replica = {"kind": "replica", "workload": "default/video", "instance": "0"}
    before = asked.get("/state")["workloads"]
    # 12 won an hour for 60 + 60 + 300 + 900 s; what has no price is not bound by money
    assert before == {"default/video": {"per_hour": "12", "hold": "4.4", "replicas": 0, "max_new": 3409}}
    status, held = asked.post("/permit", **replica)
    assert (status, held["amount"], held["expires_at"]) == (200, "4.4", asked.clock.at + 1320)
    asked.clock.at += 300
    assert asked.post("/permit", **replica, running=True)[1]["amount"] == "4"
    state = asked.get("/state")
    assert (state["budgets"]["usage"]["posted"], state["budgets"]["usage"]["held"]) == ("1", "4")
    assert state["workloads"]["default/video"]["replicas"] == 1
    asked.clock.at += 30
    status, released = asked.post("/settle", **replica)
    assert (status, released["state"], released["amount"]) == (200, "posted", "0.1")
    assert asked.post("/settle", **replica)[1]["state"] == "none"
    assert asked.get("/state")["budgets"]["usage"]["posted"] == "1.1"


def test_a_replica_that_provably_never_started_gives_its_hold_back(serve: Serve) -> None:
    asked = serve()
    replica = {"kind": "replica", "workload": "default/video", "instance": "0"}
    hold = asked.post("/permit", **replica)[1]["hold"]
    status, answer = asked.post("/void", **replica, nothing_started=False)
    assert (status, answer["error"]) == (
        400, "nothing_started: found false; a hold is given back only on proof that nothing was sent or started"
    )  # fmt: skip
    status, answer = asked.post("/void", hold=hold, nothing_sent=True)  # not as if it were a call
    assert (status, answer["error"]) == (
        400,
        f"hold: {hold} is the hold of a replica; void it with kind, workload, instance, nothing_started",
    )
    first = asked.post("/void", **replica, nothing_started=True)
    assert first == (
        200,
        {
            "hold": hold,
            "state": "voided",
            "amount": "0",
            "currency": "KRW",
            "period": "2026-11",
            "repeated": False,
        },
    )
    assert asked.post("/void", **replica, nothing_started=True, hold=hold) == (200, {**first[1], "repeated": True})
    assert asked.get("/state")["budgets"]["usage"]["held"] == "0"
    status, answer = asked.post("/void", **{**replica, "instance": "1"}, nothing_started=True)
    assert (status, answer["state"]) == (200, "none")
    asked.post("/permit", **replica)
    asked.clock.at += 300
    asked.post("/permit", **replica, running=True)
    status, answer = asked.post("/void", **replica, nothing_started=True)
    assert status == 409
    assert answer["error"].endswith("default/video/0 ran before this hold or beyond it; settle it when it has stopped")


def test_the_learned_lead_time_counts_in_the_hold(serve: Serve) -> None:
    body = {"kind": "replica", "workload": "default/video", "instance": "0", "lead_seconds": 360}
    assert serve().post("/permit", **body)[1]["amount"] == "5.4"


@pytest.mark.parametrize(
    ("workload", "said"),
    [
        ("default/vido", "workload: 'default/vido' is not configured; did you mean 'default/video'?"),
        ("default/free", "workload: 'default/free' has no price; give it price.per_replica_hour"),
    ],
)
def test_a_replica_without_a_price_is_denied(serve: Serve, workload: str, said: str) -> None:
    status, answer = serve().post("/permit", kind="replica", workload=workload, instance="0")
    assert (status, answer["reason"], answer["message"]) == (402, "workload_unpriced", said)


def test_a_replicas_hold_is_settled_by_its_bill_not_by_units(serve: Serve) -> None:
    asked = serve()
    hold = asked.post("/permit", kind="replica", workload="default/video", instance="0")[1]["hold"]
    status, answer = asked.post("/settle", hold=hold, units={"pages": 1})
    assert (status, answer["error"]) == (400, f"units: {hold} is the hold of a replica; settle it with its cost")
    assert asked.post("/settle", hold=hold, cost="2 KRW")[1]["amount"] == "2"


def test_minimum_replicas_are_committed_and_always_find_their_money(serve: Serve, settings: Serve) -> None:
    asked = serve(config=settings(replicas={"min": 2, "max": 4}))
    start = asked.get("/state")
    owed = float(start["budgets"]["usage"]["committed"])
    assert start["workloads"]["default/video"]["max_new"] == 2 + int((15_000 - owed) / 4.4)
    asked.post("/usage", event_id="a", provider="x", cost=f"{15_000 - owed - 1:.6f} KRW")
    grants = [asked.post("/permit", kind="replica", workload="default/video", instance=str(n))[0] for n in range(3)]
    assert grants == [200, 200, 402]


def test_a_budget_of_zero_denies_everything(serve: Serve) -> None:
    asked = serve(total="0 KRW", usage=None, fixed=[])
    for body in ({"event_id": "a", **OCR}, {"kind": "replica", "workload": "default/video", "instance": "0"}):
        status, answer = asked.post("/permit", **body)
        assert (status, answer["reason"], answer["message"]) == (402, "budget_zero", "the budget 'total' is zero")
    assert asked.get("/state")["workloads"]["default/video"]["max_new"] == 0


def test_a_clock_that_is_set_back_denies_and_says_so(serve: Serve) -> None:
    asked = serve()
    asked.post("/permit", event_id="a", **OCR)
    asked.clock.at -= 3600
    status, answer = asked.post("/permit", event_id="b", **OCR)
    assert (status, answer["reason"]) == (402, "clock_set_back")
    assert answer["message"].startswith("the clock is 3600 s behind the ledger's newest row")
    assert asked.post("/settle", hold="a", units={"pages": 3})[0] == 200  # a fact is taken all the same
    assert asked.get("/state")["workloads"]["default/video"]["max_new"] == 0


def test_many_at_once_never_overspend(serve: Serve) -> None:
    asked = serve(usage="300 KRW", total="10200 KRW")
    start = threading.Barrier(8)

    def client(n: int) -> int:
        session = requests.Session()
        session.headers.update(asked.session.headers)
        start.wait()
        bodies = ({"event_id": f"{n}/{i}", **OCR} for i in range(10))
        return sum(session.post(asked.url + "/permit", json=body, timeout=30).status_code == 200 for body in bodies)

    with ThreadPoolExecutor(8) as threads:
        granted = sum(threads.map(client, range(8)))
    assert granted == 30
    assert asked.get("/state")["budgets"]["usage"]["held"] == "300"


@pytest.mark.parametrize("month", ["2026-13", "november", "2026-11-01", "' OR 1"])
def test_what_is_no_month(serve: Serve, month: str) -> None:
    asked = serve()
    answer = asked.session.get(asked.url + "/statement", params={"month": month}, timeout=30)
    assert answer.status_code == 400
    assert answer.json()["error"] == f"month: found '{month}'; write a month as YYYY-MM, for example 2026-11"
