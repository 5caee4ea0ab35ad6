"""A broker of a test's own, to be stopped, killed and cut off; clients that come through the proxy stay on it."""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from faust_batch_proxy import Proxy

from telestream_devstack.part import Part
from telestream_devstack.parts import make_parts
from telestream_devstack.process import spawn

HOST = "127.0.0.1"


class Broker:
    """`direct` and `proxied` are its two addresses; topics and groups outlive a restart."""

    def __init__(self, part: Part, proxied_port: int) -> None:
        self._part = part
        self.direct = part.url
        self.proxy = Proxy(HOST, upstream=(HOST, proxied_port))
        self._popen: subprocess.Popen[bytes] | None = None

    @property
    def proxied(self) -> str:
        return f"{HOST}:{self.proxy.port}"

    def start(self) -> None:
        """Returns when it answers."""
        self._part.prepare()
        self._popen = spawn(self._part.command())
        deadline = time.monotonic() + 90
        while self._part.ready() is not None:
            assert self._popen.poll() is None, "the broker ended while starting"
            assert time.monotonic() < deadline, "the broker was not ready"
            time.sleep(0.2)

    def stop(self) -> None:
        """In order, as at the end of the test."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def mend(self) -> None:
        """Whatever was done to it is undone."""
        self.proxy.restore()
        if self._popen is None or self._popen.poll() is not None:
            self.start()
        self.thaw()

    def freeze(self) -> None:
        for process in self._processes():
            process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        for process in self._processes():
            process.send_signal(signal.SIGCONT)

    def _processes(self) -> list[psutil.Process]:
        assert self._popen is not None
        parent = psutil.Process(self._popen.pid)
        return [*parent.children(recursive=True), parent]

    def _end(self, number: int) -> None:
        if self._popen is None or self._popen.poll() is not None:
            return
        self.thaw()
        processes = self._processes()
        for process in processes:
            process.send_signal(number)
        psutil.wait_procs(processes, timeout=30)
        self._popen.wait(30)


@contextmanager
def own_broker(folder: Path, port_base: int) -> Iterator[Broker]:
    """A broker with a second listener whose advertised address is the proxy's."""
    part = make_parts(folder, port_base, only=["kafka"])["kafka"]
    proxied_port = port_base + 97
    broker = Broker(part, proxied_port)
    properties = folder / "kafka" / "server.properties"

    def prepare() -> None:
        part.prepare()
        lines = dict(line.split("=", 1) for line in properties.read_text().splitlines())
        lines["listeners"] += f",PROXIED://{HOST}:{proxied_port}"
        lines["advertised.listeners"] += f",PROXIED://{broker.proxied}"
        lines["listener.security.protocol.map"] += ",PROXIED:PLAINTEXT"
        lines["inter.broker.listener.name"] = "PLAINTEXT"
        properties.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))

    broker._part = dataclasses.replace(part, prepare=prepare)
    with broker.proxy:
        try:
            broker.start()
            yield broker
        finally:
            broker.kill()
