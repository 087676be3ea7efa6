"""The scaler's client: what is allowed, what is refused, and what is no answer at all."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from controllers.budget.client import Allowance, Client, RefusedError, UnreachableError

Serve = Callable[..., Any]
VIDEO = "default/video"


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("a-token-of-the-tests-0123456789\n")
    return path


@pytest.fixture
def client(token: Path) -> Iterator[Callable[[str], Client]]:
    clients: list[Client] = []

    def make(url: str) -> Client:
        clients.append(Client(url, token))
        return clients[-1]

    yield make
    for one in clients:
        one.close()


def test_a_replicas_life(serve: Serve, client: Callable[[str], Client]) -> None:
    asked = serve()
    ledger = client(asked.url)
    assert ledger.allowances(5)[VIDEO] == Allowance(3409, 0, Decimal("4.4"), Decimal(12))
    assert "default/free" not in ledger.allowances(5)
    held = ledger.hold(VIDEO, "0", 5, lead_seconds=30)
    assert held.until == asked.clock.at + 30 + 60 + 300 + 900
    assert ledger.hold(VIDEO, "0", 5) == held  # asked again after a lost answer
    asked.clock.at += 300
    assert ledger.renew(VIDEO, "0", 5).until == asked.clock.at + 1200
    assert ledger.allowances(5)[VIDEO].replicas == 1
    ledger.release(VIDEO, "0", 5)
    ledger.release(VIDEO, "0", 5)
    assert asked.get("/state")["budgets"]["usage"]["held"] == "0"


def test_a_refusal_has_its_reason_and_its_sentence(serve: Serve, client: Callable[[str], Client]) -> None:
    ledger = client(serve(usage="5 KRW").url)
    ledger.hold(VIDEO, "0", 5)
    with pytest.raises(RefusedError, match=r"this needs 4\.40 KRW; of the budget 'usage'") as caught:
        ledger.hold(VIDEO, "1", 5)
    assert caught.value.reason == "over_limit"
    assert ledger.allowances(5)[VIDEO].max_new == 0


def test_a_refused_renewal_is_a_refusal_and_the_hold_stays(serve: Serve, client: Callable[[str], Client]) -> None:
    asked = serve(usage="5 KRW")
    ledger = client(asked.url)
    ledger.hold(VIDEO, "0", 5)
    asked.clock.at += 1000
    with pytest.raises(RefusedError):
        ledger.renew(VIDEO, "0", 5)
    assert asked.get("/state")["budgets"]["usage"]["held"] == "4.4"


def test_nobody_listens(client: Callable[[str], Client]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(UnreachableError, match="refused"):
        client(url).hold(VIDEO, "0", 5)


@pytest.mark.parametrize(
    ("sentence", "said"),
    [
        ("silence", b""),
        ("a status and then silence", b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{"),
        ("no JSON", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno"),
        ("JSON of another kind", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"),
        ("neither yes nor no", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"),
        ("a proxy's page", b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 2\r\n\r\n{}"),
        ("a way to somewhere else", b"HTTP/1.1 307 x\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 2\r\n\r\n{}"),
        ("no HTTP", b"hello\r\n\r\n"),
    ],
)
def test_what_is_no_answer_is_neither_yes_nor_no(client: Callable[[str], Client], sentence: str, said: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        over = threading.Event()

        def talk() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(said)
                over.wait(5)

        thread = threading.Thread(target=talk)
        thread.start()
        began = time.monotonic()
        try:
            with pytest.raises(UnreachableError):
                client(f"http://127.0.0.1:{server.getsockname()[1]}").allowances(0.5)
            assert time.monotonic() - began < 3, sentence
        finally:
            over.set()
            thread.join()


@pytest.mark.parametrize("problem", ["another token", "no file"])
def test_a_wrong_token_is_a_mistake_of_ours_and_no_reason_to_drain(serve: Serve, tmp_path: Path, problem: str) -> None:
    path = tmp_path / "mine"
    if problem == "another token":
        path.write_text("another-token-of-the-tests-01\n")
    asked = serve()
    ledger = Client(asked.url, path)
    with pytest.raises(UnreachableError, match=r"401 send the token|the token cannot be read"):
        ledger.renew(VIDEO, "0", 5)
    ledger.close()
