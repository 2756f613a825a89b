-- The bookkeeping of the production manager: the only place where tables are defined.
--
-- One SQLite file, shared by all managers.  People query it with the sqlite3 shell, so the names
-- `datasets`, `productions` and `<type>_v<version>` and their columns are an interface that stays.
--
--   datasets ──────┐                          which runs exist, and what they are
--   productions ───┼──< run ──< attempt ──< output
--   manager ───────┘             │
--   modules ─────────────────────┤
--   place ──< input ─────────────┘
--
-- For each production a view `<type>_v<version>` shows one row a run in the shape that people
-- know; production/store/views.py makes it, since its columns depend on the recipe's outputs.
--
-- Times are UTC text with microseconds: '2026-01-31 23:59:59.123456'.  Where there may be millions
-- of rows, what is stored takes less room (`start_us`: microseconds since 1970), and the column that
-- people read (`start`) is made from it; the same holds for checksums.
-- Rollback journal only: WAL does not work on network filesystems (sqlite.org/wal.html).

PRAGMA application_id = 0x50524d47;  -- 'PRMG'
PRAGMA user_version = 4;             -- the schema's version; production/store/migrations.py

-- Facts about this file: `uuid` tells two databases apart in job names and spool directories.
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

-- ------------------------------------------------------------------------------------- the runs

-- Labels of runs.  A run may stand in several datasets, once in each.
CREATE TABLE datasets (
    run      INTEGER NOT NULL CHECK (typeof(run) = 'integer'),
    dataset  TEXT    NOT NULL CHECK (dataset <> ''),
    tranche  INTEGER CHECK (typeof(tranche) IN ('integer', 'null')),  -- part of it, from 1
    quality  TEXT,                   -- gold, silver, ... or NULL: not judged
    geometry TEXT,
    campaign TEXT,                   -- beam time, where a run list names one
    qual     TEXT GENERATED ALWAYS AS (quality) VIRTUAL,  -- the name of 2014
    PRIMARY KEY (run, dataset)
) WITHOUT ROWID;
CREATE INDEX datasets_by_name ON datasets (dataset, tranche, run);

-- One pass of one program over all runs.
CREATE TABLE productions (
    type     TEXT    NOT NULL,
    version  INTEGER NOT NULL CHECK (version >= 0),
    software TEXT    NOT NULL,       -- the software tag
    start    TEXT,
    stop     TEXT,                   -- when the last run was finished; NULL while any is not F
    base     INTEGER,                -- version of the production whose outputs are the inputs
    base_type TEXT,
    user     TEXT,                   -- who started it
    host     TEXT,
    recipe   TEXT,                   -- text of the recipe file it was started with
    id       INTEGER PRIMARY KEY,
    UNIQUE (type, version),
    FOREIGN KEY (base_type, base) REFERENCES productions (type, version)
);

-- ----------------------------------------------------------------------------------- the people

-- One running (or ended) run_production.py.  Alive as long as `beat` grows within `lease`
-- seconds, counted by the observer's own clock; on the same boot of the same host the process
-- itself is looked at.
CREATE TABLE manager (
    id         INTEGER PRIMARY KEY,
    user       TEXT NOT NULL,
    host       TEXT,
    boot       TEXT,                 -- boot id and pid namespace: where `pid` means something
    pid        INTEGER,
    pid_start  INTEGER,              -- clock ticks after boot; pid and this together are unique
    production INTEGER REFERENCES productions (id),
    started    TEXT,
    lease      INTEGER NOT NULL DEFAULT 600,
    beat       INTEGER NOT NULL DEFAULT 0,
    beat_at    TEXT,
    stopped    TEXT                  -- ended by itself, or found dead by another manager
);

-- What users ask of a running manager, which does it within a cycle and answers: the door through
-- which `production pause`, `queue`, ... come.
CREATE TABLE request (
    id       INTEGER PRIMARY KEY,
    manager  INTEGER NOT NULL REFERENCES manager (id),
    verb     TEXT NOT NULL,          -- pause, resume, queue, nproc, nprep, spacelim, stop, leave, kill
    argument TEXT,
    user     TEXT,                   -- who asked
    host     TEXT,
    made     TEXT,
    answered TEXT,                   -- NULL: not yet
    done     INTEGER CHECK (done IN (0, 1)),  -- whether it was done as asked
    answer   TEXT                    -- what the manager said
);
CREATE INDEX request_open ON request (manager) WHERE answered IS NULL;

