import os
import sys

# one thread owns everything; more of them cost up to a quarter of the CPU time and gain nothing here
os.environ.setdefault("POLARS_MAX_THREADS", "1")

from cdr_enricher.app import main

sys.exit(main())
