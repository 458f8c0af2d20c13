"""Run the server: uvicorn in one process, or in several that share a socket.

After SIGTERM or SIGINT, no new connections are accepted, texts that are being generated end, and
open requests may finish within the grace period. The exit status is then 0.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
from dataclasses import replace
from types import FrameType
from typing import Any

import uvicorn

from idiolect.errors import IdiolectError, InputError
from idiolect.serve.patient_protocol import patient_protocol
from idiolect.serve.request_log import log_to
from idiolect.serve.serve_settings import ServeSettings

__all__ = ["serve"]

_LOG = logging.getLogger(__name__)
_MAX_CONNECTIONS = 2048
_KEEP_ALIVE = 30
"""Seconds that an idle connection stays open."""


def serve(
    settings: ServeSettings, *, host: str = "127.0.0.1", port: int = 8000, workers: int = 1
) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        settings: What to serve.
        host: The address to listen on.
        port: The port; 0 for any free one.
        workers: Number of processes. Each loads the model; the first merges the index's graphs.

    Raises:
        InputError: The address cannot be used, or there is nothing to serve.
        IdiolectError: It cannot be loaded, or a worker failed.
    """
    listener = _listen(host, port)
    address = _url(host, listener.getsockname()[1])
    with listener:
        if workers == 1:
            _work(settings, listener, address)
        else:
            _Supervisor(settings, listener, workers, address).run()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise InputError(
            f"cannot listen at {host}:{port}: {error.strerror}", hint="choose another --port"
        ) from None
    # Connections inherit this option (TCP_NODELAY). Otherwise the body of a response, which is
    # written after the head, waits for the client's delayed ACK of the head, usually 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _url(host: str, port: int) -> str:
    """Return the address of a server.

    >>> _url("::1", 8000)
    'http://[::1]:8000'
    """
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _work(settings: ServeSettings, listener: socket.socket, address: str) -> None:
    """Serve in this process."""
    from idiolect.serve.app import create_app  # in a worker, after its environment is set

    log_to()
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        http=patient_protocol(settings.body_timeout, settings.reading_timeout),
        ws="none",
        log_config=None,
        access_log=False,
        limit_concurrency=_MAX_CONNECTIONS,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=max(1, round(settings.grace_period)),
        server_header=False,
    )
    server = _Server(config, app.state.service.stopping)
    print(f"serving {settings.path} at {address}", flush=True)
    server.run(sockets=[listener])


def _work_or_exit(settings: ServeSettings, listener: socket.socket, address: str) -> None:
    """Serve in a worker; on an error, log it and exit with status 1."""
    threading.Thread(target=_end_with_the_supervisor, daemon=True).start()
    try:
        _work(settings, listener, address)
    except IdiolectError as error:
        _LOG.error("%s", error)
        sys.exit(1)


def _end_with_the_supervisor() -> None:
    """Wait for the process that started this worker, and shut down as soon as it has ended.

    One that was killed cannot end its workers. They would hold the port and the memory for good.
    """
    supervisor = multiprocessing.parent_process()
    if supervisor is not None:
        supervisor.join()
        signal.raise_signal(signal.SIGTERM)


class _Server(uvicorn.Server):
    """A server that ends texts that are being generated as soon as a shutdown is requested."""

    def __init__(self, config: uvicorn.Config, stopping: threading.Event) -> None:
        super().__init__(config)
        self._stopping = stopping

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Start the shutdown; a second signal ends it at once."""
        self._stopping.set()
        if self.should_exit:
            self.force_exit = True
        self.should_exit = True


class _Supervisor:
    """Starts workers, replaces those that were killed, and stops them when it stops."""

    def __init__(
        self, settings: ServeSettings, listener: socket.socket, workers: int, address: str
    ) -> None:
        self._settings, self._listener, self._address = settings, listener, address
        self._context = multiprocessing.get_context("spawn")
        self._ending = threading.Event()
        self._workers: list[Any] = [None] * workers

    def run(self) -> None:
        """Serve until a signal arrives.

        Raises:
            IdiolectError: A worker failed, as its log says.
        """
        with tempfile.TemporaryDirectory(prefix="idiolect-metrics-") as folder:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
            for sig in (signal.SIGTERM, signal.SIGINT):
                signal.signal(sig, lambda *_: self._ending.set())
            try:
                while not self._ending.wait(0.5):
                    self._replace()
            finally:
                for worker in filter(None, self._workers):
                    worker.terminate()
                for worker in filter(None, self._workers):
                    worker.join(self._settings.grace_period + 5)
                    worker.kill()
                del os.environ["PROMETHEUS_MULTIPROC_DIR"]

    def _replace(self) -> None:
        """Start missing workers. A worker that failed is not restarted, as it would fail again."""
        for number, worker in enumerate(self._workers):
            if worker is not None and worker.is_alive():
                continue
            if worker is not None and worker.exitcode > 0:
                raise IdiolectError("a worker failed", hint="its log is above")
            self._forget(worker)
            self._workers[number] = self._start(number)

    def _start(self, number: int) -> Any:
        settings = replace(self._settings, writer=number == 0)
        worker = self._context.Process(
            target=_work_or_exit,
            args=(settings, self._listener, self._address),
            name=f"worker-{number}",
        )
        worker.start()
        return worker

    def _forget(self, worker: Any) -> None:
        """Remove the gauges of a worker that died."""
        if worker is None:
            return
        from prometheus_client import multiprocess

        with contextlib.suppress(OSError):
            multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]
