"""The tables of a run's store, and the statements that are worth wording with care. Text only.

Rules of this file:
1. A change of the tables raises SCHEMA_VERSION.
2. Values are always bound, never written into a statement.
"""

SCHEMA_VERSION = 4
APPLICATION_ID = 0x656E6731  # marks the file as ours
COLUMNS = 11  # of an outcome

# ``finished`` holds all that resuming asks about a row, so that finished rows are passed over without touching
# their records; ``failed`` has entries for failed rows only, so it costs nothing where all goes well.
_STEPS = """
CREATE TABLE step (
    place INTEGER PRIMARY KEY, ok INTEGER NOT NULL, digest INTEGER NOT NULL, attempts INTEGER NOT NULL,
    tokens_in INTEGER NOT NULL, tokens_out INTEGER NOT NULL, crc INTEGER NOT NULL, data BLOB NOT NULL
);
CREATE TABLE step_name (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
"""
_FIGURES_OF_STEPS = """
ALTER TABLE step ADD COLUMN calls INTEGER NOT NULL DEFAULT 0;
ALTER TABLE step ADD COLUMN latency_ms REAL NOT NULL DEFAULT 0.0;
ALTER TABLE step ADD COLUMN model TEXT NOT NULL DEFAULT '';
"""
SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE outcome (
    row INTEGER PRIMARY KEY, ok INTEGER NOT NULL, kind TEXT NOT NULL, digest INTEGER NOT NULL,
    attempts INTEGER NOT NULL, latency_ms REAL, tokens_in INTEGER NOT NULL, tokens_out INTEGER NOT NULL,
    crc INTEGER NOT NULL, record BLOB NOT NULL, sent_s REAL
);
CREATE INDEX finished ON outcome (row, digest, ok);
CREATE INDEX failed ON outcome (kind) WHERE ok = 0;
CREATE TABLE lease (lease INTEGER PRIMARY KEY, rows BLOB NOT NULL);
CREATE TABLE tally (
    kind TEXT PRIMARY KEY, rows INTEGER NOT NULL, attempts INTEGER NOT NULL,
    tokens_in INTEGER NOT NULL, tokens_out INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE run (
    one INTEGER PRIMARY KEY CHECK (one = 1), identity TEXT, total_rows INTEGER,
    in_doubt INTEGER NOT NULL, finished INTEGER NOT NULL
);
INSERT INTO run VALUES (1, NULL, NULL, 0, 0);
{_STEPS}
{_FIGURES_OF_STEPS}
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""  # noqa: S608  two numbers of our own

# From the version before, by version.
MIGRATIONS = {
    1: "BEGIN IMMEDIATE; ALTER TABLE outcome ADD COLUMN sent_s REAL; PRAGMA user_version = 2; COMMIT;",
    2: f"BEGIN IMMEDIATE; {_STEPS} PRAGMA user_version = 3; COMMIT;",
    3: f"BEGIN IMMEDIATE; {_FIGURES_OF_STEPS} PRAGMA user_version = 4; COMMIT;",
}

# Steps of a row that have ended lie together: a place is the row's number and the step's. A step's number is its name's
# for as long as the store lives, wherever in the job it stands.
STEP_NUMBERS = 4096
PUT_STEP = "INSERT OR REPLACE INTO step VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
STEPS_BETWEEN = """
SELECT place, ok, digest, attempts, tokens_in, tokens_out, crc, CAST(data AS BLOB), calls, latency_ms, model
FROM step
WHERE place >= ? AND place < ? ORDER BY place
"""

ADD_TO_TALLY = """
INSERT INTO tally VALUES (?, ?, ?, ?, ?) ON CONFLICT (kind) DO UPDATE SET
    rows = rows + excluded.rows, attempts = attempts + excluded.attempts,
    tokens_in = tokens_in + excluded.tokens_in, tokens_out = tokens_out + excluded.tokens_out
"""

# Both are read page by page: after which row, how many at most. A damaged file may give a record another type;
# as bytes it gets to its checksum.
FINISHED_AFTER = "SELECT row, digest, ok FROM outcome INDEXED BY finished WHERE row > ? ORDER BY row LIMIT ?"
RECORDS_AFTER = """
SELECT row, ok, digest, crc, CAST(coalesce(record, '') AS BLOB) FROM outcome WHERE row > ? ORDER BY row LIMIT ?
"""

SENT_SINCE = 2  # the version
SENT = "SELECT sent_s FROM outcome WHERE sent_s > 0"


def insert_outcomes(rows: int) -> str:
    """The statement that inserts that many outcomes at once; it takes ``rows * COLUMNS`` values."""
    one = "(" + ", ".join("?" * COLUMNS) + ")"
    return "INSERT INTO outcome VALUES " + ", ".join([one] * rows)  # noqa: S608  question marks only