-- The text of a modules file, once per content.
CREATE TABLE modules (
    id     INTEGER PRIMARY KEY,
    sha256 TEXT NOT NULL UNIQUE,
    text   TEXT NOT NULL
);

-- --------------------------------------------------------------------------- a production's runs

-- Which changes of a run's status are lawful: checked at every write, whoever writes.
CREATE TABLE lawful_change (
    before  TEXT NOT NULL,
    after   TEXT NOT NULL,
    meaning TEXT NOT NULL,
    PRIMARY KEY (before, after)
) WITHOUT ROWID;
INSERT INTO lawful_change VALUES
    ('N', 'C', 'claimed by a manager'),
    ('C', 'R', 'its job was submitted'),
    ('C', 'N', 'rolled back, or the attempt failed before submission'),
    ('C', 'E', 'the last attempt failed before submission'),
    ('R', 'F', 'the job succeeded and its outputs are recorded'),
    ('R', 'N', 'rolled back, or the attempt failed'),
    ('R', 'E', 'the last attempt failed'),
    ('E', 'N', 'a user wants it tried again'),
    ('F', 'N', 'a user wants it done again');

-- Where each run of each production stands.
CREATE TABLE run (
    production INTEGER NOT NULL REFERENCES productions (id),
    run        INTEGER NOT NULL CHECK (typeof(run) = 'integer'),
    status     TEXT    NOT NULL DEFAULT 'N' CHECK (status IN ('N', 'C', 'R', 'F', 'E')),
    attempt    INTEGER NOT NULL DEFAULT 0,  -- number of the latest attempt; only grows
    token      INTEGER NOT NULL DEFAULT 0,  -- grows with each claim and take-over: a write that
                                            -- names an older token is refused
    failures   INTEGER NOT NULL DEFAULT 0,  -- failed attempts since a user last intervened
    manager    INTEGER REFERENCES manager (id),  -- who holds it while C or R
    not_before TEXT,                        -- not to be claimed before this time (back-off)
    PRIMARY KEY (production, run),
    CHECK ((status IN ('C', 'R')) = (manager IS NOT NULL))
) WITHOUT ROWID;
CREATE INDEX run_at_error ON run (production, run) WHERE status = 'E';
CREATE INDEX run_by_manager ON run (manager) WHERE manager IS NOT NULL;

CREATE TRIGGER run_changes_lawfully BEFORE UPDATE OF status ON run
WHEN NEW.status <> OLD.status
 AND NOT EXISTS (SELECT 1 FROM lawful_change WHERE before = OLD.status AND after = NEW.status)
BEGIN
    SELECT RAISE(ABORT, 'this change of status is not lawful (see table lawful_change)');
END;

CREATE TRIGGER run_token_only_grows BEFORE UPDATE OF token, attempt ON run
WHEN NEW.token < OLD.token OR NEW.attempt < OLD.attempt
BEGIN
    SELECT RAISE(ABORT, 'token and attempt only grow');
END;

