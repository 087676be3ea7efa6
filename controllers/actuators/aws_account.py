"""Calls to one AWS account in one region: each ends in time, throttling is everybody's, and an error is a sentence.

botocore's own retries are off. It would try again within its own deadlines and each workload by itself; here a call
that AWS throttled makes all workloads of the account wait, for longer each time.
"""

import functools
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from controllers.actuators.interface import ActuatorError, NoCapacityError, NoGrowthError, PermanentError
from controllers.config.aws import AwsTarget

Clock = Callable[[], float]

CONNECT_SECONDS = 3.0
READ_SECONDS = 10.0  # after so long a request that nobody waits for ends by itself
FIRST_BACK_OFF_SECONDS = 2.0
LONGEST_BACK_OFF_SECONDS = 120.0

THROTTLED = frozenset(
    {
        "RequestLimitExceeded",
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "RequestThrottled",
        "RequestThrottledException",
        "TooManyRequestsException",
        "SlowDown",
        "BandwidthLimitExceeded",
        "EC2ThrottledException",
    }
)
NO_CAPACITY = frozenset(
    {
        "InsufficientInstanceCapacity",
        "InsufficientHostCapacity",
        "InsufficientReservedInstanceCapacity",
        "InsufficientCapacity",
        "InsufficientFreeAddressesInSubnet",
        "SpotMaxPriceTooLow",
        "Unsupported",  # this type is not offered in this zone: the next one may have it
    }
)
QUOTA = frozenset(
    {
        "InstanceLimitExceeded",
        "VcpuLimitExceeded",
        "MaxSpotInstanceCountExceeded",
        "SpotInstanceCountLimitExceeded",
        "ResourceLimitExceeded",
        "LimitExceeded",
        "TooManyTargets",
        "VolumeLimitExceeded",
        "AddressLimitExceeded",
    }
)
RIGHTS = frozenset({"UnauthorizedOperation", "AccessDenied", "AccessDeniedException", "OptInRequired"})
CREDENTIALS = frozenset(
    {
        "AuthFailure",
        "InvalidClientTokenId",
        "UnrecognizedClientException",
        "SignatureDoesNotMatch",
        "ExpiredToken",
        "ExpiredTokenException",
        "MissingAuthenticationToken",
        "IncompleteSignature",
        "Blocked",
        "PendingVerification",
    }
)
NO_CREDENTIALS = frozenset(  # found on this machine, so nothing was sent
    {
        "NoCredentialsError",
        "PartialCredentialsError",
        "ProfileNotFound",
        "CredentialRetrievalError",
        "TokenRetrievalError",
        "SSOTokenLoadError",
        "UnauthorizedSSOTokenError",
    }
)
AWS_FAILED = frozenset({"InternalError", "InternalFailure", "ServiceUnavailable", "Unavailable", "ServerInternal"})


class LostError(ActuatorError):
    """A request that was sent and whose answer did not come: it may have been carried out."""


class RefusedError(ActuatorError):
    """AWS's answer was an error of this `code`."""

    def __init__(self, message: str, code: str) -> None:
        self.code = code
        super().__init__(message)


@dataclass
class BackOff:
    """How long an account is left alone. For several threads."""

    clock: Clock = time.monotonic
    until: float = -math.inf
    seconds: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def left(self) -> float:
        return self.until - self.clock()

    def throttled(self, told_seconds: float | None) -> float:
        """Doubles the wait, once for all calls that were under way together. `told_seconds`: AWS's Retry-After."""
        with self.lock:
            if self.left() <= 0:
                self.seconds = min(LONGEST_BACK_OFF_SECONDS, max(FIRST_BACK_OFF_SECONDS, 2 * self.seconds))
                self.until = self.clock() + self.seconds
            if told_seconds is not None:
                self.until = max(self.until, self.clock() + told_seconds)
            return self.left()

    def answered(self) -> None:
        """A call went through. The wait that is left is left: others may have been throttled after it began."""
        with self.lock:
            if self.left() <= 0:
                self.seconds = 0.0


