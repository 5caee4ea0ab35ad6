"""TeleStream's own five services as members of the stack."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from telestream_devstack.cache import python_environment
from telestream_devstack.keys import stack_keys
from telestream_devstack.part import Part
from telestream_devstack.parts import Parts
from telestream_devstack.ports import HOST, port
from telestream_devstack.probe import why_not
from telestream_devstack.process import Command


@dataclass(frozen=True, slots=True)
class Service:
    """`short` is its name in metrics and ports."""

    name: str
    short: str
    package: str
    http: bool = False


SERVICES = (
    Service("ingest-gateway", "gateway", "ingest_gateway", http=True),
    Service("cdr-enricher", "enricher", "cdr_enricher"),
    Service("window-aggregator", "aggregator", "window_aggregator"),
    Service("warehouse-sink", "sink", "warehouse_sink"),
    Service("query-api", "query-api", "query_api", http=True),
)
SERVICE_NAMES = tuple(service.name for service in SERVICES)
ALIASES: Mapping[str, str] = {service.short: service.name for service in SERVICES}
LAGGING: Mapping[str, str] = {
    service.name: f"telestream_{service.short}_lag_records" for service in SERVICES if not service.http
}


_RESTORE_SECONDS = 900.0  # a service that rebuilds its state from a long log is starting, not failing


def service_environment(service: Service, parts: Parts, state_dir: Path, port_base: int) -> dict[str, str]:
    """The caller's environment, with what this stack fixes laid over it."""
    keys = stack_keys(state_dir)
    own = state_dir / "services" / service.name
    fixed = parts.environment() | {
        "TELESTREAM_HTTP_HOST": HOST,
        "TELESTREAM_ADMIN_HOST": HOST,
        "TELESTREAM_ADMIN_PORT": str(port(port_base, f"{service.short}-admin")),
        "TELESTREAM_GATEWAY": f"http://{HOST}:{port(port_base, 'gateway')}",
        "TELESTREAM_API_KEY_FILE": str(keys.api_key),
        "TELESTREAM_IDENTITY_KEY_FILE": str(keys.identity),
        "TELESTREAM_PERMANENT_KEY_FILE": str(keys.permanent),
        "TELESTREAM_STATE_DIR": str(own),
        "TELESTREAM_INSTANCE": "0",
        "PYTHONUNBUFFERED": "1",
    }
    if service.http:
        fixed["TELESTREAM_HTTP_PORT"] = str(port(port_base, service.short))
    unset = {"TELESTREAM_API_KEY", "TELESTREAM_IDENTITY_KEY", "TELESTREAM_PERMANENT_KEY"}
    return {name: value for name, value in python_environment().items() if name not in unset} | fixed


def make_service(service: Service, parts: Parts, state_dir: Path, port_base: int) -> Part:
    admin_url = f"http://{HOST}:{port(port_base, f'{service.short}-admin')}"
    ports = {f"{service.name}'s admin port": port(port_base, f"{service.short}-admin")}
    if service.http:
        ports[service.name] = port(port_base, service.short)
    own = state_dir / "services" / service.name

    def command() -> Command:
        own.mkdir(parents=True, exist_ok=True)
        return Command(
            arguments=[sys.executable, "-m", service.package],
            log=state_dir / "logs" / f"{service.name}.log",
            environment=service_environment(service, parts, state_dir, port_base),
            cwd=own,
        )

    return Part(
        name=service.name,
        url=f"http://{HOST}:{port(port_base, service.short)}" if service.http else admin_url,
        ports=ports,
        command=command,
        ready=lambda: why_not(f"{admin_url}/readyz"),
        start_timeout_seconds=_RESTORE_SECONDS,
        stop_timeout_seconds=30.0,
        admin_url=admin_url,
    )
