"""Apicurio Registry, which speaks Confluent's API; its storage is an H2 file."""

from __future__ import annotations

import os
from pathlib import Path

from telestream_devstack import jars
from telestream_devstack.java import find_java, quiet_options
from telestream_devstack.part import Part
from telestream_devstack.ports import HOST, port
from telestream_devstack.probe import why_not
from telestream_devstack.process import Command

API = "/apis/ccompat/v7"

_JVM = (
    "-Xmx192m",
    "-Xms64m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",  # a handful of requests: warming up would cost more than it brings
    "-XX:MaxMetaspaceSize=160m",
    "-XX:-UsePerfData",
    "-XX:+ExitOnOutOfMemoryError",
    "-Djava.awt.headless=true",
    "-Djava.util.logging.manager=org.jboss.logmanager.LogManager",
    "--enable-native-access=ALL-UNNAMED",
)


def registry(state_dir: Path, port_base: int) -> Part:
    home = state_dir / "registry"
    number, management = port(port_base, "registry"), port(port_base, "registry-management")
    url = f"http://{HOST}:{number}{API}"

    def prepare() -> None:
        home.mkdir(parents=True, exist_ok=True)
        jars.unpacked(jars.ensure(["registry"])["registry"][0])

    def command() -> Command:
        java = find_java()
        program = jars.unpacked(jars.ensure(["registry"])["registry"][0])
        # WRITE_DELAY=0: an id that was handed out is on disk. An event whose schema id is forgotten cannot be read.
        storage = f"jdbc:h2:file:{home / 'registry'};WRITE_DELAY=0"
        own = {
            "QUARKUS_HTTP_HOST": HOST,
            "QUARKUS_HTTP_PORT": str(number),
            "QUARKUS_MANAGEMENT_HOST": HOST,
            "QUARKUS_MANAGEMENT_PORT": str(management),
            "QUARKUS_HTTP_ACCESS_LOG_ENABLED": "false",
            "QUARKUS_LOG_LEVEL": "WARN",
            "QUARKUS_LOG_CATEGORY__IO_QUARKUS_BOOTSTRAP_RUNNER_TIMING__LEVEL": "INFO",
            "APICURIO_LOG_LEVEL": "WARN",
            "APICURIO_STORAGE_KIND": "sql",
            "APICURIO_STORAGE_SQL_KIND": "h2",
            "APICURIO_DATASOURCE_URL": storage,
            "APICURIO_DATASOURCE_USERNAME": "sa",
            "APICURIO_DATASOURCE_PASSWORD": "sa",
            "APICURIO_DATASOURCE_JDBC_INITIAL_SIZE": "2",
            "APICURIO_DATASOURCE_JDBC_MIN_SIZE": "2",
            "APICURIO_DATASOURCE_JDBC_MAX_SIZE": "10",
            "QUARKUS_OTEL_SDK_DISABLED": "true",
        }
        # Settings of another Quarkus program in the user's shell are not meant for this one.
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("QUARKUS_", "APICURIO_"))
        }
        return Command(
            arguments=[str(java), *quiet_options(java), *_JVM, "-jar", str(program / "quarkus-run.jar")],
            log=state_dir / "logs" / "registry.log",
            environment=inherited | own,
            cwd=home,
        )

    def ready() -> str | None:
        return why_not(f"{url}/subjects")

    return Part(
        name="registry",
        url=url,
        ports={"registry": number, "registry's management": management},
        command=command,
        prepare=prepare,
        ready=ready,
        stop_timeout_seconds=10.0,
    )
