"""Write the lock file anew: `python -m telestream_devstack.resolve_jars`. For who changes a version below."""

from __future__ import annotations

import tempfile
from pathlib import Path

from telestream_devstack.jars import LOCK_FILE, Jar, format_lock, remote_repositories, sha256_of

KAFKA = ("org.apache.kafka", "kafka_2.13", "4.1.2")
LOGGING = ("org.slf4j", "slf4j-simple", "1.7.36")  # Kafka brings no binding, and would say nothing at all
REGISTRY = ("io.apicurio", "apicurio-registry-app", "3.3.3")


def resolve(scratch: Path) -> list[Jar]:
    from jgo.maven import Dependency, MavenContext

    context = MavenContext(repo_cache=scratch, remote_repos=remote_repositories(), timeout=60)
    inputs = [
        Dependency(context.project(group, name).at_version(version).artifact())
        for group, name, version in (KAFKA, LOGGING)
    ]
    roots, transitive = context.resolver.resolve(inputs)
    found = [("kafka", dependency.artifact) for dependency in [*roots, *transitive]]
    group, name, version = REGISTRY
    found.append(
        ("registry", context.project(group, name).at_version(version).artifact(classifier="all", packaging="tar.gz"))
    )
    jars = []
    for program, artifact in found:
        path = artifact.resolve()
        component = artifact.component
        jars.append(
            Jar(
                program=program,
                group=component.groupId,
                artifact=component.artifactId,
                version=component.version,
                classifier=artifact.classifier,
                packaging=artifact.packaging,
                size=path.stat().st_size,
                sha256=sha256_of(path),
            )
        )
    return sorted(jars, key=lambda jar: (jar.program, jar.coordinate))


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        jars = resolve(Path(scratch))
    LOCK_FILE.write_text(format_lock(jars))
    print(f"{LOCK_FILE}: {len(jars)} files, {sum(jar.size for jar in jars) / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
