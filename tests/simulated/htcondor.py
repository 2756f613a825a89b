"""HTCondor 23.9, after its manual and recorded output: the commands and the job event logs."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from simulated.call import (
    Answer,
    Call,
    NotSimulatedError,
    Options,
    RefusedError,
    UnknownOptionError,
    dash_options,
)
from simulated.classads import ParseError, Value, evaluate, expand, split_arguments
from simulated.cluster import Cluster, End, Job, Request, State
from simulated.dialect import Dialect

_WHERE = "-name= -pool= "
_SUBMIT = f"{_WHERE}-terse -verbose -spool -disable -batch-name= -queue="
_Q = f"{_WHERE}-allusers -json -attributes= -constraint= -nobatch -limit= -global -userlog="
_HISTORY = f"{_WHERE}-json -attributes= -constraint= -limit= -match= -scanlimit= -since= "
_CHANGE = f"{_WHERE}-constraint= -all -reason= -long"

_SINFUL = "<127.0.0.1:9618?addrs=127.0.0.1-9618&alias=vm&noUDP&sock=schedd_1_1>"
_PERIOD = 0.5  # seconds between two evaluations of the jobs' own policies
_IDLE, _RUNNING, _REMOVED, _COMPLETED, _HELD, _SUSPENDED = 1, 2, 3, 4, 5, 7
_NO_SCHEDD = "Can't find address of local schedd"


class HTCondor(Dialect):
    """condor_submit, condor_q, condor_rm, condor_history, condor_qedit, condor_hold..."""

    name = "htcondor"
    commands = (
        *("condor_submit", "condor_q", "condor_rm", "condor_history", "condor_qedit"),
        *("condor_hold", "condor_release", "condor_suspend", "condor_continue"),
    )
    submission = "condor_submit"
    query = "condor_q"
    questions = ("condor_q", "condor_history")

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self._looked = 0.0  # at the jobs' policies
        self._do: Mapping[str, tuple[Callable[[Call, Options], Answer], str]] = {
            "condor_submit": (self._submit, _SUBMIT),
            "condor_q": (self._queue, _Q),
            "condor_history": (self._history, _HISTORY),
            "condor_qedit": (self._qedit, f"{_WHERE}-constraint="),
            **{
                name: (self._change, _CHANGE)
                for name in self.commands
                if name.rpartition("_")[2] in _CHANGES
            },
        }

    def obey(self, call: Call) -> Answer:
        """See Dialect."""
        do, known = self._do[call.name]
        try:
            options = dash_options(call.arguments, known, mixed=True)
        except UnknownOptionError as error:
            raise RefusedError(f"Error: unrecognized argument {error}\n") from None
        try:
            return do(call, options)
        except ParseError as error:
            what = f'\n-- Parse error in constraint expression "{error}"\n'
            raise RefusedError(what) from None

    def failure(self, call: Call, chance: float) -> Answer:
        """See Dialect."""
        said = {
            "condor_q": "Error: (null)\n\nExtra Info: You probably saw this error because the "
            "condor_schedd is not \nrunning on the machine you are trying to query.\n",
            "condor_submit": f"\nERROR: {_NO_SCHEDD}\n"
            if chance < 0.5
            else "\nERROR: Failed to connect to local queue manager\n"
            "CEDAR:6001:Failed to connect to <127.0.0.1:9618>\n",
        }
        return Answer(stderr=said.get(call.name, f"{call.name}: (null)\n"), code=1)

    # ----------------------------------------------------------------- the life of a job

    def variables(self, job: Job) -> Mapping[str, str]:
        """See Policy."""
        return {
            "_CONDOR_SLOT": "slot1_1",
            "_CONDOR_JOB_IWD": job.request.directory,
            "OMP_NUM_THREADS": str(job.request.cores),
        }

    def may_start(self, job: Job) -> bool:
        """See Policy; a job chooses its machine."""
        wanted = str(job.extra["requirements"])
        return super().may_start(job) and evaluate(wanted, _attributes(job)) is True

    def cannot_start(self, job: Job, error: OSError) -> None:
        """See Policy."""
        what = f"Failed to execute '{job.request.command[0]}': (errno={error.errno}: "
        _hold(job, f"Error from slot1_1@vm: {what}'{error.strerror}')", 6, error.errno or 0)

    def returns(self, job: Job, how: End) -> bool:
        """See Policy; a job stays until it has ended by itself or was removed."""
        if how is End.OVER_TIME:
            _hold(job, "The job exceeded allowed execute duration of 0+00:01:00", 47, 0)
        elif how is End.OVER_MEMORY:
            what = (
                "Job has gone over cgroup memory limit of 128 megabytes. Peak usage: 130 megabytes."
            )
            _hold(job, f"Error from slot1_1@vm: {what}", 34, 102)
        return how in {End.OVER_TIME, End.OVER_MEMORY, End.NODE_FAILED, End.EVICTED}

    def happened(self, job: Job, event: str) -> None:
        """See Policy; every event goes into the job's log."""
        text = _event(job, event)
        log = str(job.extra.get("userlog", ""))
        if text and log:
            stamp = time.strftime("%Y-%m-%d %H:%M:%S")
            number, _, rest = text.partition(" ")
            head = f"{number} ({job.number:03}.{job.index or 0:03}.000) {stamp}"
            with contextlib.suppress(OSError), Path(log).open("a") as file:  # its spool is gone
                file.write(f"{head} {rest}\n...\n")

    def beat(self) -> None:
        """See Policy."""
        now = time.monotonic()
        if now - self._looked < _PERIOD:
            return
        self._looked = now
        for job in self.cluster.unfinished():
            policy = str(job.extra["periodic_remove"])
            if policy and evaluate(policy, _attributes(job)) is True:
                job.extra["removereason"] = (
                    f"The job attribute PeriodicRemove expression '{policy}' evaluated to TRUE"
                )
                self.cluster.cancel(job, "")

    # ----------------------------------------------------------------- condor_submit

    def _submit(self, call: Call, options: Options) -> Answer:
        if options.operands != ("-",):
            raise NotSimulatedError(f"condor_submit {options.operands}")
        macros: dict[str, str] = {}
        count = 0
        for number, line in enumerate(call.stdin.splitlines(), 1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            if queue := re.fullmatch(r"\s*queue(?:\s+(\d+))?\s*", line, re.IGNORECASE):
                count = int(queue[1] or 1)
                break
            match = re.fullmatch(r"\s*((?:\+|MY\.)?[A-Za-z_][\w.]*)\s*=\s*(.*?)\s*", line)
            if not match:
                raise RefusedError(
                    f"\nERROR: on Line {number} of submit file: \n\n"
                    f"ERROR: Failed to parse command file (line {number}).\n"
                )
            name = match[1].lower()
            # What a macro says of itself is what it was before.
            own = re.compile(rf"\$\({re.escape(name)}(?::([^()]*))?\)", re.IGNORECASE)
            before = macros.get(name)
            macros[name] = own.sub(
                lambda found, before=before: found[1] or "" if before is None else before, match[2]
            )
        if not count:
            raise RefusedError("\nERROR: no queue statement in the submit description\n")
        if "executable" not in macros:
            raise RefusedError("\nERROR: No 'executable' parameter was provided\n")
        numbers = range(count)
        each = [self._request(call, {**macros, "procid": str(n)}) for n in numbers]
        # What some sites have for queues: a wish that the schedd refuses by a SUBMIT_REQUIREMENT.
        ad = each[0][1]["ad"]
        assert isinstance(ad, dict)
        if (flavour := ad.get("jobflavour")) and flavour not in self.terms.queues:
            raise RefusedError(
                "\nERROR: Failed to commit job submission into the queue.\n"
                f"ERROR: there is no flavour {flavour}\n"
            )
        jobs = self.cluster.submit(each[0][0], [request for request, _ in each], numbers)
        for job, (_, extra) in zip(jobs, each, strict=True):
            job.extra.update(extra)
            self.happened(job, "submitted")
            if job.held:
                _hold(job, "submitted on hold at user's request", 15, 0)
        cluster = jobs[0].number
        if "-terse" in options:
            return Answer(f"{cluster}.0 - {cluster}.{count - 1}\n")
        return Answer(f"Submitting job(s).\n{count} job(s) submitted to cluster {cluster}.\n")

    def _request(self, call: Call, macros: Mapping[str, str]) -> tuple[Request, dict[str, object]]:
        def get(name: str, default: str = "") -> str:
            return expand(macros.get(name, default), macros)

        environment = dict(call.environment) if get("getenv").lower() == "true" else {}
        for word in split_arguments(get("environment")):
            name, _, value = word.partition("=")
            environment[name] = value
        command = (get("executable"), *split_arguments(get("arguments")))
        seconds = get("allowed_execute_duration")
        directory = get("initialdir", call.directory)
        request = Request(
            name=get("batch_name"),
            owner=call.user,
            uid=call.uid,
            directory=directory,
            environment=environment,
            queue="",
            command=command,
            held="user" if get("hold").lower() == "true" else "",
            cores=int(get("request_cpus", "1")),
            time=float(seconds) if seconds else None,
            project=get("accounting_group"),
            output=get("output", "/dev/null"),
            errors=get("error", "/dev/null"),
            farewell=(signal.SIGTERM, signal.SIGKILL),
        )
        extra: dict[str, object] = {
            "requirements": get("requirements", "True"),
            "periodic_remove": get("periodic_remove"),
            "userlog": str(Path(directory) / get("log")) if get("log") else "",
        }
        ad: dict[str, Value] = {}
        for name, text in macros.items():
            if name.startswith(("+", "my.")):
                key = name.removeprefix("+").removeprefix("my.")
                ad[key] = evaluate(expand(text, macros), {})
        return request, {**extra, "ad": ad}

    # ----------------------------------------------------------------- condor_q, condor_history

    def _queue(self, call: Call, options: Options) -> Answer:
        jobs = self.cluster.unfinished()
        if "-allusers" not in options and not options.operands:
            jobs = [job for job in jobs if job.request.owner == call.user]
        return _print(self._chosen(jobs, options), options)

    def _history(self, _call: Call, options: Options) -> Answer:
        jobs = sorted(self.cluster.accounted(), key=lambda job: job.ended, reverse=True)
        if limit := options.get("-scanlimit"):
            jobs = jobs[: int(limit)]
        jobs = self._chosen(jobs, options)
        if limit := options.get("-limit") or options.get("-match"):
            jobs = jobs[: int(limit)]
        return _print(jobs, options)

    def _chosen(self, jobs: Sequence[Job], options: Options) -> list[Job]:
        """By any of the operands, and by the constraint."""
        chosen = [
            job
            for job in jobs
            if not options.operands
            or str(job.number) in options.operands
            or _id(job) in options.operands
        ]
        if constraint := options.get("-constraint"):
            chosen = [j for j in chosen if evaluate(constraint, _attributes(j)) is True]
        return chosen

    # ----------------------------------------------------------------- condor_rm and others

    def _change(self, call: Call, options: Options) -> Answer:
        verb = call.name.rpartition("_")[2]
        done, alone = _CHANGES[verb]
        jobs = self.cluster.unfinished()
        out = err = ""
        if constraint := options.get("-constraint"):
            chosen = self._chosen(jobs, options)
            out = f"All jobs matching constraint ({constraint}) have been {done}\n"
            if not chosen:
                out, err = (
                    "",
                    f"\nCouldn't find/{verb} all jobs matching constraint ({constraint})\n",
                )
        else:
            chosen = []
            for word in options.operands:
                some = [job for job in jobs if word in {str(job.number), _id(job)}]
                chosen += some
                if "." in word:
                    if some:
                        out += f"Job {word} {alone}\n"
                    else:
                        err += f"\nJob {word} not found\n"
                elif some:
                    out += f"All jobs in cluster {word} have been {done}\n"
                else:
                    err += f"\nCouldn't find/{_VERBS[verb]} all jobs in cluster {word}\n"
        for job in chosen:
            if call.uid not in (0, job.request.uid):
                raise RefusedError(f"Permission denied to {_VERBS[verb]} job {_id(job)}\n")
            self._do_change(verb, job, call, options.get("-reason"))
        return Answer(out, err, 1 if err else 0)

    def _do_change(self, verb: str, job: Job, call: Call, reason: str) -> None:
        by = f"(by user {call.user})"
        if verb == "rm":
            job.extra["removereason"] = f"{reason or 'via condor_rm'} {by}"
            self.cluster.cancel(job, call.user)
        elif verb == "hold":
            _hold(job, f"{reason or 'via condor_hold'} {by}", 1, 0)
            self.cluster.strike(job, End.EVICTED)
        elif verb == "release":
            job.extra["releasereason"] = f"{reason or 'via condor_release'} {by}"
            self.cluster.release(job)
        elif verb == "suspend":
            self.cluster.suspend(job)
        else:
            self.cluster.resume(job)

    def _qedit(self, _call: Call, options: Options) -> Answer:
        words = list(options.operands)
        if "-constraint" in options:
            jobs = self._chosen(self.cluster.unfinished(), Options(options.given, ()))
        else:
            named = Options((), (words.pop(0),))
            jobs = self._chosen(self.cluster.unfinished(), named)
        name, text = words
        if not jobs:
            what = f'Failed to set attribute "{name}" by constraint: {options.get("-constraint")}'
            raise RefusedError(f"{what}\nQueue transaction failed.  No attributes were set.\n")
        for job in jobs:
            ad = job.extra["ad"]
            assert isinstance(ad, dict)
            ad[name.lower()] = evaluate(text, {})
        return Answer(f'Set attribute "{name}" for {len(jobs)} matching jobs.\n')


# What is said of all jobs of a cluster, and of one.
_CHANGES: Mapping[str, tuple[str, str]] = {
    "rm": ("marked for removal", "marked for removal"),
    "hold": ("held", "held"),
    "release": ("released", "released"),
    "suspend": ("suspended", "suspended"),
    "continue": ("continued", "continued"),
}
_VERBS = {name: "remove" if name == "rm" else name for name in _CHANGES}


# ---------------------------------------------------------------------- how things are written


def _id(job: Job) -> str:
    return f"{job.number}.{job.index or 0}"


def _hold(job: Job, why: str, code: int, subcode: int) -> None:
    job.extra["holdreasoncode"], job.extra["holdreasonsubcode"] = code, subcode
    job.cluster.hold(job, "system", why)


def _status(job: Job) -> int:
    if job.state is State.ENDED:
        return _REMOVED if job.end is End.CANCELLED else _COMPLETED
    if job.state is State.WAITING:
        return _HELD if job.held else _IDLE
    if job.end is End.CANCELLED:
        return _REMOVED
    return _SUSPENDED if job.suspended else _RUNNING


_SPELLING = (
    *("ClusterId", "ProcId", "JobStatus", "Owner", "User", "QDate", "NumJobStarts", "Cmd", "Args"),
    *("JobBatchName", "RequestCpus", "UserLog", "HoldReason", "HoldReasonCode", "RemoveReason"),
    *("HoldReasonSubCode", "ReleaseReason", "ExitCode", "ExitBySignal", "ExitSignal"),
    *("CompletionDate", "JobStartDate", "JobCurrentStartDate", "LastRemoteHost", "GlobalJobId"),
    *("EnteredCurrentStatus", "AccountingGroup", "RemoteHost"),
)


def _attributes(job: Job) -> dict[str, Value]:
    """The job's ClassAd."""
    request = job.request
    ad: dict[str, Value] = {
        "clusterid": job.number,
        "procid": job.index or 0,
        "jobstatus": _status(job),
        "owner": request.owner,
        "user": f"{request.owner}@vm",
        "qdate": int(job.submitted),
        "numjobstarts": job.starts,
        "cmd": request.command[0],
        "args": " ".join(request.command[1:]),
        "jobbatchname": request.name or None,
        "requestcpus": request.cores,
        "globaljobid": f"vm#{_id(job)}#{int(job.submitted)}",
        "accountinggroup": request.project or None,
        "enteredcurrentstatus": int(job.ended or job.started or job.submitted),
    }
    if job.started:
        ad["jobstartdate"] = ad["jobcurrentstartdate"] = int(job.started)
        ad["lastremotehost"] = "slot1_1@vm"
    if job.held:
        ad["holdreason"] = job.why_held
        for name in ("holdreasoncode", "holdreasonsubcode"):
            ad[name] = int(str(job.extra.get(name, 0)))
    for name in ("removereason", "releasereason", "userlog"):
        if text := job.extra.get(name):
            ad[name] = str(text)
    if job.state is State.ENDED and job.end is End.ITSELF and job.status is not None:
        ad["completiondate"] = int(job.ended)
        ad["exitbysignal"] = job.status < 0
        ad["exitsignal" if job.status < 0 else "exitcode"] = abs(job.status)
    own = job.extra["ad"]
    assert isinstance(own, dict)
    return {**ad, **own}


def _print(jobs: Sequence[Job], options: Options) -> Answer:
    """Each ad by itself between lines with a comma; nothing at all for none."""
    if "-json" not in options:
        raise NotSimulatedError("a table of jobs")
    names = [name for name in options.get("-attributes").split(",") if name]
    ads = []
    for job in jobs:
        ad = _attributes(job)
        spelled = {name: ad.get(name.lower()) for name in names or _SPELLING}
        ads.append({name: value for name, value in spelled.items() if value is not None})
    if not ads:
        return Answer()
    return Answer(
        "[\n" + "\n,\n".join(json.dumps(ad, indent=2, sort_keys=True) for ad in ads) + "\n]\n"
    )


def _event(job: Job, event: str) -> str:
    """Number, headline and the rest of an event; "" for what is no event."""
    if event == "submitted":
        return f"000 Job submitted from host: {_SINFUL}" if "ad" in job.extra else ""
    if event == "started":
        return f"001 Job executing on host: {_SINFUL}\n\tSlotName: slot1_1@vm\n\tCpus = 1"
    if event == "held":
        code, subcode = job.extra["holdreasoncode"], job.extra["holdreasonsubcode"]
        return f"012 Job was held.\n\t{job.why_held}\n\tCode {code} Subcode {subcode}"
    if event == "released":
        return f"013 Job was released.\n\t{job.extra.get('releasereason', '')}"
    if event == "returned":
        return "004 Job was evicted.\n\t(0) CPU times\n\t0  -  Run Bytes Sent By Job"
    if job.end is End.CANCELLED:
        return f"009 Job was aborted.\n\t{job.extra.get('removereason', '')}"
    status = job.status or 0
    how = (
        f"(0) Abnormal termination (signal {-status})\n\t(0) No core file"
        if status < 0
        else f"(1) Normal termination (return value {status})"
    )
    usage = "\t\tUsr 0 00:00:00, Sys 0 00:00:00  -  Run Remote Usage"
    return f"005 Job terminated.\n\t{how}\n{usage}"
