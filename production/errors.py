"""Every failure that a user can cause or meet, as one tree.

The docstring of a class is the text that the user reads; ``{names}`` in it are filled from the
keyword arguments that the error was raised with, ``{name_in_shell}`` as a shell must read it, for
commands that are to be copied.  ``exit_code`` is what the program exits with when the error ends
it; docs/exit-codes.md lists them all, and a test keeps that list complete.

::

    ProductionError
    ├── UsageError             2   an option or argument is wrong
    ├── ConfigurationError     3
    ├── RecipeError            4
    ├── StoreError            10…19
    ├── ModulesUnreadable     20
    ├── NetrcError            21
    ├── TransferError         22…25
    ├── ProbeFailed           26   the space probe
    ├── CommandError          27   an external command
    ├── BatchError            30
    ├── SpoolTrouble          31   a job's own directory
    ├── RecordDamaged         32
    ├── RunsFailed            40   everything was tried, some runs stand at E
    ├── DisplayUnavailable    41   the terminal cannot show it
    ├── TooManyFailures       42   something common to all jobs must be broken
    ├── RequestUnheeded       43   a running manager did not do what it was asked
    ├── SetupDoubtful         44   the doctor has warnings
    ├── SetupBroken           45   the doctor has found errors
    ├── FilesAmiss            46   files are not what the bookkeeping says
    ├── BackupUnusable        47
    ├── ChangeRefused         48   runs are not as they would have to be
    ├── FileUnwritable        49   one that a command was to write
    ├── WaitedTooLong         50   what was waited for has not come in time
    ├── WaitedInVain          51   and cannot come any more
    ├── NoticeNotSent         52   mail to whoever is to be told
    ├── ExtraMissing          53   a package that not everybody installs
    └── Interrupted          128+signal
"""

from __future__ import annotations

import errno
import inspect
import signal

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class ProductionError(Exception):
    """{text}"""

    exit_code = 1

    def __init__(self, **fields: object) -> None:
        self.fields = fields
        template = " ".join(inspect.cleandoc(type(self).__doc__ or "").split())
        if "_in_shell}" in template:
            from shlex import quote

            quoted = {f"{name}_in_shell": quote(str(value)) for name, value in fields.items()}
            fields = {**fields, **quoted}
        super().__init__(template.format(**fields))


# --------------------------------------------------------------------------- what the user typed


class UsageError(ProductionError):
    """{text}"""

    exit_code = 2


class ConfigurationError(ProductionError):
    """Configuration {where}: {what}"""

    exit_code = 3


class RecipeError(ProductionError):
    """Recipe {where}: {what}"""

    exit_code = 4


class UnknownRecipe(RecipeError):
    """There is no recipe for --production={name}. Known recipes: {known}. Your own recipe is a
    file {name}.toml beside the database or in a directory named under [recipes] in the
    configuration.
    """


# --------------------------------------------------------------------------- the bookkeeping


class StoreError(ProductionError):
    """Database {path}: {what}"""

    exit_code = 10


class DatabaseMissing(StoreError):
    """Database {path} does not exist. Create it with: production init --database={path_in_shell}"""


class NotADatabase(StoreError):
    """{path} is not a production database: {what}. Create a new one with: production init
    --database=FILE (one of the 2014 or 2016 layout is taken over with: production import
    {path_in_shell})
    """

    exit_code = 11


class DatabaseReadOnly(StoreError):
    """Database {path} cannot be written by {user}: {what}. Ask its owner for group write on the
    file and on its directory (chmod g+w), or work on a private copy with --database.
    """

    exit_code = 12


class JournalLeft(DatabaseReadOnly):
    """Database {path}: a program was killed in the midst of a change. Before anybody can read,
    its journal must be played back, which {user} may not do here. Somebody who may write does so
    with any command, such as: production status --database={path_in_shell}
    """


class DatabaseTooNew(StoreError):
    """Database {path} has schema version {found}, this program knows versions up to {known}.
    Use the newer program that your colleagues use.
    """

    exit_code = 13


