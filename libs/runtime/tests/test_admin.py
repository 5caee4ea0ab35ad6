import json
import socket
import urllib.error
import urllib.request

import pytest

from telestream_runtime import AdminServer, TelestreamError


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_readiness_names_what_is_missing_and_liveness_stays_good() -> None:
    port = _free_port()
    missing: list[str | None] = ["Kafka does not answer"]
    server = AdminServer("127.0.0.1", port, {"kafka": lambda: missing[0]}).start()
    try:
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5)
        assert caught.value.code == 503
        assert json.load(caught.value) == {"ok": False, "missing": {"kafka": "Kafka does not answer"}}
        missing[0] = None
        for path in ("/readyz", "/livez", "/metrics"):
            assert urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5).status == 200
        with pytest.raises(TelestreamError, match="TELESTREAM_ADMIN_PORT"):
            AdminServer("127.0.0.1", port, {}).start()
    finally:
        server.stop()
