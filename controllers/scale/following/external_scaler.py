"""KEDA's external scaler: one trigger in the user's ScaledObject asks here how many replicas there are to be.

An error is an answer too: with a `fallback` in the ScaledObject it is what makes KEDA use that. So an unknown number is
UNAVAILABLE, never 0, and what no waiting mends is INVALID_ARGUMENT or NOT_FOUND. Streams cost no thread each, for a
cluster has one for every ScaledObject with a push trigger.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import structlog

from controllers.config import ExternalScaler
from controllers.scale.following.answers import METRIC_NAME, NotPublishedError, Numbers, UnknownNumberError
from controllers.scale.following.externalscaler_pb2 import (
    GetMetricSpecResponse,
    GetMetricsRequest,
    GetMetricsResponse,
    IsActiveResponse,
    MetricSpec,
    MetricValue,
    ScaledObjectRef,
)
from exporters.runtime.config import ConfigError, split_address
from exporters.runtime.endpoint import EndpointError

SERVICE = "externalscaler.ExternalScaler"
STOP_SECONDS = 0.5
log = structlog.get_logger()


class Server:
    """Answers on `address` between start() and stop(), from a thread of its own."""

    def __init__(self, settings: ExternalScaler, numbers: Numbers) -> None:
        self._settings = settings
        self._numbers = numbers
        self._loop = asyncio.new_event_loop()
        self._told = asyncio.Event()  # a number was told since the last look at it
        self._thread = threading.Thread(target=self._loop.run_forever, name="external-scaler", daemon=True)
        self.address = settings.listen

    def start(self) -> None:
        """Raises EndpointError where the address cannot be had, ConfigError where a file of TLS cannot be read."""
        credentials = _credentials(self._settings)
        self._thread.start()
        try:
            self._in_loop(self._serve(credentials))
        except BaseException:
            self._end_loop()
            raise
        self._numbers.board.watch(self._wake)

    def stop(self) -> None:
        """Streams are cut, calls under way get half a second."""
        if self._thread.is_alive():
            self._in_loop(self._server.stop(STOP_SECONDS))
            self._end_loop()

    def _in_loop(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _serve(self, credentials: Any) -> None:
        # Without so_reuseport a second scaler on the same port is told so instead of getting half of the questions.
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        self._server.add_generic_rpc_handlers((self._handlers(),))
        address = self._settings.listen
        host, _ = split_address(address)
        try:
            bound = address if host else f"[::]{address}"
            port = (
                self._server.add_insecure_port(bound)
                if credentials is None
                else self._server.add_secure_port(bound, credentials)
            )
        except RuntimeError:
            raise EndpointError(
                f"scale.external_scaler.listen: {address} cannot be listened on; is the port taken, the host this one?"
            ) from None
        self.address = f"{address.rpartition(':')[0]}:{port}"
        await self._server.start()
        log.info("external_scaler_listens", address=self.address, tls=credentials is not None)

    def _handlers(self) -> Any:
        def unary(answer: Callable[..., Any], request: Any, response: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(
                answer, request_deserializer=request.FromString, response_serializer=response.SerializeToString
            )

        stream = grpc.unary_stream_rpc_method_handler(
            self._stream_is_active,
            request_deserializer=ScaledObjectRef.FromString,
            response_serializer=IsActiveResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "IsActive": unary(self._is_active, ScaledObjectRef, IsActiveResponse),
                "StreamIsActive": stream,
                "GetMetricSpec": unary(self._metric_spec, ScaledObjectRef, GetMetricSpecResponse),
                "GetMetrics": unary(self._metrics, GetMetricsRequest, GetMetricsResponse),
            },
        )

    async def _is_active(self, asked: ScaledObjectRef, context: Any) -> IsActiveResponse:
        return IsActiveResponse(result=await self._number(asked, context) > 0)

    async def _metric_spec(self, asked: ScaledObjectRef, context: Any) -> GetMetricSpecResponse:
        """What the number is divided by: 1. It is known while the number is not, or KEDA would drop the trigger."""
        try:
            self._numbers.of(await self._workload(asked, context))
        except UnknownNumberError:
            pass
        except NotPublishedError as error:
            await context.abort(grpc.StatusCode.NOT_FOUND, str(error))
        spec = MetricSpec(metricName=METRIC_NAME, targetSize=1, targetSizeFloat=1.0)
        return GetMetricSpecResponse(metricSpecs=[spec])

    async def _metrics(self, asked: GetMetricsRequest, context: Any) -> GetMetricsResponse:
        if asked.metricName != METRIC_NAME:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, f"metric '{asked.metricName}' is unknown here; there is {METRIC_NAME}"
            )
        number = await self._number(asked.scaledObjectRef, context)
        value = MetricValue(metricName=METRIC_NAME, metricValue=number, metricValueFloat=float(number))
        return GetMetricsResponse(metricValues=[value])

    async def _stream_is_active(self, asked: ScaledObjectRef, context: Any) -> AsyncIterator[IsActiveResponse]:
        """At once and whenever it changes; nothing while it is unknown."""
        workload = await self._workload(asked, context)
        said: bool | None = None
        while True:
            told = self._told
            try:
                active = self._numbers.of(workload) > 0
            except UnknownNumberError:
                pass
            except NotPublishedError as error:
                await context.abort(grpc.StatusCode.NOT_FOUND, str(error))
            else:
                if active != said:
                    said = active
                    yield IsActiveResponse(result=active)
            await told.wait()

    async def _number(self, asked: ScaledObjectRef, context: Any) -> int:
        workload = await self._workload(asked, context)
        try:
            return self._numbers.of(workload)
        except UnknownNumberError as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        except NotPublishedError as error:
            await context.abort(grpc.StatusCode.NOT_FOUND, str(error))
        raise AssertionError("abort() raises")

    async def _workload(self, asked: ScaledObjectRef, context: Any) -> str:
        name = asked.scalerMetadata.get("workload", "")
        if not name:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"the trigger of {asked.namespace}/{asked.name} names no workload; add `workload: namespace/name` to "
                "its metadata",
            )
        return name if "/" in name else f"{asked.namespace}/{name}"

    def _wake(self) -> None:
        self._loop.call_soon_threadsafe(self._wake_streams)

    def _wake_streams(self) -> None:
        told, self._told = self._told, asyncio.Event()
        told.set()


def _credentials(settings: ExternalScaler) -> Any:
    """None without TLS. Files are read again with each connection: a renewed certificate needs no restart."""
    if settings.cert_file is None or settings.key_file is None:
        return None

    def read() -> Any:
        pair = (_read(settings.key_file, "key_file"), _read(settings.cert_file, "cert_file"))
        authority = _read(settings.client_ca_file, "client_ca_file") if settings.client_ca_file else None
        return grpc.ssl_server_certificate_configuration([pair], authority)

    def renewed() -> Any:
        try:
            return read()
        except ConfigError as error:  # half written, say: the last good pair stays
            log.error("external_scaler_certificate_not_read", error=str(error))
            return None

    return grpc.dynamic_ssl_server_credentials(
        read(), renewed, require_client_authentication=settings.client_ca_file is not None
    )


def _read(file: Path | None, key: str) -> bytes:
    assert file is not None  # noqa: S101 - for the type checker: the caller has looked
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigError(
            [f"scale.external_scaler.{key}: {file} cannot be read ({error.strerror}); check name and rights"]
        ) from None
