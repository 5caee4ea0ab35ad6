"""TelestreamError
└── GatewayError
    ├── NotAcknowledged   Kafka did not acknowledge in time: what was sent is unknown, repeating it is harmless
    ├── ProducerLost      the producer is unusable: the process ends and a fresh one starts
    ├── ProfileError      a profile that cannot work
    └── Stopping          the gateway is being stopped
"""

from __future__ import annotations

from telestream_domain import TelestreamError


class GatewayError(TelestreamError):
    pass


class NotAcknowledged(GatewayError):
    pass


class ProducerLost(GatewayError):
    pass


class ProfileError(GatewayError):
    pass


class Stopping(GatewayError):
    pass