class DatabaseTooOld(StoreError):
    """Database {path} has schema version {found}, this program needs {known}. Bring it up to date,
    when nobody works with an older program any more, with: production migrate
    --database={path_in_shell}
    """

    exit_code = 13


class DatabaseLocked(StoreError):
    """Database {path} stayed locked for {seconds} s{holder}. Close interactive sqlite3 sessions
    that hold a transaction open, then start again; nothing is lost.
    """

    exit_code = 14


class DatabaseExists(StoreError):
    """{path} exists already; it was left as it is. Name another with --database."""

    exit_code = 15


class FileExists(StoreError):
    """{path} exists already; it was left as it is. Name another, or replace it with --force."""

    exit_code = 15


class DatabaseTrouble(StoreError):
    """Database {path}: {what}. Check the filesystem (space, quota, permissions); nothing that was
    recorded is lost.
    """

    exit_code = 16


class DatabaseDamaged(StoreError):
    """Database {path} is damaged: {what}. Stop all managers; keep a copy of the file; then restore
    the last backup, or what the sqlite3 shell can still read of it (.recover)
    """

    exit_code = 16


class UnknownDataset(StoreError):
    """There is no dataset {name}. Valid datasets: {known}"""

    exit_code = 17


class UnknownLabel(StoreError):
    """No run of any dataset has {what} {name}. There are: {known}"""

    exit_code = 17


class UnknownProduction(StoreError):
    """{what}"""

    exit_code = 18


class NotRecorded(StoreError):
    """{what}"""

    exit_code = 18


class ImportRefused(StoreError):
    """{where}: {what}. Nothing was imported."""

    exit_code = 19


# --------------------------------------------------------------------------- input


class ModulesUnreadable(ProductionError):
    """Modules file {path} cannot be read: {what}. Name a readable one with --modules=FILE."""

    exit_code = 20


class NetrcError(ProductionError):
    """Login for {host} in {path}: {what}"""

    exit_code = 21


class NoLogin(NetrcError):
    """Login for {host} in {path}: {what}"""


class TransferError(ProductionError):
    """Transfer of {file} from {host}: {what}"""

    exit_code = 22


class FileMissing(TransferError):
    """{file} is not on the archive {host} ({what})"""


class NotOnDisk(TransferError):
    """{file} is still on tape at {host} ({what})"""


class TransferFailed(TransferError):
    """Download of {file} from {host} failed: {what}"""


class ChecksumWrong(TransferFailed):
    """Download of {file} from {host} is damaged: {what}"""


class ChecksumMissing(TransferFailed):
    """{file} has no checksum at {host}: {what}"""


class ResumeRefused(TransferFailed):
    """Download of {file} from {host} cannot go on in the middle: {what}"""


class LocalTrouble(TransferFailed):
    """Download of {file} from {host} cannot be written: {what}"""


class TransferStopped(TransferError):
    """Download of {file} from {host} was stopped"""


class ArchiveUnavailable(TransferError):
    """Archive {host} cannot be reached: {what}"""

    exit_code = 23


class ArchiveLoginRefused(ArchiveUnavailable):
    """Archive {host} refused the login: {what}. Check the entry for {host} in the netrc file."""

    exit_code = 24


class KeyLoginRefused(ArchiveUnavailable):
    """Archive {host} refused the login: {what}. Check your keys and its name: ssh {host}"""

    exit_code = 24


class KeyLocked(KeyLoginRefused):
    """Archive {host} cannot be logged in at: the key {path} has a passphrase, for which nobody is
    asked here, and {what}. Give it to the agent in the shell where managers are started:
    ssh-add {path}
    """


class RootLoginRefused(ArchiveUnavailable):
    """Archive {host} refused the login: {what}. Check what you show it (ticket, proxy, token) by
    hand: xrdfs {host} ls /
    """

    exit_code = 24


# --------------------------------------------------------------------------- the outside world


class ProbeFailed(ProductionError):
    """The space on {where} could not be found out: {what}"""

    exit_code = 26


class NoQuotaSet(ProbeFailed):
    """The space on {where} could not be found out: no quota is set there"""


