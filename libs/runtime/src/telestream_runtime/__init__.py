"""Settings, logging, metrics, health and orderly stop for every service."""

from telestream_domain import TelestreamError
from telestream_runtime.admin import AdminServer, Check
from telestream_runtime.logs import configure_logging, get_logger
from telestream_runtime.metrics import DECLARED, counter, gauge, histogram
from telestream_runtime.service import run_service
from telestream_runtime.settings import HttpSettings, ServiceSettings, SettingsError

__all__ = [
    "DECLARED",
    "AdminServer",
    "Check",
    "HttpSettings",
    "ServiceSettings",
    "SettingsError",
    "TelestreamError",
    "configure_logging",
    "counter",
    "gauge",
    "get_logger",
    "histogram",
    "run_service",
]
