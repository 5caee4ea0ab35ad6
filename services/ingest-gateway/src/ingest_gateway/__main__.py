import os
import sys
from importlib.abc import MetaPathFinder


class _WithoutPandas(MetaPathFinder):
    """pyarrow imports pandas, if it is there, at the first list it sees: most of a second and 60 MB for nothing."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError("not needed here", name="pandas")


def start() -> int:
    os.environ.setdefault("POLARS_MAX_THREADS", "1")  # read when polars is imported; one is cheaper, and cores are few
    sys.meta_path.insert(0, _WithoutPandas())
    from ingest_gateway.app import main
    from ingest_gateway.settings import GatewaySettings
    from telestream_runtime import run_service

    return run_service("ingest-gateway", GatewaySettings, main)


if __name__ == "__main__":
    sys.exit(start())
