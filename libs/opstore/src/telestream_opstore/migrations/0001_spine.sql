-- Keys are kept as hashes only; '*' in sources means every source.
CREATE TABLE api_key (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sha256      bytea NOT NULL UNIQUE,
    name        text NOT NULL,
    roles       text[] NOT NULL,
    sources     text[] NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    revoked_at  timestamptz
);

-- What a secret hashed to at first start: another one would split every subscriber in two.
CREATE TABLE key_fingerprint (
    name         text PRIMARY KEY,
    fingerprint  text NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now()
);

-- Batch ids of requests, taken in ranges; file ids stay far below them.
CREATE SEQUENCE batch_range AS bigint START WITH 1099511627776 INCREMENT BY 100000;

CREATE TABLE file (
    file_id          bigint GENERATED ALWAYS AS IDENTITY (START WITH 1001) PRIMARY KEY,
    source           text NOT NULL,
    name             text NOT NULL,
    type             text NOT NULL,
    profile          text NOT NULL,
    profile_digest   text NOT NULL,
    allow_age_days   bigint,
    state            text NOT NULL CHECK (state IN ('UPLOADING', 'LOADING', 'LOADED', 'LOADED_MISMATCH', 'FAILED', 'DUPLICATE')),
    instance         text NOT NULL,
    content_encoding text,
    upload_offset    bigint NOT NULL DEFAULT 0,
    upload_length    bigint,
    content_digest   text,
    size             bigint,
    read_bytes       bigint NOT NULL DEFAULT 0,
    read_lines       bigint NOT NULL DEFAULT 0,
    rows             bigint NOT NULL DEFAULT 0,
    accepted         bigint NOT NULL DEFAULT 0,
    refused          bigint NOT NULL DEFAULT 0,
    refused_by_code  jsonb NOT NULL DEFAULT '{}',
    totals           jsonb NOT NULL DEFAULT '{}',
    expected         jsonb NOT NULL DEFAULT '{}',
    sent_from        jsonb NOT NULL DEFAULT '{}',
    problem          text,
    duplicate_of     bigint REFERENCES file,
    created_at       timestamptz NOT NULL DEFAULT now(),
    finished_at      timestamptz
);
COMMENT ON COLUMN file.read_bytes IS 'Unpacked bytes whose rows are judged and acknowledged by Kafka';
COMMENT ON COLUMN file.sent_from IS 'Offset per partition from which rows after read_lines may lie in the raw topic';
CREATE INDEX file_by_name ON file (source, name, file_id);
-- One load of one content at a time, and never twice: a failed one may be tried again.
CREATE UNIQUE INDEX file_content ON file (source, type, profile_digest, coalesce(allow_age_days, -1), content_digest)
    WHERE state IN ('LOADING', 'LOADED', 'LOADED_MISMATCH');
CREATE UNIQUE INDEX file_upload ON file (source, type, name) WHERE state = 'UPLOADING';

CREATE TABLE file_refused (
    file_id  bigint NOT NULL REFERENCES file ON DELETE CASCADE,
    line     bigint NOT NULL,
    code     text NOT NULL,
    field    text,
    row      text NOT NULL,
    PRIMARY KEY (file_id, line)
);

CREATE TABLE generation (
    generation   integer NOT NULL,
    type         text NOT NULL,
    settings     jsonb NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (generation, type)
);

CREATE TABLE audit_log (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at       timestamptz NOT NULL DEFAULT now(),
    actor    text NOT NULL,
    action   text NOT NULL,
    detail   jsonb NOT NULL DEFAULT '{}'
);
