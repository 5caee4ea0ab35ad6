"""PostgreSQL: API keys and roles, file ledger, key fingerprints, generations, audit log."""

from telestream_opstore.connection import open_pool
from telestream_opstore.errors import OpstoreError, OpstoreUnavailable, WrongKey
from telestream_opstore.files import FileEntry, FileLedger, NewFile, Progress, RefusedRow, State
from telestream_opstore.generations import INSTALLATION, Fixed, fix_generation, fix_generation_async
from telestream_opstore.keys import (
    ALL_SOURCES,
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
from telestream_opstore.mirror import Declared, Mirror, Numbered, StateCount

__all__ = [
    "ALL_SOURCES",
    "INSTALLATION",
    "ROLES",
    "ApiKey",
    "Declared",
    "FileEntry",
    "FileLedger",
    "Fixed",
    "KeyCache",
    "Mirror",
    "NewFile",
    "Numbered",
    "OpstoreError",
    "OpstoreUnavailable",
    "Progress",
    "RefusedRow",
    "State",
    "StateCount",
    "WrongKey",
    "check_fingerprints",
    "check_fingerprints_async",
    "create_key",
    "create_key_async",
    "ensure_development_key",
    "ensure_development_key_async",
    "fix_generation",
    "fix_generation_async",
    "list_keys",
    "list_keys_async",
    "migrate",
    "migrate_async",
    "open_pool",
    "revoke_key",
    "revoke_key_async",
]
