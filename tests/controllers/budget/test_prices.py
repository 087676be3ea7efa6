"""Prices: what a call may cost at most, what it cost, and everything that must not count as free."""

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from importlib.metadata import version

import pytest
from genai_prices.data_snapshot import get_snapshot
from hypothesis import given
from hypothesis import strategies as st

from controllers.budget.prices import OwnPrice, PriceList, UnpricedError
from controllers.budget.words import BudgetReason

D = Decimal
NOW = datetime(2026, 11, 22, 3, tzinfo=UTC).timestamp()
LIST = PriceList(
    [OwnPrice("acme", "ocr", "KRW", {"pages": D(2), "video_seconds": D("0.5")})], {"video_seconds": D(263)}
)


def units(**counts: object) -> dict[str, Decimal]:
    return {unit: D(str(count)) for unit, count in counts.items()}


def most(provider: str, model: str, context: Mapping[str, str] = {}, **counts: object) -> Decimal:
    return LIST.most(provider, model, units(**counts), context, (NOW, NOW + 900)).amount


def actual(provider: str, model: str, context: Mapping[str, str] = {}, **counts: object) -> Decimal:
    return LIST.actual(provider, model, units(**counts), context, NOW).amount


@pytest.mark.parametrize(
    ("sentence", "amount", "expected"),
    [
        ("tokens at their price",
         actual("google", "gemini-2.5-flash", input_tokens=1_000_000, output_tokens=100_000), "0.55"),
        ("cached ones at theirs",
         actual("google", "gemini-2.5-flash", input_tokens=1_000_000, cache_read_tokens=500_000, output_tokens=0),
         "0.165"),
        ("a cheaper tier, if it is named",
         actual("openai", "gpt-5-mini", {"service_tier": "flex"}, input_tokens=1_000_000, output_tokens=0), "0.125"),
        ("a price in steps, above the step",
         actual("anthropic", "claude-sonnet-4-5", input_tokens=300_000, output_tokens=0), "1.8"),
        ("one's own price", actual("acme", "ocr", pages=3, video_seconds=10), "11.0"),
        ("spelt in another case", actual("Acme", "OCR", pages=3, video_seconds=0), "6"),
    ],
)  # fmt: skip
def test_what_a_call_cost(sentence: str, amount: Decimal, expected: str) -> None:
    assert amount == D(expected), sentence


@pytest.mark.parametrize(
    ("sentence", "amount", "expected"),
    [
        ("the dearest tier", most("openai", "gpt-5-mini", input_tokens=1_000_000, output_tokens=0), "0.45"),
        ("the named tier, if one is named",
         most("openai", "gpt-5-mini", {"service_tier": "flex"}, input_tokens=1_000_000, output_tokens=0), "0.125"),
        ("all input may be written to the cache for an hour",
         most("anthropic", "claude-haiku-4-5", input_tokens=1_000_000, output_tokens=0), "2"),
        ("unless the request writes nothing to it",
         most("anthropic", "claude-haiku-4-5", input_tokens=1_000_000, cache_write_tokens=0, output_tokens=0), "1"),
        ("no cached input is counted on",
         most("google", "gemini-2.5-flash", input_tokens=1_000_000, cache_read_tokens=1_000_000, output_tokens=0),
         "0.3"),
        ("ten minutes of video as its tokens",
         most("google", "gemini-2.5-flash", video_seconds=600, input_tokens=100, output_tokens=0),
         str((600 * 263 + 100) * D("0.3") / 1_000_000)),
    ],
)  # fmt: skip
def test_what_a_call_may_cost(sentence: str, amount: Decimal, expected: str) -> None:
    assert amount == D(expected), sentence


HOW = "price it in budget.prices with provider, model and per_million, per_unit or per_second"


