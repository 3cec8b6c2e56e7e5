"""Runs the application until it is told to end: one process, one event loop, an orderly end.

SIGTERM and SIGINT stop the listening; what was accepted is finished, and the exit status is 0. A second SIGINT ends at
once. SIGHUP loads the model's folder again, unless the server is ending.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import math
import os
import resource
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol, cast

import uvicorn

from rewardlab.errors import RewardLabError
from rewardlab.serving.backend import Backend
from rewardlab.serving.failures import Overloaded
from rewardlab.serving.fault_log import log_fault
from rewardlab.serving.guard import App
from rewardlab.serving.http_protocol import LimitedProtocol
from rewardlab.serving.items import ModelInfo
from rewardlab.serving.settings import ServerSettings
from rewardlab.serving.standard_streams import StandardError

BACKLOG = 4096

_logger = logging.getLogger("rewardlab.serving")


class ServedBackend(Backend, Protocol):
    """A backend whose first model can be waited for."""

    async def wait_ready(self) -> None:
        """Return when the first model is loaded.

        Raises:
            RewardLabError: It cannot be.
        """

    def begin_to_end(self) -> None:
        """The server was told to end: what has arrived is finished without waiting for more, what comes is refused."""

    def overload(self, in_progress: int) -> Overloaded | None:
        """Why a request would be refused as things are; None where it may try.

        Args:
            in_progress: Requests whose heads were read and that have no answer yet.
        """


def configure_logging(level: str) -> None:
    """Write what the server logs to stderr, a line each with its time.

    Args:
        level: ``"info"`` (a line per request), ``"warning"`` or ``"error"``.
    """
    _logger.handlers, _logger.propagate = [StandardError()], False
    _logger.setLevel(level.upper())


def run_server(
    app: App, backend: ServedBackend, settings: ServerSettings, *, on_ready: Callable[[str, ModelInfo], None]
) -> None:
    """Serve until a signal comes, and what was accepted is finished.

    Args:
        app: The application; its lifespan starts and stops the backend.
        backend: Its backend.
        settings: The settings.
        on_ready: Called with the server's URL and its model when that is loaded.

    Raises:
        RewardLabError: It cannot listen there, or the first model cannot be loaded.
    """
    _raise_file_limit()
    with contextlib.closing(_listen(settings.host, settings.port)) as listener:
        config = uvicorn.Config(
            app,
            http=cast(Any, functools.partial(LimitedProtocol, settings=settings, overload=backend.overload)),
            ws="none",
            lifespan="on",
            interface="asgi3",
            log_config=None,
            log_level=logging.ERROR,  # what clients send wrong is answered, and no event of ours
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=BACKLOG,
            timeout_graceful_shutdown=math.ceil(settings.drain_s),
        )
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            runner.run(_serve(_Server(config, backend), listener, backend, on_ready))


class _Server(uvicorn.Server):
    """uvicorn's server without its signals: it would raise them again at its end, and the status would be a failure."""

    def __init__(self, config: uvicorn.Config, backend: ServedBackend) -> None:
        super().__init__(config)
        self._backend = backend
        self.was_told = False

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def end(self) -> None:
        """Begin to end."""
        if not self.was_told:
            _logger.info("stopping, %d requests in progress", len(self.server_state.tasks))
            self._backend.begin_to_end()
        self.was_told = self.should_exit = True

    def interrupt(self) -> None:
        """Begin to end; asked again, end now: the worker ends by itself when its socket closes."""
        if self.was_told:
            os._exit(130)
        self.end()


async def _serve(
    server: _Server,
    listener: socket.socket,
    backend: ServedBackend,
    on_ready: Callable[[str, ModelInfo], None],
) -> None:
    failures: list[RewardLabError] = []

    async def announce() -> None:
        try:
            while not server.started:  # before it has, the backend is not told to start either
                await asyncio.sleep(0.01)
            await backend.wait_ready()
            assert backend.model is not None
        except RewardLabError as error:
            if not server.was_told:  # a server that was told to end while it loads has not failed
                failures.append(error)
                server.should_exit = True
        else:
            on_ready(_url(listener), backend.model)

    with _signals(server, backend):
        announcing = asyncio.create_task(announce())
        try:
            await server.serve(sockets=[listener])
        finally:
            announcing.cancel()
            await asyncio.gather(announcing, return_exceptions=True)
    if failures:
        raise failures[0]
    _logger.info("stopped")


@contextlib.contextmanager
def _signals(server: _Server, backend: Backend) -> Iterator[None]:
    """Handle the signals of the process, where this is its main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    reloads: set[asyncio.Task[None]] = set()

    def reload() -> None:
        if server.should_exit:
            _logger.warning("SIGHUP: the server is ending")
            return
        if reloads:
            _logger.warning("SIGHUP: the model is being loaded already")
            return
        task = loop.create_task(_reload(backend))
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    handlers = {signal.SIGTERM: server.end, signal.SIGINT: server.interrupt, signal.SIGHUP: reload}
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    try:
        yield
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)
        for task in reloads:
            task.cancel()


async def _reload(backend: Backend) -> None:
    try:
        model = await backend.reload(None)
    except RewardLabError as error:
        _logger.warning("SIGHUP: %s", error.message)
    except Exception as error:
        log_fault(_logger, "SIGHUP: the old model serves on; loading the new one", error)
    else:
        _logger.warning("SIGHUP: the model is now %s, fingerprint %s", model.name, model.fingerprint)


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        RewardLabError: It cannot, with the reason.
    """
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, *_, address = min(addresses, key=lambda found: found[0] != socket.AF_INET)
        return socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except (OSError, UnicodeError) as error:
        if isinstance(error, OSError) and not isinstance(error, socket.gaierror) and error.errno:
            why = os.strerror(error.errno)  # what Python has added says the address once more
        else:
            why = getattr(error, "strerror", None) or str(error)
        raise RewardLabError(
            f"cannot listen on {host!r} port {port}: {why}",
            hint="choose another with --host and --port; port 0 takes a free one",
        ) from error


def _url(listener: socket.socket) -> str:
    host, port, *_ = listener.getsockname()
    if listener.family == socket.AF_INET6:
        host = f"[{host}]"
    return f"http://{host}:{port}"


def _raise_file_limit() -> None:
    """Take as many open files as are allowed: the usual 1,024 are fewer than the connections that may be open."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
