import os
import sys

os.environ.setdefault("POLARS_MAX_THREADS", "1")  # read when polars is imported; one is cheaper, and cores are few

from ingest_gateway.app import main
from ingest_gateway.settings import GatewaySettings
from telestream_runtime import run_service

if __name__ == "__main__":
    sys.exit(run_service("ingest-gateway", GatewaySettings, main))
