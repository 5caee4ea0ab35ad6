import sys

from telestream_runtime import run_service
from warehouse_sink.app import run
from warehouse_sink.lean import keep_pandas_out
from warehouse_sink.settings import SinkSettings

if __name__ == "__main__":
    keep_pandas_out()
    sys.exit(run_service("warehouse-sink", SinkSettings, run))
