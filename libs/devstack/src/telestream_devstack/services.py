"""TeleStream's own five services as members of the stack; those that derive, once for each generation."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from telestream_devstack.cache import python_environment
from telestream_devstack.keys import stack_keys
from telestream_devstack.part import Part
from telestream_devstack.parts import Parts
from telestream_devstack.ports import HOST, port, replay_port, require_free
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


DERIVING = ("cdr-enricher", "window-aggregator", "warehouse-sink")
"""Every generation has these for itself."""
FIRST_GENERATION = 1
_REPLAY = re.compile(r"(.+)\.g([1-9]\d*)")
_RESTORE_SECONDS = 900.0  # a service that rebuilds its state from a long log is starting, not failing


def member_name(service: str, generation: int) -> str:
    """Its name in the stack, in the state directory and among the logs."""
    return service if generation == FIRST_GENERATION else f"{service}.g{generation}"


def service_and_generation(member: str) -> tuple[str, int]:
    """What a member's name says: service (a short name in full), generation."""
    found = _REPLAY.fullmatch(member)
    name, generation = (found[1], int(found[2])) if found else (member, FIRST_GENERATION)
    return ALIASES.get(name, name), generation


def service_environment(
    service: Service, parts: Parts, state_dir: Path, port_base: int, generation: int = FIRST_GENERATION, slot: int = 0
) -> dict[str, str]:
    """The caller's environment, with what this stack fixes laid over it."""
    keys = stack_keys(state_dir)
    fixed = parts.environment() | {
        "TELESTREAM_HTTP_HOST": HOST,
        "TELESTREAM_ADMIN_HOST": HOST,
        "TELESTREAM_ADMIN_PORT": str(_admin_port(service, port_base, generation, slot)),
        "TELESTREAM_GATEWAY": f"http://{HOST}:{port(port_base, 'gateway')}",
        "TELESTREAM_API_KEY_FILE": str(keys.api_key),
        "TELESTREAM_IDENTITY_KEY_FILE": str(keys.identity),
        "TELESTREAM_PERMANENT_KEY_FILE": str(keys.permanent),
        "TELESTREAM_STATE_DIR": str(own_dir(state_dir, service.name, generation)),
        "TELESTREAM_INSTANCE": "0",
        "PYTHONUNBUFFERED": "1",
    }
    if service.http:
        fixed["TELESTREAM_HTTP_PORT"] = str(port(port_base, service.short))
    if generation != FIRST_GENERATION:
        fixed["TELESTREAM_GENERATION"] = str(generation)
    unset = {"TELESTREAM_API_KEY", "TELESTREAM_IDENTITY_KEY", "TELESTREAM_PERMANENT_KEY"}
    return {name: value for name, value in python_environment().items() if name not in unset} | fixed


def own_dir(state_dir: Path, service: str, generation: int) -> Path:
    """Where one service of one generation keeps what it may."""
    return state_dir / "services" / member_name(service, generation)


def _admin_port(service: Service, port_base: int, generation: int, slot: int) -> int:
    if generation == FIRST_GENERATION:
        return port(port_base, f"{service.short}-admin")
    return replay_port(port_base, slot, DERIVING.index(service.name))


def make_service(
    service: Service, parts: Parts, state_dir: Path, port_base: int, generation: int = FIRST_GENERATION, slot: int = 0
) -> Part:
    """One service, of one generation; ``slot`` says which admin port a generation beside the first has."""
    name = member_name(service.name, generation)
    admin_port = _admin_port(service, port_base, generation, slot)
    admin_url = f"http://{HOST}:{admin_port}"
    ports = {f"{name}'s admin port": admin_port}
    if service.http:
        ports[service.name] = port(port_base, service.short)
    own = own_dir(state_dir, service.name, generation)

    def command() -> Command:
        own.mkdir(parents=True, exist_ok=True)
        return Command(
            arguments=[sys.executable, "-m", service.package],
            log=state_dir / "logs" / f"{name}.log",
            environment=service_environment(service, parts, state_dir, port_base, generation, slot),
            cwd=own,
        )

    def prepare() -> None:
        # The ports of the first generation were looked at before the supervisor began.
        if generation != FIRST_GENERATION:
            require_free(ports)

    return Part(
        name=name,
        url=f"http://{HOST}:{port(port_base, service.short)}" if service.http else admin_url,
        ports=ports,
        command=command,
        ready=lambda: why_not(f"{admin_url}/readyz"),
        prepare=prepare,
        start_timeout_seconds=_RESTORE_SECONDS,
        stop_timeout_seconds=30.0,
        admin_url=admin_url,
    )
