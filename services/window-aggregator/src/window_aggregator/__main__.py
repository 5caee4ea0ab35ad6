import sys

from window_aggregator.lean import keep_memory_low

if __name__ == "__main__":
    keep_memory_low()
    from window_aggregator.app import main

    sys.exit(main())
