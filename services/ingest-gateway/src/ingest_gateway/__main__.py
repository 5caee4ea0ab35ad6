import sys

from telestream_runtime.lean import run_lean

if __name__ == "__main__":
    sys.exit(run_lean("ingest_gateway.app:main"))
