"""Plausible mobile traffic with known faults and its own truth.

It shares no code with the pipeline that it tests.
"""

from telestream_simulator.errors import SimulationError
from telestream_simulator.files import Written, write_files
from telestream_simulator.population import populate
from telestream_simulator.scenario import Scenario
from telestream_simulator.truth import Truth

__all__ = ["Scenario", "SimulationError", "Truth", "Written", "populate", "write_files"]