-- One try at a run: from the claim to its outcome.  History: a row with an outcome never changes.
CREATE TABLE attempt (
    id          INTEGER PRIMARY KEY,
    production  INTEGER NOT NULL,
    run         INTEGER NOT NULL,
    attempt     INTEGER NOT NULL,
    token       INTEGER,             -- that it was claimed with; part of the job's name
    manager     INTEGER NOT NULL REFERENCES manager (id),  -- who claimed it
    outcome_code INTEGER CHECK (outcome_code IN (0, 1, 2)),  -- see outcome; NULL: lasts
    reason      TEXT,                -- why it failed or was rolled back
    claimed_us  ,                    -- text where an imported database said no more
    start_us    ,                    -- submitted
    stop_us     ,                    -- outcome known
    modules     INTEGER REFERENCES modules (id),  -- frozen before the submission
    batch       TEXT,                -- batch system
    spool       TEXT,                -- directory where the job leaves its records: set before the
                                     -- submission, the intent
    job         TEXT,                -- the batch system's id, set after it
    host        TEXT,                -- node
    job_start_us,                    -- on the node
    job_stop_us ,
    exit_code   INTEGER,
    cpu_ms      INTEGER,             -- CPU time, milliseconds
    peak_memory INTEGER,             -- bytes, as far as it was sampled
    olog        TEXT,                -- standard output and error of the job
    elog        TEXT,
    outcome     TEXT GENERATED ALWAYS AS (CASE outcome_code WHEN 0 THEN 'finished'
        WHEN 1 THEN 'failed' WHEN 2 THEN 'rolled back' END) VIRTUAL,
    cpu_seconds REAL GENERATED ALWAYS AS (cpu_ms / 1000.0) VIRTUAL,
    claimed     TEXT GENERATED ALWAYS AS (CASE typeof(claimed_us) WHEN 'integer' THEN
        datetime(claimed_us / 1000000, 'unixepoch') || printf('.%06d', claimed_us % 1000000)
        ELSE claimed_us END) VIRTUAL,
    start       TEXT GENERATED ALWAYS AS (CASE typeof(start_us) WHEN 'integer' THEN
        datetime(start_us / 1000000, 'unixepoch') || printf('.%06d', start_us % 1000000)
        ELSE start_us END) VIRTUAL,
    stop        TEXT GENERATED ALWAYS AS (CASE typeof(stop_us) WHEN 'integer' THEN
        datetime(stop_us / 1000000, 'unixepoch') || printf('.%06d', stop_us % 1000000)
        ELSE stop_us END) VIRTUAL,
    job_start   TEXT GENERATED ALWAYS AS (CASE typeof(job_start_us) WHEN 'integer' THEN
        datetime(job_start_us / 1000000, 'unixepoch') || printf('.%06d', job_start_us % 1000000)
        ELSE job_start_us END) VIRTUAL,
    job_stop    TEXT GENERATED ALWAYS AS (CASE typeof(job_stop_us) WHEN 'integer' THEN
        datetime(job_stop_us / 1000000, 'unixepoch') || printf('.%06d', job_stop_us % 1000000)
        ELSE job_stop_us END) VIRTUAL,
    inputs      INTEGER REFERENCES attempt (id),  -- which list in table input; NULL: none
    UNIQUE (production, run, attempt),
    FOREIGN KEY (production, run) REFERENCES run (production, run)
);

CREATE TRIGGER attempt_is_history BEFORE UPDATE ON attempt WHEN OLD.outcome IS NOT NULL
BEGIN
    SELECT RAISE(ABORT, 'an attempt with an outcome is history and stays as it is');
END;
CREATE TRIGGER attempt_is_kept BEFORE DELETE ON attempt
BEGIN
    SELECT RAISE(ABORT, 'attempts are history and are kept');
END;

-- Where input files have come from: URLs without a login, once each.
CREATE TABLE place (
    id  INTEGER PRIMARY KEY,
    url TEXT NOT NULL UNIQUE
);

-- The files from archives that attempts have read, recorded before the job is submitted.  Attempts
-- at a run that have read the same, in whichever productions, share a list.
CREATE TABLE input (
    list      INTEGER NOT NULL REFERENCES attempt (id),  -- the first attempt that has read them
    name      TEXT    NOT NULL,      -- the recipe's name for it: raw
    file      TEXT    NOT NULL,      -- relative to the place
    size      INTEGER NOT NULL,      -- bytes
    place     INTEGER REFERENCES place (id),  -- NULL: not known, as another manager fetched it
    kind_code INTEGER CHECK (kind_code IN (0, 1, 2, 3, 4)),  -- see kind
    digest    BLOB,                  -- of what has come; NULL: the archive told none to compare
    kind      TEXT GENERATED ALWAYS AS (CASE kind_code WHEN 0 THEN 'sha256' WHEN 1 THEN 'sha1'
        WHEN 2 THEN 'md5' WHEN 3 THEN 'adler32' WHEN 4 THEN 'crc32' END) VIRTUAL,
    checksum  TEXT GENERATED ALWAYS AS (nullif(lower(hex(digest)), '')) VIRTUAL,
    PRIMARY KEY (list, name, file)
) WITHOUT ROWID;

