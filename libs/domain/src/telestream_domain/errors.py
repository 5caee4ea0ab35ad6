"""The root of every error a user may see.

TelestreamError
├── RuleChangesError      (domain)     a rule file that cannot judge, all its mistakes at once
├── SettingsError         (runtime)    settings that cannot work, all of them at once
├── ContractError         (contracts)  schemas, topics or registry not as the code expects
├── WarehouseError        (warehouse)  ClickHouse refuses or is not as the migrations left it
└── OpstoreError          (opstore)    PostgreSQL refuses or is not as the migrations left it
"""

from __future__ import annotations


class TelestreamError(Exception):
    """Its text is one line for who reads it at night: what was tried, on what, what to do."""
