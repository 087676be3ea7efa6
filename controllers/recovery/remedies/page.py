"""The last rung: people. A page is an alert of our own at Alertmanager, which finds whoever is on duty and repeats.

Where there is no Alertmanager, or it is silent, the same alert comes from Prometheus by the rule of the same name.
"""

from collections.abc import Iterable

from controllers.config.recovery import RecoverySection
from controllers.recovery.alertmanager import Page, post_pages
from controllers.recovery.http import NeighbourError
from controllers.recovery.operation import Next, Reason, Result
from controllers.recovery.remedies.interface import Outcome

PAGE_SECONDS_EACH = 5.0

_MEANING = {
    "RecoveryFailed": "Nothing that was tried has helped {whom}.",
    "RecoveryLoop": "{whom} recovers and fails again and again.",
    "RecoveryFrozen": "Recovery of {whom} is frozen: nothing is done.",
    "RecoverySuggested": "Recovery proposes to act on {whom} and waits for a person.",
    "RecoveryJournalBroken": "Recovery's journal cannot be used: nothing is done.",
}


def alert_of(following: Next, reason: Reason) -> str:
    """The name of the alert by which people hear of it."""
    if reason is Reason.JOURNAL_BROKEN:
        return "RecoveryJournalBroken"
    if following is Next.SUGGEST:
        return "RecoverySuggested"
    if following is not Next.PAGE:
        return "RecoveryFrozen"
    return "RecoveryLoop" if reason is Reason.FLAPPING else "RecoveryFailed"


def page_of(following: Next, reason: Reason, target: str, instances: Iterable[str], meaning: str, since: float) -> Page:
    """The page about this reason. `meaning`: the reason in words."""
    alert, about = alert_of(following, reason), tuple(sorted(set(instances)))
    whom = f"{target} ({', '.join(about[:5])}{', …' if len(about) > 5 else ''})" if about else target
    return Page(
        alert=alert,
        target=target,
        reason=reason.value,
        summary=_MEANING[alert].format(whom=whom),
        description=f"{whom}: {meaning}. `tidewise recovery why {target}` tells what was seen and done.",
        severity="warning" if alert == "RecoverySuggested" else "page",
        since=since,
        instances=about,
    )


def tell(section: RecoverySection, firing: list[Page], ended: list[Page], now: float, seconds: float) -> Outcome:
    """Hands all standing pages to Alertmanager, and takes back the ended ones."""
    if section.alertmanager is None:
        return Outcome(Result.UNREACHABLE, "no alertmanager is configured; Prometheus's rules tell people")
    try:
        post_pages(section.alertmanager.rstrip("/"), firing, ended, now, min(seconds, PAGE_SECONDS_EACH))
    except NeighbourError as error:
        return Outcome(Result.UNREACHABLE, str(error))
    return Outcome(Result.DONE)