-- The outputs of a finished attempt, recorded only after they exist.
CREATE TABLE output (
    attempt INTEGER NOT NULL REFERENCES attempt (id),
    name    TEXT    NOT NULL,        -- the recipe's name for it: tree, hist, odb, out
    path    TEXT    NOT NULL,
    size    INTEGER,                 -- bytes
    digest  BLOB,                    -- SHA-256
    sha256  TEXT GENERATED ALWAYS AS (nullif(lower(hex(digest)), '')) VIRTUAL,
    PRIMARY KEY (attempt, name)
) WITHOUT ROWID;

-- ---------------------------------------------------------------------------------- derived
--
-- What follows is derived from the tables above and kept by triggers, so that no question of a
-- manager costs more because there are many runs.  A migration makes it anew.

-- The runs that can be claimed: at N, and where the production has a base, finished there.  Under
-- each of their labels, in the order in which they are claimed.
CREATE TABLE unclaimed (
    production INTEGER NOT NULL,
    dataset    TEXT    NOT NULL,
    quality    TEXT    NOT NULL,     -- '': not judged
    tranche    INTEGER NOT NULL,     -- 0: none
    run        INTEGER NOT NULL,
    PRIMARY KEY (production, dataset, quality, tranche, run)
) WITHOUT ROWID;

-- How many runs stand where.
CREATE TABLE tally (
    production INTEGER NOT NULL,
    status     TEXT    NOT NULL,
    runs       INTEGER NOT NULL,
    PRIMARY KEY (production, status)
) WITHOUT ROWID;

-- All labels of all runs at N that can be claimed; each use chooses some of them.  A run that has no
-- label at all stands in the dataset ''.
CREATE VIEW claimable AS
    SELECT r.production, coalesce(l.dataset, '') AS dataset, coalesce(l.quality, '') AS quality,
           coalesce(l.tranche, 0) AS tranche, r.run
    FROM run r JOIN productions p ON p.id = r.production LEFT JOIN datasets l ON l.run = r.run
    WHERE r.status = 'N'
      AND (p.base IS NULL OR EXISTS
           (SELECT 1 FROM productions b JOIN run i ON i.production = b.id
            WHERE b.type = p.base_type AND b.version = p.base
              AND i.run = r.run AND i.status = 'F'));

CREATE TRIGGER run_new AFTER INSERT ON run
BEGIN
    INSERT INTO tally VALUES (NEW.production, NEW.status, 1)
        ON CONFLICT (production, status) DO UPDATE SET runs = runs + 1;
    INSERT OR IGNORE INTO unclaimed
        SELECT * FROM claimable WHERE production = NEW.production AND run = NEW.run;
END;
CREATE TRIGGER run_changed AFTER UPDATE OF status ON run WHEN NEW.status <> OLD.status
BEGIN
    UPDATE tally SET runs = runs - 1 WHERE production = OLD.production AND status = OLD.status;
    INSERT INTO tally VALUES (NEW.production, NEW.status, 1)
        ON CONFLICT (production, status) DO UPDATE SET runs = runs + 1;
END;
CREATE TRIGGER run_unclaimed_again AFTER UPDATE OF status ON run
WHEN NEW.status = 'N' AND OLD.status <> 'N'
BEGIN
    INSERT OR IGNORE INTO unclaimed
        SELECT * FROM claimable WHERE production = NEW.production AND run = NEW.run;
END;
CREATE TRIGGER run_claimed AFTER UPDATE OF status ON run
WHEN NEW.status <> 'N' AND OLD.status = 'N'
BEGIN
    DELETE FROM unclaimed
    WHERE production = OLD.production AND run = OLD.run
      AND (dataset, quality, tranche) IN
          (SELECT dataset, coalesce(quality, ''), coalesce(tranche, 0)
           FROM datasets WHERE run = OLD.run);
    DELETE FROM unclaimed
    WHERE production = OLD.production AND dataset = '' AND quality = '' AND tranche = 0
      AND run = OLD.run;