class Account:
    """One account in one region, for all workloads there. For several threads."""

    def __init__(
        self,
        region: str,
        profile: str | None = None,
        endpoint_url: str | None = None,
        clock: Clock = time.monotonic,
        make: Callable[[str], Any] | None = None,
    ) -> None:
        self.region = region
        self.back_off = BackOff(clock)
        self._profile = profile
        self._endpoint_url = endpoint_url
        self._make = make or self._boto3_client
        self._clients: dict[str, Any] = {}
        self._making = threading.Lock()

    def call(self, until: float, service: str, operation: str, **parameters: Any) -> dict[str, Any]:
        """The answer of one request, by `until` (on the monotonic clock).

        Raises LostError, RefusedError, PermanentError (rights, credentials), NoGrowthError, NoCapacityError,
        ActuatorError (throttled, no time left).
        """
        wait = self.back_off.left()
        if wait > 0:
            raise ActuatorError(f"AWS {self.region} throttles this account; it is left alone for {wait:.0f} s more")
        left = until - time.monotonic()
        if left <= 0:
            raise ActuatorError(
                f"AWS {self.region}: no time was left for {operation}; the next step goes on from there"
            )
        outcome: list[dict[str, Any] | BaseException] = []

        def ask() -> None:
            try:
                outcome.append(getattr(self._client(service), operation)(**parameters))
            except BaseException as error:  # carried to the caller, whichever it is
                outcome.append(error)

        # A thread, for no setting of a socket bounds the whole of a request; one left behind ends by its timeouts.
        thread = threading.Thread(target=ask, name=f"aws-{operation}", daemon=True)
        thread.start()
        thread.join(left)
        if not outcome:
            raise LostError(f"AWS {self.region}: {operation} did not answer within {left:.0f} s")
        if isinstance(outcome[0], BaseException):
            raise self._for_actuator(outcome[0], operation)
        self.back_off.answered()
        return outcome[0]

    def pages(self, until: float, service: str, operation: str, key: str, **parameters: Any) -> list[Any]:
        """The entries under `key` of all pages."""
        found: list[Any] = []
        token_key = {"elbv2": "Marker"}.get(service, "NextToken")
        answer_key = {"elbv2": "NextMarker"}.get(service, "NextToken")
        more: dict[str, Any] = {}
        while True:
            answer = self.call(until, service, operation, **parameters, **more)
            found += answer.get(key, [])
            if not answer.get(answer_key):
                return found
            more = {token_key: answer[answer_key]}

    def _client(self, service: str) -> Any:
        with self._making:  # making clients is not safe for threads
            if service not in self._clients:
                self._clients[service] = self._make(service)
            return self._clients[service]

    def _boto3_client(self, service: str) -> Any:
        try:
            import boto3
            from botocore.config import Config
        except ImportError:
            raise PermanentError("target.aws: needs the package boto3; install tidewise[aws]") from None
        session = boto3.session.Session(profile_name=self._profile, region_name=self.region)
        limits = Config(
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            retries={"total_max_attempts": 1},
            max_pool_connections=16,
        )
        return session.client(service, endpoint_url=self._endpoint_url, config=limits)

    def _for_actuator(self, error: BaseException, operation: str) -> BaseException:
        """What botocore raised, as an error that says what to do. It never tells a secret."""
        if isinstance(error, ActuatorError):
            return error
        response = getattr(error, "response", None)
        at = f"AWS {self.region}: {operation}"
        if not isinstance(response, dict):
            return self._without_answer(error, at)
        code = str(response.get("Error", {}).get("Code", "unknown"))
        meta = response.get("ResponseMetadata", {})
        status = meta.get("HTTPStatusCode", 0)
        said = f"{code}: {str(response.get('Error', {}).get('Message', ''))[:300]}"
        if code in THROTTLED or status == 429:
            wait = self.back_off.throttled(_seconds(meta.get("HTTPHeaders", {}).get("retry-after")))
            return ActuatorError(f"{at} was throttled ({code}); all workloads of this account wait {wait:.0f} s")
        if code in QUOTA:
            return NoGrowthError(f"{at}: a quota is used up ({said}); have it raised in Service Quotas, or lower max")
        if code in NO_CAPACITY:
            return NoCapacityError(f"{at}: {said}")
        if code in RIGHTS:
            return PermanentError(f"{at}: refused ({said}); docs/aws.md lists the rights that are needed")
        if code in CREDENTIALS:
            return PermanentError(
                f"{at}: the credentials were refused ({code}); check the environment, the profile or the machine's role"
            )
        if code in AWS_FAILED or status >= 500:
            return LostError(f"{at}: AWS failed ({said}); it may have been carried out all the same")
        return RefusedError(f"{at}: {said}", code)

    def _without_answer(self, error: BaseException, at: str) -> BaseException:
        name = type(error).__name__
        if name in NO_CREDENTIALS:
            return PermanentError(f"{at}: {error}; check the environment, the profile or the machine's role")
        if name in ("EndpointConnectionError", "ConnectTimeoutError", "ProxyConnectionError"):
            return ActuatorError(f"{at}: cannot be reached ({name}); is the network up, is the region right?")
        if name in ("ReadTimeoutError", "ConnectionClosedError", "HTTPClientError", "ResponseStreamingError"):
            return LostError(f"{at}: the answer was lost ({name}); it may have been carried out all the same")
        if name in ("ParamValidationError", "InvalidRegionError", "UnknownEndpointError", "ConfigParseError"):
            return PermanentError(f"{at}: {error}; correct target.aws")
        if isinstance(error, OSError) or _is_botocore(error):  # TLS, a proxy's page instead of an answer, …
            return LostError(f"{at}: {name}: {str(error)[:300]}; it may have been carried out all the same")
        return error  # a mistake of ours is not to be mistaken for AWS's


def _is_botocore(error: BaseException) -> bool:
    return any(kind.__module__.partition(".")[0] in ("boto3", "botocore", "urllib3") for kind in type(error).__mro__)


def _seconds(header: object) -> float | None:
    try:
        return max(0.0, min(float(str(header)), 600.0))
    except ValueError:
        return None


@functools.cache
def shared_account(region: str, profile: str | None, endpoint_url: str | None) -> Account:
    """One for all workloads of an account and region: they wait together when it throttles."""
    return Account(region, profile, endpoint_url)


def account_of(target: AwsTarget) -> Account:
    return shared_account(target.region, target.profile, target.endpoint_url)
