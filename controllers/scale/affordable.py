"""What money does to a number of replicas: the ledger's word in, number and reason out.

No client, clock, environment or log.

Growth needs a yes. What runs is only ended by a no: a refused renewal, or a ledger that was silent for longer than its
grace; then the committed minimum stays, for that is paid for the whole month.
"""

from controllers.domain import Money, Reason


def affordable(number: int, current: int, money: Money, min_replicas: int) -> tuple[Reason | None, int]:
    """The number that money leaves of `number`, and why where it is another one. `current`: told before this."""
    if money.max_new is None:
        if money.silent_seconds > money.grace_seconds:
            return _where_less(Reason.BUDGET_LOST, number, min(current, min_replicas))
        return _where_less(Reason.BUDGET_UNREACHABLE, number, current)
    if money.refused:  # what drains already counts among those that are not paid on
        return _where_less(Reason.BUDGET_DRAIN, number, min(current, money.paid))
    return _where_less(Reason.BUDGET_CAP, number, max(current, money.paid) + money.max_new)


def _where_less(reason: Reason, number: int, most: int) -> tuple[Reason | None, int]:
    return (reason, max(0, most)) if number > most else (None, number)
