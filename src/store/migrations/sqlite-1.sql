CREATE TABLE nas (
    ds_id          TEXT PRIMARY KEY,
    key_thumbprint BLOB NOT NULL UNIQUE,
    public_key     BLOB NOT NULL,
    serial_tag     BLOB NOT NULL,
    model          TEXT NOT NULL,
    enrolled_at    INTEGER NOT NULL,
    status         TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE enrolment_token (hash BLOB PRIMARY KEY) STRICT, WITHOUT ROWID;
