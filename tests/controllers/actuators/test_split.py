"""How a number is divided among several targets: a table, and what holds for every one of them."""

import itertools
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.actuators.split import MOVED_AT_ONCE, Part, cheapest_first, next_numbers, split


def part(
    wanted: int = 0, ready: int | None = None, *, price: int | None = None, closed: bool = False, **of: int
) -> Part:
    ready = wanted if ready is None else ready
    cost = None if price is None else Decimal(price)
    return Part("x", of.get("smallest", 0), of.get("largest", 10), wanted, ready, cost, not closed)


@pytest.mark.parametrize(
    ("says", "total", "parts", "numbers"),
    [
        ("the first of the list is filled first", 12, [part(), part()], (10, 2)),
        ("or the cheapest, where prices are known", 12, [part(price=9), part(price=3)], (2, 10)),
        ("each has its smallest first", 4, [part(), part(smallest=3)], (1, 3)),
        ("beyond all there is nothing", 30, [part(), part()], (10, 10)),
    ],
)
def test_split(says: str, total: int, parts: list[Part], numbers: tuple[int, ...]) -> None:
    assert split(total, parts) == numbers, says


@pytest.mark.parametrize(
    ("says", "total", "parts", "numbers"),
    [
        ("growing: the cheapest with room", 12, [part(9), part(0)], (10, 2)),
        ("growing: not one that cools down", 12, [part(2, closed=True), part(0)], (2, 10)),
        ("growing: nothing is moved meanwhile", 7, [part(2), part(4)], (3, 4)),
        ("growing: to a smallest first", 5, [part(3), part(0, smallest=2)], (3, 2)),
        ("shrinking: the dearest first", 4, [part(4), part(3)], (4, 0)),
        ("shrinking: then the next", 2, [part(4), part(3)], (2, 0)),
        ("shrinking: never below its smallest", 4, [part(4), part(3, smallest=2)], (2, 2)),
        ("shrinking: those that do not work yet first", 4, [part(4), part(3, 1)], (4, 0)),
        ("shrinking: a dearer one waits until cheaper ones work", 4, [part(4, 2), part(2)], (4, 2)),
        ("shrinking: and goes when they do", 4, [part(4, 4), part(2)], (4, 0)),
        ("shrinking: no more than leaves as many working", 4, [part(4, 3), part(3)], (4, 1)),
        ("steady: what is right stays", 4, [part(4), part(0)], (4, 0)),
        ("steady: one move to the cheaper at a time", 4, [part(0), part(4)], (1, 4)),
        ("steady: larger ones move a quarter", 8, [part(0), part(8)], (2, 8)),
        ("steady: none while something starts", 4, [part(2, 1), part(2)], (2, 2)),
        ("steady: none to one that cools down", 4, [part(0, closed=True), part(4)], (0, 4)),
        ("steady: none for the same price", 4, [part(0, price=3), part(4, price=3)], (0, 4)),
        ("steady: none from a smallest", 4, [part(2), part(2, smallest=2)], (2, 2)),
        ("what somebody set beyond the largest comes back", 12, [part(12), part(0)], (10, 2)),
    ],
)
def test_next_numbers(says: str, total: int, parts: list[Part], numbers: tuple[int, ...]) -> None:
    assert next_numbers(total, parts) == numbers, says


@st.composite
def some_parts(draw: st.DrawFn) -> list[Part]:
    priced = draw(st.booleans())
    parts = []
    for number in range(draw(st.integers(2, 4))):
        smallest = draw(st.integers(0, 3))
        largest = draw(st.integers(max(1, smallest), 12))
        wanted = draw(st.integers(smallest, largest))
        price = Decimal(draw(st.integers(0, 5))) if priced else None
        parts.append(
            Part(str(number), smallest, largest, wanted, draw(st.integers(0, wanted)), price, draw(st.booleans()))
        )
    return parts


def bounds(parts: list[Part]) -> tuple[int, int]:
    return sum(p.smallest for p in parts), sum(p.largest for p in parts)


@given(some_parts(), st.integers(0, 60))
def test_the_division_adds_up_within_the_bounds_and_fills_the_cheaper_before_the_dearer(
    parts: list[Part], total: int
) -> None:
    numbers, (least, most) = split(total, parts), bounds(parts)
    assert sum(numbers) == min(max(total, least), most)
    order = cheapest_first(parts)
    for p, number in zip(parts, numbers, strict=True):
        assert p.smallest <= number <= p.largest
    for cheaper, dearer in itertools.pairwise(order):
        assert numbers[cheaper] == parts[cheaper].largest or numbers[dearer] == parts[dearer].smallest


@given(some_parts(), st.integers(0, 60))
def test_more_in_all_is_never_less_anywhere(parts: list[Part], total: int) -> None:
    assert all(b >= a for a, b in zip(split(total, parts), split(total + 1, parts), strict=True))


@given(some_parts(), st.integers(0, 60))
def test_a_step_keeps_what_works_and_the_bounds_and_asks_nobody_who_cools_down(parts: list[Part], total: int) -> None:
    numbers = next_numbers(total, parts)
    present, ready = sum(p.wanted for p in parts), sum(p.ready for p in parts)
    kept = sum(min(number, p.ready) for number, p in zip(numbers, parts, strict=True))
    assert kept >= min(total, ready), "working replicas are not given up below the number"
    for number, p in zip(numbers, parts, strict=True):
        assert p.smallest <= number <= p.largest
        assert p.is_open or number <= p.wanted
    assert sum(numbers) <= max(total, present) + max(1, total // MOVED_AT_ONCE)
    if total >= present:
        room = sum(p.room for p in parts)
        assert sum(numbers) >= min(total, present + room), "and all that can be had is asked for"


@given(some_parts(), st.integers(0, 60))
def test_step_by_step_it_comes_to_the_division_and_stays_there(parts: list[Part], total: int) -> None:
    """Where all have capacity and whatever is told comes about."""
    least, most = bounds(parts)
    total = min(max(total, least), most)
    parts = [replace(p, is_open=True, ready=p.wanted) for p in parts]
    for _ in range(200):
        numbers = next_numbers(total, parts)
        if numbers == tuple(p.wanted for p in parts):
            break
        parts = [replace(p, wanted=n, ready=n) for p, n in zip(parts, numbers, strict=True)]
    if parts[0].price is None or len({p.price for p in parts}) == len(parts):
        assert tuple(p.wanted for p in parts) == split(total, parts)
    assert sum(p.wanted for p in parts) == total
