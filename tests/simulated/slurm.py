"""SLURM 22.05, after its manual pages and recorded output."""

from __future__ import annotations

import getopt
import pwd
import re
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from simulated.call import (
    Answer,
    Call,
    NotSimulatedError,
    Options,
    RefusedError,
    getopt_options,
    table,
)
from simulated.cluster import Cluster, End, Job, Request, State
from simulated.dialect import Dialect

CLUSTER = "tests"

_SBATCH = (
    "account=,A array=,a chdir=,D clusters=,M comment= cpus-per-task=,c error=,e export= hold,H "
    "job-name=,J mem= no-requeue nodes=,N ntasks=,n output=,o parsable partition=,p requeue "
    "time=,t "
    # Without an effect here:
    "begin=,b constraint=,C exclude=,x gres= input=,i licenses=,L mail-type= mail-user= "
    "mem-per-cpu= nice= nodelist=,w oversubscribe,s priority= qos=,q quiet,Q reservation= signal= "
    "tmp= verbose,v wckey="
)
_SQUEUE = (
    "all,a array,r clusters=,M format=,o jobs=,j me name=,n noheader,h partition=,p sort=,S "
    "states=,t user=,u"
)
_SCANCEL = "clusters=,M jobname=,n name= partition=,p quiet,Q state=,t user=,u verbose,v"
_SACCT = (
    "allocations,X clusters=,M duplicates,D format=,o jobs=,j noheader,n parsable,p parsable2,P "
    "starttime=,S endtime=,E name= state=,s user=,u allusers,a"
)
_SCONTROL = "clusters=,M oneliner,o quiet,Q all,a"

_ENDED = {
    End.CANCELLED: "CANCELLED",
    End.OVER_TIME: "TIMEOUT",
    End.OVER_MEMORY: "OUT_OF_MEMORY",
    End.NODE_FAILED: "NODE_FAIL",
    End.NOT_STARTED: "FAILED",
}
_SHORT = table(
    "PENDING:PD RUNNING:R SUSPENDED:S COMPLETED:CD CANCELLED:CA FAILED:F TIMEOUT:TO "
    "OUT_OF_MEMORY:OOM NODE_FAIL:NF"
)
_ACTIVE = ("PENDING", "RUNNING", "SUSPENDED")
_HOLDERS = {"user": "JobHeldUser", "admin": "JobHeldAdmin"}
_UNKNOWN_ID = "Invalid job id specified"
_NO_CONTACT = "Unable to contact slurm controller (connect failure)"
_SOCKET = "Socket timed out on send/recv operation"