class CommandError(ProductionError):
    """Command `{command}` failed: {what}"""

    exit_code = 27


class CommandTimeout(CommandError):
    """Command `{command}` did not answer within {seconds:g} s"""


class CommandMissing(CommandError):
    """Command `{command}` was not found; is it on the PATH?"""


class BatchError(ProductionError):
    """Batch system {system}: {what}"""

    exit_code = 30


class SubmissionRefused(BatchError):
    """Batch system {system} refused the job: {what}"""


class QueryFailed(BatchError):
    """Batch system {system} did not answer: {what}. The jobs are taken as unchanged."""


class NotSupported(BatchError):
    """Batch system {system} cannot do that: {what}"""


class SpoolTrouble(ProductionError):
    """Spool {path}: {what}. Check the filesystem (space, quota, permissions)."""

    exit_code = 31


class NoSpaceLeft(SpoolTrouble):
    """No space is left for {path}: {what}"""


class NoSpaceForJob(SubmissionRefused, NoSpaceLeft):
    """Batch system {system} has no space left for the job's files: {what}"""


class RecordDamaged(ProductionError):
    """Exit record {path} is damaged: {what}"""

    exit_code = 32


class DisplayUnavailable(ProductionError):
    """The display cannot be shown: {what}. Run without --display"""

    exit_code = 41


# --------------------------------------------------------------------------- how a manager ends


class RunsFailed(ProductionError):
    """Runs of this production stand at E ({count}): {runs}. See the reasons with: sqlite3
    {database_in_shell} "SELECT run, reason FROM {table} WHERE status='E'"; try them again with:
    production retry --production={type} --version={version}
    --database={database_in_shell}
    """

    exit_code = 40


class SetupDoubtful(ProductionError):
    """{warnings}: {checks}. What to do is told with each."""

    exit_code = 44


class SetupBroken(ProductionError):
    """{errors} and {warnings}: {checks}. What to do is told with each."""

    exit_code = 45


class FilesAmiss(ProductionError):
    """Not as recorded: {what}. Nothing was changed."""

    exit_code = 46


class BackupUnusable(ProductionError):
    """{path} cannot be restored: {what}. Nothing was made of it."""

    exit_code = 47


class ChangeRefused(ProductionError):
    """{what}"""

    exit_code = 48


class FileUnwritable(ProductionError):
    """{path} cannot be written: {what}"""

    exit_code = 49


class WaitedTooLong(ProductionError):
    """{label}: {until} was not reached within {seconds:g} s; {counts}"""

    exit_code = 50


class WaitedInVain(ProductionError):
    """{label}: {until} cannot be reached any more, for nothing is left to be done; {counts}"""

    exit_code = 51


class NoticeNotSent(ProductionError):
    """A notice could not be sent by the {way}: {what}. See [notify] in the configuration"""

    exit_code = 52


class ExtraMissing(ProductionError):
    """`{what}` needs {package}, which is not installed here: pip install
    'production-manager[{extra}]'
    """

    exit_code = 53


class RequestUnheeded(ProductionError):
    """{what}"""

    exit_code = 43


class TooManyFailures(ProductionError):
    """Too many have failed: {what}, the last one run {run}: {reason}. Nothing more was submitted.
    Mend the cause and start again, or allow more with --max-failures
    """

    exit_code = 42


class Interrupted(ProductionError):
    """Stopped by {signal}"""

    def __init__(self, signum: int) -> None:
        super().__init__(signal=signal.Signals(signum).name)
        self.signum = signum
        self.exit_code = 128 + signum


def file_trouble(path: object, error: OSError) -> SpoolTrouble:
    """What the operating system's refusal means: no space is nobody's fault and passes."""
    kind = NoSpaceLeft if error.errno in _NO_SPACE else SpoolTrouble
    return kind(path=path, what=error.strerror or error)


def submission_trouble(system: str, error: OSError) -> SubmissionRefused:
    """The same for a file that a job needs before it can be submitted."""
    kind = NoSpaceForJob if error.errno in _NO_SPACE else SubmissionRefused
    return kind(system=system, what=f"{error.filename}: {error.strerror}")
