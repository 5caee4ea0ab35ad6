"""Apache Kafka: one KRaft node, broker and controller in one process."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from telestream_devstack import jars
from telestream_devstack.errors import PartFailed
from telestream_devstack.java import find_java, quiet_options
from telestream_devstack.part import Part
from telestream_devstack.ports import HOST, port
from telestream_devstack.process import Command

_CLUSTER_ID = "VGVsZVN0cmVhbS1kZXYtMQ"
_HEAP = "400m"

SETTINGS: Mapping[str, str] = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    # A topic's partitions and retention come from our table of topics, never from a typing error.
    "auto.create.topics.enable": "false",
    "default.replication.factor": "1",
    "min.insync.replicas": "1",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "offsets.retention.minutes": "525600",  # a demo that is opened after a holiday goes on where it was
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
    "message.max.bytes": "16777216",
    "replica.fetch.max.bytes": "16777216",
    "socket.request.max.bytes": "104857600",
    # Small on purpose: one machine, a few clients.
    "num.network.threads": "2",
    "num.io.threads": "4",
    "background.threads": "2",
    "group.coordinator.threads": "1",
    "num.recovery.threads.per.data.dir": "2",
    "log.cleaner.dedupe.buffer.size": "16777216",
    "log.segment.bytes": "268435456",
    "controller.quorum.election.timeout.ms": "300",  # a quorum of one has nobody to wait for
    # A broker that was killed may register again only when its old session has run out: 9 s by default.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
}

_JVM = (
    f"-Xmx{_HEAP}",
    "-Xms128m",
    "-XX:+UseSerialGC",
    # Measured over a first and a second 600,000 records: 1.7 and 0.8 µs of CPU each, with the second compiler 3.0 and
    # 0.9; what the broker does is mostly copying, which compiling again does not speed up.
    "-XX:TieredStopAtLevel=1",
    "-XX:MaxDirectMemorySize=128m",
    "-XX:ReservedCodeCacheSize=64m",
    "-XX:-UsePerfData",
    "-XX:+ExitOnOutOfMemoryError",
    "-Djava.awt.headless=true",
    "--enable-native-access=ALL-UNNAMED",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info",
)


def kafka(state_dir: Path, port_base: int) -> Part:
    home = state_dir / "kafka"
    properties = home / "server.properties"
    broker, controller = port(port_base, "kafka"), port(port_base, "kafka-controller")
    address = f"{HOST}:{broker}"

    def java() -> list[str]:
        classpath = os.pathsep.join(map(str, jars.ensure(["kafka"])["kafka"]))
        program = find_java()
        return [str(program), *quiet_options(program), *_JVM, "-cp", classpath]

    def prepare() -> None:
        home.mkdir(parents=True, exist_ok=True)
        settings = dict(SETTINGS) | {
            "controller.quorum.voters": f"1@{HOST}:{controller}",
            "listeners": f"PLAINTEXT://{address},CONTROLLER://{HOST}:{controller}",
            "advertised.listeners": f"PLAINTEXT://{address}",
            "log.dirs": str(home / "data"),
        }
        properties.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        program = java()
        if not (home / "data" / "meta.properties").exists():
            # Whatever lies there was never started: a format that was broken off.
            shutil.rmtree(home / "data", ignore_errors=True)
            formatted = subprocess.run(
                [
                    *(*program, "kafka.tools.StorageTool", "format"),
                    *("-t", _CLUSTER_ID, "-c", str(properties)),
                ],
                capture_output=True,
                text=True,
                cwd=home,
                check=False,
            )
            if formatted.returncode:
                reason = (formatted.stderr.strip() or formatted.stdout.strip()).splitlines()[-1:]
                raise PartFailed(f"kafka: its storage {home} could not be formatted: {' '.join(reason)}")

    def command() -> Command:
        return Command(
            arguments=[*java(), "kafka.Kafka", str(properties)],
            log=state_dir / "logs" / "kafka.log",
            environment=dict(os.environ),
            cwd=home,
        )

    def ready() -> str | None:
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        try:
            found = AdminClient({"bootstrap.servers": address, "log_level": 0}).list_topics(timeout=1.5)
        except KafkaException as error:
            return f"no answer to a metadata request at {address}: {error.args[0].str()}"
        leaderless = [
            f"{name}[{number}]"
            for name, topic in found.topics.items()
            for number, partition in topic.partitions.items()
            if partition.leader < 0
        ]
        return f"{len(leaderless)} partitions have no leader yet, {leaderless[0]} is one" if leaderless else None

    return Part(
        name="kafka",
        url=address,
        ports={"kafka": broker, "kafka's controller": controller},
        command=command,
        prepare=prepare,
        ready=ready,
        stop_timeout_seconds=20.0,
    )