class Slurm(Dialect):
    """sbatch, squeue, scancel, sacct, scontrol."""

    name = "slurm"
    commands = ("sbatch", "squeue", "scancel", "sacct", "scontrol")
    submission = "sbatch"
    query = "squeue"
    questions = ("squeue", "sacct")
    takes_what_it_did_not_answer = True

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self._do = {
            "sbatch": (self._sbatch, _SBATCH),
            "squeue": (self._squeue, _SQUEUE),
            "scancel": (self._scancel, _SCANCEL),
            "sacct": (self._sacct, _SACCT),
            "scontrol": (self._scontrol, _SCONTROL),
        }

    def obey(self, call: Call) -> Answer:
        """See Dialect."""
        do, known = self._do[call.name]
        try:
            options = getopt_options(call.arguments, known, mixed=call.name != "sbatch")
        except getopt.GetoptError as error:
            help_ = f'Try "{call.name} --help" for more information'
            raise RefusedError(f"{call.name}: {error.msg}\n{help_}\n") from None
        wanted = options.get("clusters", CLUSTER)
        if wanted != CLUSTER:
            raise RefusedError(
                f"{call.name}: error: '{wanted}' can't be reached now, or it is an invalid entry "
                "for --cluster.  Use 'sacctmgr list clusters' to see available clusters.\n"
            )
        return do(call, options)

    def failure(self, call: Call, chance: float) -> Answer:
        """See Dialect."""
        what = _SOCKET if chance < 0.5 else _NO_CONTACT
        said = {
            "sbatch": f"sbatch: error: Batch job submission failed: {what}",
            "squeue": f"slurm_load_jobs error: {what}",
            "scancel": f"scancel: error: Kill job error on job id 1: {what}",
            "sacct": "sacct: error: slurm_persist_conn_open_without_init: failed to open "
            "persistent connection to host:localhost:6819: Connection refused\n"
            "sacct: error: Problem talking to the database: Connection refused",
            "scontrol": f"slurm_update error: {what}",
        }
        return Answer(stderr=f"{said[call.name]}\n", code=1)

    def variables(self, job: Job) -> Mapping[str, str]:
        """See Policy."""
        array = (
            {"SLURM_ARRAY_JOB_ID": str(job.number), "SLURM_ARRAY_TASK_ID": str(job.index)}
            if job.index is not None
            else {}
        )
        return {
            **array,
            "SLURM_JOB_ID": str(job.number),
            "SLURM_JOB_NAME": job.name,
            "SLURM_JOB_PARTITION": job.queue,
            "SLURM_CPUS_PER_TASK": str(job.request.cores),
        }

    # ----------------------------------------------------------------- sbatch

    def _sbatch(self, call: Call, options: Options) -> Answer:
        if options.operands:
            raise NotSimulatedError(f"sbatch {options.operands}")
        if not call.stdin.startswith("#!"):
            raise RefusedError(
                "sbatch: error: This does not look like a batch script.  The first\n"
                "sbatch: error: line must start with #! followed by the path to an interpreter.\n"
                "sbatch: error: For instance: #!/bin/sh\n"
            )
        queue = options.get("partition", self.terms.queues[0])
        if queue not in self.terms.queues:
            raise _not_submitted(
                "Invalid partition name specified", f"invalid partition specified: {queue}"
            )
        cores = int(options.get("cpus-per-task", "1")) * int(options.get("ntasks", "1"))
        memory = _bytes(options.get("mem"))
        if cores > self.terms.node_cores or (memory or 0) > self.terms.memory:
            what = "CPU count" if cores > self.terms.node_cores else "Memory specification"
            raise _not_submitted(
                "Requested node configuration is not available", f"{what} can not be satisfied"
            )
        indices, at_once = self._array(options.get("array"))
        request = Request(
            name=options.get("job-name", "sbatch"),
            owner=call.user,
            uid=call.uid,
            script=call.stdin,
            directory=options.get("chdir", call.directory),
            environment=_environment(call, options.get("export", "ALL")),
            queue=queue,
            indices=indices,
            at_once=at_once,
            held="user" if "hold" in options else "",
            cores=cores,
            memory=memory,
            time=_seconds(options.get("time")),
            project=options.get("account"),
            output=options.get("output", "/dev/null"),
            errors=options.get("error", "/dev/null"),
            farewell=(signal.SIGTERM, signal.SIGKILL),
        )
        number = self.cluster.submit(request)[0].number
        if "parsable" not in options:
            return Answer(f"Submitted batch job {number}\n")
        return Answer(f"{number};{CLUSTER}\n" if "clusters" in options else f"{number}\n")

    def _array(self, text: str) -> tuple[tuple[int, ...] | None, int | None]:
        if not text:
            return None, None
        ranges, _, limit = text.partition("%")
        try:
            indices = tuple(index for part in ranges.split(",") for index in _range(part))
            at_once = int(limit) if limit else None
        except ValueError:
            indices, at_once = (), None
        if not indices or max(indices) > self.terms.largest_array:
            raise _not_submitted("Invalid job array specification")
        return indices, at_once

    # ----------------------------------------------------------------- squeue

    def _squeue(self, call: Call, options: Options) -> Answer:
        jobs = self.cluster.listed()
        if ids := _words(options, "jobs"):
            chosen = [job for text in ids for job in self._named(text) if job in jobs]
            if not chosen and len(ids) == 1:
                raise RefusedError(f"slurm_load_jobs error: {_UNKNOWN_ID}\n")
            jobs = [job for job in jobs if job in chosen]
        if users := (_words(options, "user") or ([call.user] if "me" in options else [])):
            uids = {_uid(user) for user in users}
            jobs = [job for job in jobs if job.request.uid in uids]
        if names := _words(options, "name"):
            jobs = [job for job in jobs if job.name in names]
        if queues := _words(options, "partition"):
            jobs = [job for job in jobs if job.queue in queues]
        states = [state.upper() for state in _words(options, "states")] or list(_ACTIVE)
        if "ALL" not in states:
            jobs = [j for j in jobs if _state(j) in states or _SHORT[_state(j)] in states]
        form = options.get("format", "%.18i %.9P %.8j %.8u %.2t %.10M %.6D %R")
        lines = [] if "noheader" in options else [_fill(form, None, "")]
        lines += [
            _fill(form, some[0], _ids(some))
            for some in (([job] for job in jobs) if "array" in options else _together(jobs))
        ]
        return Answer("".join(f"{line}\n" for line in lines))

    def _named(self, text: str) -> list[Job]:
        number, _, index = text.partition("_")
        if not number.isdecimal() or (index and not index.isdecimal()):
            raise RefusedError(f"slurm_load_jobs error: {_UNKNOWN_ID}\n")
        return self.cluster.find(int(number), int(index) if index else None)

    # ----------------------------------------------------------------- scancel

    def _scancel(self, call: Call, options: Options) -> Answer:
        jobs = [job for job in self.cluster.listed() if job.state is not State.ENDED]
        said = ""
        if options.operands:
            chosen = []
            for text in options.operands:
                named = [job for job in self._named(text) if job in jobs]
                if not named and "quiet" not in options:
                    said += f"scancel: error: Kill job error on job id {text}: {_UNKNOWN_ID}\n"
                chosen += named
            jobs = chosen
        elif not options.given:
            raise RefusedError("scancel: error: No job identification provided\n")
        for key, value in (("user", "owner"), ("name", "name"), ("jobname", "name")):
            if key in options:
                jobs = [job for job in jobs if getattr(job.request, value) == options.get(key)]
        for job in jobs:
            if call.uid not in (0, job.request.uid):
                said += f"scancel: error: Kill job error on job id {_id(job)}: Access/permission "
                said += "denied\n"
            else:
                self.cluster.cancel(job, call.user)
        return Answer(stderr=said, code=1 if said else 0)

    # ----------------------------------------------------------------- sacct

    def _sacct(self, call: Call, options: Options) -> Answer:
        if not self.terms.accounting:
            raise RefusedError("Slurm accounting storage is disabled\n")
        final = set(self.cluster.accounted())
        jobs = list(self.cluster.all())
        if ids := _words(options, "jobs"):
            jobs = [job for text in ids for job in self._named(text)]
        elif "allusers" not in options:
            jobs = [job for job in jobs if job.request.uid == call.uid]
        if not {"parsable", "parsable2"} & {name for name, _ in options.given}:
            raise NotSimulatedError("sacct without --parsable2")
        fields = [field.partition("%")[0] for field in _words(options, "format")]
        known = _account(jobs[0], late=False) if jobs else {}
        for field in fields:
            if jobs and field.lower() not in known:
                raise NotSimulatedError(f"sacct --format={field}")
        end = "|" if "parsable" in options else ""
        lines = [] if "noheader" in options else ["|".join(fields) + end]
        for job in jobs:
            # While the news of its end is under way, accounting takes a job for a running one; of
            # some it has not even heard that they started.
            late = job.state is State.ENDED and job not in final
            if late and (job.number + (job.index or 0)) % 2:
                continue
            values = _account(job, late)
            lines.append("|".join(values[field.lower()] for field in fields) + end)
            if "allocations" not in options and job.starts:
                values["jobid"] += ".batch"
                lines.append("|".join(values[field.lower()] for field in fields) + end)
        return Answer("".join(f"{line}\n" for line in lines))

    # ----------------------------------------------------------------- scontrol

    def _scontrol(self, call: Call, options: Options) -> Answer:
        verb, *rest = options.operands
        if verb == "update":
            settings = dict(word.split("=", 1) for word in rest)
            lower = {key.lower(): value for key, value in settings.items()}
            ids = lower.pop("jobid")
            return self._each(call, ids, lambda job: self._update(job, lower), "slurm_update error")
        if verb == "show" and rest and rest[0].lower() in {"job", "jobs"}:
            return self._show(rest[1:], "oneliner" in options)
        actions = {
            "hold": self._hold,
            "release": self._release,
            "suspend": self._suspend,
            "resume": self._resume,
        }
        if verb not in actions:
            raise NotSimulatedError(f"scontrol {verb}")
        do = actions[verb]
        return self._each(call, ",".join(rest), do, f"slurm_{verb} error")

    def _each(self, call: Call, ids: str, do: object, error: str) -> Answer:
        assert callable(do)
        said = ""
        for text in ids.split(","):
            jobs = [job for job in self._named(text) if job in self.cluster.listed()]
            trouble = _UNKNOWN_ID if not jobs else ""
            for job in jobs:
                denied = call.uid not in (0, job.request.uid)
                trouble = "Access/permission denied" if denied else do(job) or trouble
            if trouble:
                said += f"{error}: {trouble}\n" if "," not in ids else f"{text}: {trouble}\n"
        return Answer(stderr=said, code=1 if said else 0)

    def _update(self, job: Job, settings: Mapping[str, str]) -> str:
        for key, value in settings.items():
            if key != "partition":
                raise NotSimulatedError(f"scontrol update {key}")
            if value not in self.terms.queues:
                return "Invalid partition name specified"
            if job.state is not State.WAITING:
                return "Job is no longer pending execution"
            job.queue = value
        return ""

    def _hold(self, job: Job) -> str:
        if job.state is not State.WAITING:
            return "Job is no longer pending execution"
        self.cluster.hold(job, "user")
        return ""

    def _release(self, job: Job) -> str:
        self.cluster.release(job)
        return ""

    def _suspend(self, job: Job) -> str:
        if job.state is not State.RUNNING:
            return "Job is pending execution"
        self.cluster.suspend(job)
        return ""

    def _resume(self, job: Job) -> str:
        if not job.suspended:
            return "Job is not suspended"
        self.cluster.resume(job)
        return ""

    def _show(self, ids: Sequence[str], one_line: bool) -> Answer:
        listed = self.cluster.listed()
        jobs = [job for text in ids for job in self._named(text)] if ids else listed
        jobs = [job for job in jobs if job in listed]
        if ids and not jobs:
            raise RefusedError(f"slurm_load_jobs error: {_UNKNOWN_ID}\n")
        gap, after = (" ", "\n") if one_line else ("\n   ", "\n\n")
        return Answer("".join(gap.join(_shown(job)) + after for job in jobs))


