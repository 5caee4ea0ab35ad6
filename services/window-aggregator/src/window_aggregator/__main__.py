import os
import sys

os.environ.setdefault("POLARS_MAX_THREADS", "1")  # read when polars is imported; one is cheaper, and cores are few

from window_aggregator.app import main

if __name__ == "__main__":
    sys.exit(main())
