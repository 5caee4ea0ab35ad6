"""All errors of the simulator.

SimulationError
"""

from __future__ import annotations


class SimulationError(Exception):
    """What was asked cannot be simulated; the message says what to change."""