@pytest.mark.parametrize(
    ("sentence", "provider", "model", "context", "counts", "reason", "message"),
    [
        ("an unknown model", "google", "gemini-99", {}, {"input_tokens": 1}, "unpriced",
         "model 'gemini-99' of 'google' is unknown"),
        ("an unknown provider", "googel", "gemini-2.5-flash", {}, {"input_tokens": 1}, "unpriced",
         "provider 'googel' is unknown; did you mean 'google'?"),
        ("no part of a provider's name", "google-proxy", "gemini-2.5-flash", {}, {"input_tokens": 1}, "unpriced",
         "provider 'google-proxy' is unknown; did you mean"),
        ("a unit that nobody knows", "google", "gemini-2.5-flash", {},
         {"input_tokens": 1, "output_tokens": 1, "images": 3}, "unpriced",
         "units: images has no price for google/gemini-2.5-flash; it bills input_tokens, output_tokens"),
        ("a unit that this model does not bill", "openai", "gpt-4o-mini", {},
         {"input_tokens": 1, "output_tokens": 1, "input_characters": 3}, "unpriced",
         "units: input_characters has no price for openai/gpt-4o-mini"),
        ("a misspelt tier", "openai", "gpt-5-mini", {"service_tier": "flux"}, {"input_tokens": 1, "output_tokens": 1},
         "unpriced", "context: service_tier=flux has no price for openai/gpt-5-mini; known: processing=batch"),
        ("no maximum of the answer", "google", "gemini-2.5-flash", {}, {"input_tokens": 1}, "unbounded",
         "units: output_tokens is missing; google/gemini-2.5-flash bills them, so give their maximum: max_tokens"),
        ("no maximum of the prompt", "google", "gemini-2.5-flash", {}, {"output_tokens": 1}, "unbounded",
         "units: input_tokens is missing"),
        ("a part without its whole", "google", "gemini-2.5-flash", {}, {"input_audio_tokens": 5, "output_tokens": 1},
         "unpriced", "require explicit input_tokens"),
        ("own price: a unit that is not in it", "acme", "ocr", {}, {"pages": 1, "video_seconds": 1, "images": 1},
         "unpriced", "units: images has no price in budget.prices for acme/ocr; priced there: pages, video_seconds"),
        ("own price: a billed unit left out", "acme", "ocr", {}, {"pages": 1}, "unbounded",
         "units: video_seconds is missing; budget.prices bills it for acme/ocr"),
    ],
)  # fmt: skip
def test_what_has_no_price_is_refused(
    sentence: str,
    provider: str,
    model: str,
    context: dict[str, str],
    counts: dict[str, int],
    reason: str,
    message: str,
) -> None:
    with pytest.raises(UnpricedError) as caught:
        LIST.most(provider, model, units(**counts), context, (NOW,))
    assert message in str(caught.value), sentence
    assert caught.value.reason == BudgetReason(reason)
    assert reason == "unbounded" or "context:" in message or "require" in message or "own" in sentence or HOW in str(
        caught.value
    )  # fmt: skip


def test_a_model_that_is_listed_without_a_price_is_refused() -> None:
    empty = next(
        (seller.id, info.id)
        for seller in get_snapshot().providers
        for info in seller.models
        if not isinstance(info.prices, list) and not any(vars(info.prices).values())
    )
    with pytest.raises(UnpricedError) as caught:
        most(*empty, input_tokens=5, output_tokens=5)
    assert "is listed without a price" in str(caught.value)


def test_seconds_of_media_without_a_rate_are_refused() -> None:
    with pytest.raises(UnpricedError) as caught:
        PriceList().most(
            "google", "gemini-2.5-flash", units(video_seconds=600, input_tokens=1, output_tokens=1), {}, (NOW,)
        )
    assert "units: video_seconds has no price" in str(caught.value)


def test_the_version_names_the_list_or_the_configured_price() -> None:
    listed = LIST.actual("google", "gemini-2.5-flash", units(input_tokens=1, output_tokens=1), {}, NOW)
    assert (listed.currency, listed.version) == ("USD", f"genai-prices {version('genai-prices')}")
    own = LIST.actual("acme", "ocr", units(pages=1, video_seconds=1), {}, NOW)
    dearer = PriceList([OwnPrice("acme", "ocr", "KRW", {"pages": D(3), "video_seconds": D("0.5")})])
    assert own.currency == "KRW"
    assert own.version.startswith("config:")
    assert dearer.actual("acme", "ocr", units(pages=1, video_seconds=1), {}, NOW).version != own.version


PRICED = [
    ("openai", "gpt-5-mini"),
    ("openai", "gpt-4o-mini"),
    ("google", "gemini-2.5-flash"),
    ("google", "gemini-2.5-pro"),
    ("anthropic", "claude-sonnet-4-5"),
    ("deepseek", "deepseek-chat"),
]


@given(
    model=st.sampled_from(PRICED),
    bound=st.integers(1, 400_000),
    answer=st.integers(0, 60_000),
    share=st.floats(0, 1),
    cached=st.floats(0, 1),
    hours=st.floats(0, 24),
    tier=st.integers(0, 6),
)
def test_no_call_within_its_bounds_costs_more_than_was_held(
    model: tuple[str, str], bound: int, answer: int, share: float, cached: float, hours: float, tier: int
) -> None:
    """Whatever tier it turned out to be, however much came from a cache, at any time of its hold's beginning."""
    at = NOW + hours * 3600
    held = LIST.most(*model, units(input_tokens=bound, output_tokens=answer), {}, (at, at + 900)).amount
    seller = next(one for one in get_snapshot().providers if one.id == model[0])
    info = seller.find_model(model[1])
    assert info is not None
    tiers = [{}, *(variant.when for variant in info.price_variants or ())]
    used = int(bound * share)
    spent = units(input_tokens=used, cache_read_tokens=int(used * cached), output_tokens=int(answer * share))
    assert LIST.actual(*model, spent, tiers[tier % len(tiers)], at).amount <= held


def test_every_listed_model_is_held_at_its_dearest_or_refused() -> None:
    """A new release of the list may bring kinds of prices that cannot be merged: it must show here."""
    priced = 0
    for seller in get_snapshot().providers:
        for info in seller.models[:40]:
            try:
                held = most(seller.id, info.id, input_tokens=10_000, output_tokens=500)
                spent = actual(seller.id, info.id, input_tokens=10_000, output_tokens=500)
            except UnpricedError:
                continue
            assert held >= spent, (seller.id, info.id)
            priced += 1
    assert priced > 300