# ---------------------------------------------------------------------- how things are written


def _not_submitted(what: str, before: str = "") -> RefusedError:
    first = f"sbatch: error: {before}\n" if before else ""
    return RefusedError(f"{first}sbatch: error: Batch job submission failed: {what}\n")


def _words(options: Options, name: str) -> list[str]:
    return [word for text in options.all(name) for word in text.split(",") if word]


def _uid(user: str) -> int:
    if user.isdecimal():
        return int(user)
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        raise RefusedError(f"squeue: error: Invalid user: {user}\n") from None


def _environment(call: Call, export: str) -> dict[str, str]:
    names = [word for word in export.split(",") if word and word not in {"ALL", "NONE"}]
    set_ = dict(word.split("=", 1) for word in names if "=" in word)
    if "ALL" in export.split(","):
        return {**call.environment, **set_}
    kept = {name: value for name, value in call.environment.items() if name in names}
    return {"HOME": call.home, "PATH": "/usr/local/bin:/usr/bin:/bin", **kept, **set_}


def _bytes(text: str) -> int | None:
    match = re.fullmatch(r"(\d+)([KMGT]?)", text)
    if not match:
        if text:
            raise RefusedError(f"sbatch: error: Invalid --mem specification: {text}\n")
        return None
    power = {"K": 10, "": 20, "M": 20, "G": 30, "T": 40}[match[2]]
    return int(match[1]) << power


