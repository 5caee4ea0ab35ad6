"""PostgreSQL: API keys and roles, file ledger, key fingerprints, audit log."""

from telestream_opstore.connection import open_pool
from telestream_opstore.errors import OpstoreError, OpstoreUnavailable, WrongKey
from telestream_opstore.files import FileEntry, FileLedger, NewFile, Progress, RefusedRow, State
from telestream_opstore.keys import (
    ROLES,
    ApiKey,
    KeyCache,
    check_fingerprints,
    check_fingerprints_async,
    create_key,
    create_key_async,
    ensure_development_key,
    ensure_development_key_async,
    list_keys,
    list_keys_async,
    revoke_key,
    revoke_key_async,
)
from telestream_opstore.migrate import migrate, migrate_async

__all__ = [
    "ROLES",
    "ApiKey",
    "FileEntry",
    "FileLedger",
    "KeyCache",
    "NewFile",
    "OpstoreError",
    "OpstoreUnavailable",
    "Progress",
    "RefusedRow",
    "State",
    "WrongKey",
    "check_fingerprints",
    "check_fingerprints_async",
    "create_key",
    "create_key_async",
    "ensure_development_key",
    "ensure_development_key_async",
    "list_keys",
    "list_keys_async",
    "migrate",
    "migrate_async",
    "open_pool",
    "revoke_key",
    "revoke_key_async",
]