END;
-- A run that a base has finished can be claimed in the productions that are made from it.
CREATE TRIGGER run_finished AFTER UPDATE OF status ON run
WHEN NEW.status = 'F' AND OLD.status <> 'F'
BEGIN
    INSERT OR IGNORE INTO unclaimed
        SELECT * FROM claimable
        WHERE run = NEW.run AND production IN
              (SELECT d.id FROM productions b
               JOIN productions d ON d.base_type = b.type AND d.base = b.version
               WHERE b.id = NEW.production);
END;
CREATE TRIGGER run_done_again AFTER UPDATE OF status ON run
WHEN NEW.status <> 'F' AND OLD.status = 'F'
BEGIN
    DELETE FROM unclaimed
    WHERE run = OLD.run
      AND production IN
          (SELECT d.id FROM productions b
           JOIN productions d ON d.base_type = b.type AND d.base = b.version
           WHERE b.id = OLD.production)
      AND (dataset, quality, tranche) IN
          (SELECT dataset, coalesce(quality, ''), coalesce(tranche, 0)
           FROM datasets WHERE run = OLD.run);
    DELETE FROM unclaimed
    WHERE dataset = '' AND quality = '' AND tranche = 0 AND run = OLD.run
      AND production IN
          (SELECT d.id FROM productions b
           JOIN productions d ON d.base_type = b.type AND d.base = b.version
           WHERE b.id = OLD.production);
END;
CREATE TRIGGER run_deleted AFTER DELETE ON run
BEGIN
    UPDATE tally SET runs = runs - 1 WHERE production = OLD.production AND status = OLD.status;
    DELETE FROM unclaimed
    WHERE production = OLD.production AND run = OLD.run
      AND (dataset, quality, tranche) IN
          (SELECT dataset, coalesce(quality, ''), coalesce(tranche, 0)
           FROM datasets WHERE run = OLD.run);
    DELETE FROM unclaimed
    WHERE production = OLD.production AND dataset = '' AND quality = '' AND tranche = 0
      AND run = OLD.run;
END;
CREATE TRIGGER label_new AFTER INSERT ON datasets
BEGIN
    INSERT OR IGNORE INTO unclaimed
        SELECT * FROM claimable WHERE run = NEW.run AND dataset = NEW.dataset
           AND production IN (SELECT id FROM productions);
    DELETE FROM unclaimed
    WHERE production IN (SELECT id FROM productions) AND dataset = '' AND quality = ''
      AND tranche = 0 AND run = NEW.run;
END;
CREATE TRIGGER label_changed AFTER UPDATE OF run, dataset, tranche, quality ON datasets
BEGIN
    DELETE FROM unclaimed
    WHERE production IN (SELECT id FROM productions) AND dataset = OLD.dataset
      AND quality = coalesce(OLD.quality, '') AND tranche = coalesce(OLD.tranche, 0)
      AND run = OLD.run;
    INSERT OR IGNORE INTO unclaimed
        SELECT * FROM claimable WHERE run = NEW.run AND dataset = NEW.dataset
           AND production IN (SELECT id FROM productions);
    DELETE FROM unclaimed
    WHERE production IN (SELECT id FROM productions) AND dataset = '' AND quality = ''
      AND tranche = 0 AND run = NEW.run;
    INSERT OR IGNORE INTO unclaimed
        SELECT * FROM claimable WHERE run = OLD.run AND dataset = ''
           AND production IN (SELECT id FROM productions);
END;
CREATE TRIGGER label_deleted AFTER DELETE ON datasets
BEGIN
    DELETE FROM unclaimed
    WHERE production IN (SELECT id FROM productions) AND dataset = OLD.dataset
      AND quality = coalesce(OLD.quality, '') AND tranche = coalesce(OLD.tranche, 0)
      AND run = OLD.run;
    INSERT OR IGNORE INTO unclaimed
        SELECT * FROM claimable WHERE run = OLD.run AND dataset = ''
           AND production IN (SELECT id FROM productions);
END;