def _seconds(text: str) -> float | None:
    """MINUTES, MINUTES:SECONDS, HOURS:MINUTES:SECONDS, DAYS-HOURS[:MINUTES[:SECONDS]]."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text)
    if not match:
        if text:
            raise RefusedError("sbatch: error: Invalid --time specification\n")
        return None
    days, first, second, third = (int(part or 0) for part in match.groups())
    if match[1] or match[4]:
        return ((days * 24 + first) * 60 + second) * 60 + third
    return first * 60 + second


def _range(text: str) -> range:
    span, _, step = text.partition(":")
    first, _, last = span.partition("-")
    return range(int(first), int(last or first) + 1, int(step or 1))


def _state(job: Job) -> str:
    if job.state is State.WAITING:
        return "PENDING"
    if job.state is State.RUNNING:
        return "SUSPENDED" if job.suspended else "RUNNING"
    if job.end is End.ITSELF or job.end is None:
        return "FAILED" if job.status else "COMPLETED"
    return _ENDED[job.end]


def _reason(job: Job) -> str:
    if job.state is State.WAITING:
        return _HOLDERS[job.held] if job.held else "Resources"
    return {"FAILED": "NonZeroExitCode", "TIMEOUT": "TimeLimit"}.get(_state(job), "None")


def _exit_code(job: Job) -> str:
    if job.end in {End.CANCELLED, End.OVER_TIME} or job.status is None:
        return "0:53" if job.end is End.NOT_STARTED else "0:0"
    if job.end is End.OVER_MEMORY:
        return "0:125"
    return f"{job.status}:0" if job.status >= 0 else f"0:{-job.status}"


def _id(job: Job) -> str:
    return str(job.number) if job.index is None else f"{job.number}_{job.index}"


def _together(jobs: Sequence[Job]) -> Iterator[list[Job]]:
    """Elements of an array that wait share a line, unless each is to have its own."""
    for key, some in groupby(
        jobs, lambda job: (job.number, job.state is State.WAITING and job.index is not None)
    ):
        if key[1]:
            yield list(some)
        else:
            yield from ([job] for job in some)


def _ids(some: Sequence[Job]) -> str:
    if len(some) == 1:
        return _id(some[0])
    indices = [job.index or 0 for job in some]
    parts = []
    for _, run in groupby(enumerate(indices), lambda pair: pair[1] - pair[0]):
        members = [index for _, index in run]
        parts.append(f"{members[0]}-{members[-1]}" if len(members) > 1 else f"{members[0]}")
    return f"{some[0].number}_[{','.join(parts)}]"


_COLUMNS = table(
    "i:JOBID T:STATE t:ST r:REASON j:NAME P:PARTITION u:USER U:UID a:ACCOUNT F:ARRAY_JOB_ID "
    "K:ARRAY_TASK_ID A:JOBID C:CPUS D:NODES N:NODELIST R:NODELIST(REASON) M:TIME V:SUBMIT_TIME "
    "S:START_TIME k:COMMENT"
)


def _fill(form: str, job: Job | None, ids: str) -> str:
    """A line of squeue; the header for no job."""

    def column(match: re.Match[str]) -> str:
        right, width, letter = match.groups()
        if letter not in _COLUMNS:
            raise NotSimulatedError(f"squeue --format=%{letter}")
        text = _COLUMNS[letter] if job is None else _column(letter, job, ids)
        if not width:
            return text
        return (text.rjust if right else text.ljust)(int(width))[: int(width)]

    return re.sub(r"%(\.?)(\d*)([A-Za-z])", column, form)


def _column(letter: str, job: Job, ids: str) -> str:
    state = _state(job)
    node = "node1" if job.starts else ""
    texts = {
        "i": ids,
        "A": str(job.number),
        "T": state,
        "t": _SHORT[state],
        "r": _reason(job),
        "j": job.name,
        "P": job.queue,
        "u": job.request.owner,
        "U": str(job.request.uid),
        "a": job.request.project or "(null)",
        "F": str(job.number),
        "K": "N/A" if job.index is None else str(job.index),
        "C": str(job.request.cores),
        "D": "1",
        "N": node,
        "R": node or f"({_reason(job)})",
        "M": _elapsed(job),
        "V": _time(job.submitted),
        "S": _time(job.started),
        "k": "(null)",
    }
    return texts[letter]


def _account(job: Job, late: bool) -> dict[str, str]:
    state = "RUNNING" if late else _state(job)
    if job.ended_by and state == "CANCELLED":
        state += f" by {pwd.getpwnam(job.ended_by).pw_uid}"
    return {
        "jobid": _id(job),
        "jobidraw": str(job.number),
        "jobname": job.name,
        "state": state,
        "exitcode": "0:0" if late else _exit_code(job),
        "derivedexitcode": "0:0",
        "partition": job.queue,
        "account": job.request.project,
        "user": job.request.owner,
        "nodelist": "node1" if job.starts else "None assigned",
        "reason": _reason(job),
        "submit": _time(job.submitted),
        "start": _time(job.started),
        "end": "Unknown" if late else _time(job.ended),
        "elapsed": _elapsed(job),
        "timelimit": "UNLIMITED" if job.request.time is None else f"00:{job.request.time // 60:02}",
        "reqmem": f"{(job.request.memory or 0) >> 20}M",
        "maxrss": "",
        "alloccpus": str(job.request.cores),
        "cluster": CLUSTER,
        "uid": str(job.request.uid),
    }


def _shown(job: Job) -> list[str]:
    array = [f"ArrayJobId={job.number} ArrayTaskId={job.index}"] if job.index is not None else []
    return [
        " ".join([f"JobId={job.number}", *array, f"JobName={job.name}"]),
        f"UserId={job.request.owner}({job.request.uid}) GroupId=users(100) MCS_label=N/A",
        f"Priority=1 Nice=0 Account={job.request.project or '(null)'} QOS=(null)",
        f"JobState={_state(job)} Reason={_reason(job)} Dependency=(null)",
        f"Requeue=0 Restarts={max(0, job.starts - 1)} BatchFlag=1 Reboot=0 "
        f"ExitCode={_exit_code(job)}",
        f"RunTime={_elapsed(job)} TimeLimit=UNLIMITED TimeMin=N/A",
        f"SubmitTime={_time(job.submitted)} EligibleTime={_time(job.submitted)}",
        f"StartTime={_time(job.started)} EndTime={_time(job.ended)} Deadline=N/A",
        f"Partition={job.queue} AllocNode:Sid=host:1",
        f"NodeList={'node1' if job.starts else '(null)'}",
        f"NumNodes=1 NumCPUs={job.request.cores} NumTasks=1 CPUs/Task={job.request.cores}",
        f"WorkDir={job.request.directory}",
        f"StdErr={job.request.errors} StdIn=/dev/null StdOut={job.request.output}",
    ]


def _time(when: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(when)) if when else "Unknown"


def _elapsed(job: Job) -> str:
    seconds = int((job.ended or time.time()) - job.started) if job.started else 0
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
