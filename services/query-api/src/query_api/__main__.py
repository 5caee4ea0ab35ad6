"""``python -m query_api``"""

from query_api.run import main

raise SystemExit(main())
