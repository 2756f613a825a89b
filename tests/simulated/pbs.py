"""PBS: OpenPBS 22 with its JSON, and Torque 6 with its XML.

After the reference guide of PBS Professional 2022, the manual pages of both, and their output as
quoted in public bug reports (OpenPBS issue 2672; what qstat prints when it cannot connect).
"""

from __future__ import annotations

import getopt
import json
import re
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from xml.sax.saxutils import escape

from simulated.call import Answer, Call, NotSimulatedError, Options, RefusedError, getopt_options
from simulated.cluster import Cluster, End, Job, Request, State
from simulated.dialect import Dialect

SERVER = "pbs1"
_COMMON = (
    "A=,A N=,N S=,S V,V W=,W e=,e h,h j=,j l=,l m=,m o=,o p=,p q=,q r=,r v=,v "
    "a=,a c=,c k=,k u=,u M=,M z,z C=,C"
)
_ID = re.compile(r"(\d+)(\[(\d*)\])?(?:\.[\w.-]+)?")


class Pbs(Dialect):
    """qsub, qstat, qdel, qmove, qhold, qrls, as PBS Pro and OpenPBS have them."""

    name = "pbs"
    commands = ("qsub", "qstat", "qdel", "qmove", "qhold", "qrls")
    submission = "qsub"
    query = "qstat"
    questions = ("qstat",)

    version = "pbs_version = 22.05.11\n"
    array = "J"  # the option
    qsub_options = f"{_COMMON} J=,J P=,P R=,R f,f G,G I,I X,X"
    qstat_options = "f,f F=,F t,t x,x B,B u=,u J,J w,w"
    index_variable = "PBS_ARRAY_INDEX"
    unknown_id = "Unknown Job Id"
    unknown_queue = "qsub: Unknown queue"
    over_time, over_memory = -29, -27  # exit statuses
    takes_rigid_arrays = False  # whose jobs are not started again

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self._do: Mapping[str, tuple[Callable[[Call, Options], Answer], str]] = {
            "qsub": (self._qsub, self.qsub_options),
            "qstat": (self._qstat, self.qstat_options),
            "qdel": (self._qdel, "W=,W x,x p,p t=,t m=,m"),
            "qmove": (self._qmove, ""),
            "qhold": (self._qhold, "h=,h t=,t"),
            "qrls": (self._qrls, "h=,h t=,t"),
        }

    def obey(self, call: Call) -> Answer:
        """See Dialect."""
        if self.is_local(call):
            return self.tell_version()
        do, known = self._do[call.name]
        try:
            options = getopt_options(call.arguments, known, mixed=False)
        except getopt.GetoptError as error:
            said = f"{call.name}: invalid option -- '{error.opt}'\nusage: {call.name} [...]\n"
            raise RefusedError(said, 2) from None
        return do(call, options)

    def tell_version(self) -> Answer:
        """What --version prints."""
        return Answer(self.version)

    def failure(self, call: Call, chance: float) -> Answer:
        """See Dialect; qstat prints the frame of its JSON all the same."""
        why, number = ("refused", 15010) if chance < 0.5 else ("timed out", 110)
        said = (
            f"Connection {why}\n{call.name}: cannot connect to server {SERVER} (errno={number})\n"
        )
        framed = call.name == "qstat" and "json" in call.arguments
        return Answer(self.frame({}) if framed else "", said, 255)

    def is_local(self, call: Call) -> bool:
        """See Dialect."""
        return call.arguments == ("--version",)

    def variables(self, job: Job) -> Mapping[str, str]:
        """See Policy."""
        index = {} if job.index is None else {self.index_variable: str(job.index)}
        return {
            **index,
            "PBS_JOBID": _id(job),
            "PBS_JOBNAME": job.name,
            "PBS_QUEUE": job.queue,
            "PBS_ENVIRONMENT": "PBS_BATCH",
            "NCPUS": str(job.request.cores),
        }

    # ----------------------------------------------------------------- qsub

    def _qsub(self, call: Call, options: Options) -> Answer:
        if options.operands:
            raise NotSimulatedError(f"qsub {options.operands}")
        if not call.stdin.strip():
            raise RefusedError("qsub: script file is empty\n", 1)
        queue = options.get("q", self.terms.queues[0])
        if queue not in self.terms.queues:
            raise RefusedError(f"{self.unknown_queue}\n", 170)
        name = options.get("N", "STDIN")
        if not re.fullmatch(r"[A-Za-z0-9_][^\s]{0,229}", name):
            raise RefusedError("qsub: illegal -N value\nusage: qsub [...]\n", 2)
        asked = ",".join(options.all("l"))
        cores = int(next(iter(re.findall(r"(?:ncpus|ppn)=(\d+)", asked)), "1"))
        if cores > self.terms.node_cores:
            raise RefusedError("qsub: Job violates queue and/or server resource limits\n", 188)
        span = options.get(self.array)
        indices = None
        at_once = None
        if span:
            ranges, _, limit = span.partition("%")
            at_once = int(limit) if limit else None
            first, _, last = ranges.partition("-")
            indices = tuple(range(int(first), int(last or first) + 1))
            if len(indices) > self.terms.largest_array:
                raise RefusedError(
                    "qsub: Array job exceeds server or queue size limit\n", 15080 % 256
                )
        if indices and not self.takes_rigid_arrays and options.get("r") == "n":
            raise RefusedError("qsub: cannot submit non-rerunable Array Job\n", 1)
        time_ = re.search(r"walltime=([\d:]+)", asked)
        request = Request(
            name=name,
            owner=call.user,
            uid=call.uid,
            script=f"#!{options.get('S', '/bin/sh')}\n{call.stdin}",
            directory=call.home,
            environment=_environment(call, options),
            queue=queue,
            indices=indices,
            at_once=at_once,
            held="u" if "h" in options else "",
            cores=cores,
            time=_seconds(time_[1]) if time_ else None,
            project=options.get("P") or options.get("A"),
            output=options.get("o", "/dev/null"),
            errors=options.get("e", "/dev/null"),
            farewell=(signal.SIGTERM, signal.SIGKILL),
        )
        job = self.cluster.submit(request)[0]
        return Answer(f"{_whole(job)}\n")

    # ----------------------------------------------------------------- qstat

    def _qstat(self, call: Call, options: Options) -> Answer:
        if "B" in options:
            return Answer(f"Server: {SERVER}\n    server_state = Active\n\n")
        said = ""
        code = 0
        jobs: list[Job] = []
        for text in options.operands:
            found, trouble = self._looked_up(text, options)
            jobs += [job for job in found if job not in jobs]
            if trouble:
                said += f"qstat: {trouble}\n"
                code = 35 if "finished" in trouble else 153
        if not options.operands:
            jobs = self.visible(options)
        if call.uid:
            jobs = [job for job in jobs if job.request.uid == call.uid]
        return self.show(jobs, options, said, code)

    def visible(self, options: Options) -> list[Job]:
        """The jobs that qstat tells of when none is named: whole arrays while one element lives."""
        if "x" in options and self.terms.accounting:  # the server keeps it: nothing lags
            return list(self.cluster.all())
        living = {job.number for job in self.cluster.unfinished()}
        return [job for job in self.cluster.all() if job.number in living]

    def _looked_up(self, text: str, options: Options) -> tuple[list[Job], str]:
        """The jobs of an id or a destination (QUEUE, @SERVER, QUEUE@SERVER), or why none."""
        queue, at, server = text.partition("@")
        if at or queue in self.terms.queues:
            if server not in {"", SERVER}:
                return [], f"Unknown Host {server}"
            every = self.visible(options)
            return [job for job in every if queue in {"", job.queue}], ""
        jobs = self.named(text)
        seen = [job for job in jobs if job in self.visible(options)]
        if seen:
            return seen, ""
        if jobs and self.terms.accounting:
            hint = "Job has finished, use -x or -H to obtain historical job information"
            return [], f"{text} {hint}"
        return [], f"{self.unknown_id} {text}"

    def named(self, text: str) -> list[Job]:
        """12, 12.server, 12[], 12[3].server."""
        match = _ID.fullmatch(text)
        if not match:
            raise RefusedError(f"illegally formed job identifier: {text}\n", 1)
        jobs = self.cluster.find(int(match[1]), int(match[3]) if match[3] else None)
        return [job for job in jobs if (job.index is None) == (match[2] is None)]

    def show(self, jobs: Sequence[Job], options: Options, said: str, code: int) -> Answer:
        """The jobs in full."""
        if options.get("F") != "json" or "f" not in options:
            raise NotSimulatedError("qstat without -f -F json")
        entries: dict[str, object] = {}
        whole = {job.number for job in jobs}
        asked_for = [_ID.fullmatch(text) for text in options.operands]
        single = {int(m[1]) for m in asked_for if m and m[3]}
        for number, some in groupby(jobs, lambda job: job.number):
            elements = list(some)
            if elements[0].index is None:
                entries[_id(elements[0])] = self.fields(elements[0])
                continue
            if number in whole - single:
                entries[_whole(elements[0])] = self._array_fields(self.cluster.find(number))
            if "t" in options or number in single:
                entries |= {_id(job): self.fields(job) for job in elements}
        return Answer(self.frame(entries), said, code)

    def frame(self, entries: Mapping[str, object]) -> str:
        """The JSON around the jobs."""
        head = {"timestamp": int(time.time()), "pbs_version": "22.05.11", "pbs_server": SERVER}
        whole = {**head, "Jobs": entries} if entries else head
        return json.dumps(whole, indent=4, separators=(",", ":")) + "\n"

    def letter(self, job: Job) -> str:
        """The job's state."""
        if job.state is State.WAITING:
            # Elements that have not started are told of as their array would be, but for its hold.
            return "H" if job.held and job.index is None else "Q"
        if job.state is State.RUNNING:
            return "S" if job.suspended else "R"
        array_lives = any(j.state is not State.ENDED for j in self.cluster.find(job.number))
        return "X" if job.index is not None and array_lives else "F"

    def fields(self, job: Job) -> dict[str, object]:
        """A job's attributes."""
        request = job.request
        fields: dict[str, object] = {
            "Job_Name": job.name,
            "Job_Owner": f"{request.owner}@host",
            "job_state": self.letter(job),
            "queue": job.queue,
            "server": SERVER,
            "Checkpoint": "u",
            "ctime": time.ctime(job.submitted),
            "Error_Path": f"host:{request.errors}",
            "Hold_Types": job.held or "n",
            "Join_Path": "oe",
            "mtime": time.ctime(job.ended or job.started or job.submitted),
            "Output_Path": f"host:{request.output}",
            "Priority": 0,
            "qtime": time.ctime(job.submitted),
            "Rerunable": "False",
            "Resource_List": {"ncpus": request.cores, "select": f"1:ncpus={request.cores}"},
            "substate": 42,
        }
        if job.starts:
            fields |= {"stime": time.ctime(job.started), "exec_host": "node1/0"}
        if job.state is State.ENDED:
            status = self.exit_status(job)
            fields["substate"] = 92 if status == 0 else 91 if job.end is End.CANCELLED else 93
            fields["comment"] = self._comment(job)
            if status is not None:
                fields["Exit_status"] = status
        return fields

    def _array_fields(self, jobs: Sequence[Job]) -> dict[str, object]:
        """Those of a whole array."""
        waiting = [job for job in jobs if job.state is State.WAITING]
        running = [job for job in jobs if job.state is State.RUNNING]
        begun = any(job.starts for job in jobs)
        ended = not waiting and not running
        letter = "F" if ended else "B" if begun else "H" if waiting[0].held else "Q"
        numbers = [job.index or 0 for job in waiting]
        return {
            **self.fields(jobs[0]),
            "job_state": letter,
            "queue": (waiting or jobs)[0].queue,
            "array": "True",
            "array_state_count": f"Queued:{len(waiting)} Running:{len(running)} Exiting:0 "
            f"Expired:{len(jobs) - len(waiting) - len(running)} ",
            "array_indices_submitted": f"{jobs[0].index}-{jobs[-1].index}",
            "array_indices_remaining": _ranges(numbers) or "-",
        }

    def exit_status(self, job: Job) -> int | None:
        """As the server tells it; None for a job that never ran."""
        if job.status is None or job.end is End.NODE_FAILED:
            return None
        special = {End.OVER_TIME: self.over_time, End.OVER_MEMORY: self.over_memory}
        if job.end in special:
            return special[job.end]
        return job.status if job.status >= 0 else 256 - job.status

    def _comment(self, job: Job) -> str:
        if not job.starts:
            return "Job has been deleted"
        when = time.strftime("%a %b %d at %H:%M", time.localtime(job.started))
        how = {
            End.OVER_TIME: "and exceeded resource walltime",
            End.OVER_MEMORY: "and exceeded resource mem",
            End.CANCELLED: "and terminated",
            End.NODE_FAILED: "and failed: node fail",
        }
        well = "and finished" if job.status == 0 else "and failed"
        return f"Job run at {when} on (node1:ncpus=1) {how.get(job.end or End.ITSELF, well)}"

    # ----------------------------------------------------------------- qdel and others

    def _each(self, call: Call, texts: Sequence[str], do: Callable[[Sequence[Job]], str]) -> Answer:
        """Do something with jobs; the last trouble is the exit code."""
        said = ""
        code = 0
        for text in texts:
            found = self.named(text)
            jobs = [job for job in found if job.state is not State.ENDED]
            if (
                not jobs
                and found
                and self.terms.accounting
                and found[0] in self.cluster.accounted()
            ):
                trouble, number = "Job has finished", 35
            elif not jobs:
                trouble, number = self.unknown_id, 153
            elif call.uid not in (0, jobs[0].request.uid):
                trouble, number = "Unauthorized Request ", 159
            else:
                trouble, number = do(jobs), 168
            if trouble:
                said += f"{call.name}: {trouble} {text}\n"
                code = number
        return Answer(stderr=said, code=code)

    def _qdel(self, call: Call, options: Options) -> Answer:
        if options.given:
            raise NotSimulatedError(f"qdel {options.given}")

        def delete(jobs: Sequence[Job]) -> str:
            for job in jobs:
                self.cluster.cancel(job, call.user)
            return ""

        return self._each(call, options.operands, delete)

    def _qmove(self, call: Call, options: Options) -> Answer:
        queue, *texts = options.operands
        queue = queue.partition("@")[0]
        if queue not in self.terms.queues:
            said = "".join(f"qmove: Unknown queue {text}\n" for text in texts)
            raise RefusedError(said, 170)

        def move(jobs: Sequence[Job]) -> str:
            whole = self.cluster.find(jobs[0].number)
            if len(jobs) != len(whole) or any(job.starts for job in whole):
                return "Request invalid for state of job"
            for job in jobs:
                job.queue = queue
            return ""

        return self._each(call, texts, move)

    def _qhold(self, call: Call, options: Options) -> Answer:
        def hold(jobs: Sequence[Job]) -> str:
            for job in jobs:
                if job.state is State.WAITING:
                    self.cluster.hold(job, options.get("h", "u"))
            return ""

        return self._each(call, options.operands, hold)

    def _qrls(self, call: Call, options: Options) -> Answer:
        def release(jobs: Sequence[Job]) -> str:
            for job in jobs:
                self.cluster.release(job)
            return ""

        return self._each(call, options.operands, release)


class Torque(Pbs):
    """The same commands of Torque: XML, finished jobs for a while in state C, no history."""

    name = "torque"
    batch = "pbs"
    version = "Version: 6.1.3\nCommit: 0\n"
    array = "t"
    qsub_options = f"{_COMMON} t=,t P=,P F=,F d=,d D=,D w=,w T=,T n,n f,f x,x I,I X,X b=,b"
    qstat_options = "f,f t,t x,x B,B u=,u e,e c,c"
    index_variable = "PBS_ARRAYID"
    unknown_id = "Unknown Job Id Error"
    unknown_queue = "qsub: submit error (Unknown queue MSG=requested queue not found)"
    over_time, over_memory = -11, -10
    takes_rigid_arrays = True

    def tell_version(self) -> Answer:
        """See Pbs."""
        return Answer(stderr=self.version)

    def visible(self, options: Options) -> list[Job]:
        """See Pbs; each element stands for itself."""
        return self.cluster.listed()

    def letter(self, job: Job) -> str:
        """See Pbs."""
        if job.state is State.WAITING:
            return "H" if job.held else "Q"
        return "C" if job.state is State.ENDED else super().letter(job)

    def fields(self, job: Job) -> dict[str, object]:
        """See Pbs; the exit status in small letters, and an element's index in its name."""
        fields = super().fields(job)
        if "Exit_status" in fields:
            fields["exit_status"] = fields.pop("Exit_status")
        if job.index is not None:
            fields["Job_Name"] = f"{job.name}-{job.index}"
            fields["job_array_id"] = job.index
        fields.pop("substate")
        return fields

    def show(self, jobs: Sequence[Job], options: Options, said: str, code: int) -> Answer:
        """See Pbs; nothing at all for no jobs."""
        if "x" not in options:
            raise NotSimulatedError("qstat without -x")
        entries = []
        for number, some in groupby(jobs, lambda job: job.number):
            elements = list(some)
            if elements[0].index is not None and "t" not in options:
                whole = self.fields(elements[0])
                whole["Job_Name"] = elements[0].name
                entries.append({"Job_Id": f"{number}[].{SERVER}", **whole})
            else:
                entries += [{"Job_Id": _id(job), **self.fields(job)} for job in elements]
        if not entries:
            return Answer("", said, code)
        text = "".join(f"<Job>{_xml(entry)}</Job>" for entry in entries)
        return Answer(f"<Data>{text}</Data>\n", said, code)


# ---------------------------------------------------------------------- how things are written


def _id(job: Job) -> str:
    return f"{job.number}.{SERVER}" if job.index is None else f"{job.number}[{job.index}].{SERVER}"


def _whole(job: Job) -> str:
    return f"{job.number}.{SERVER}" if job.index is None else f"{job.number}[].{SERVER}"


def _environment(call: Call, options: Options) -> dict[str, str]:
    """What a job finds: little, unless it is given more."""
    given = dict(call.environment) if "V" in options else {}
    for text in options.all("v"):
        for word in text.split(","):
            name, equals, value = word.partition("=")
            given[name] = value if equals else call.environment.get(name, "")
    own = {"PBS_O_WORKDIR": call.directory, "PBS_O_HOST": "host", "PBS_O_LOGNAME": call.user}
    return {"HOME": call.home, "PATH": "/usr/bin:/bin", "USER": call.user, **given, **own}


def _seconds(text: str) -> float:
    seconds = 0
    for part in text.split(":"):
        seconds = seconds * 60 + int(part)
    return seconds


def _ranges(numbers: Sequence[int]) -> str:
    parts = []
    for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        members = [number for _, number in run]
        parts.append(f"{members[0]}-{members[-1]}" if len(members) > 1 else f"{members[0]}")
    return ",".join(parts)


def _xml(entry: Mapping[str, object]) -> str:
    return "".join(
        f"<{name}>{_xml(value) if isinstance(value, dict) else escape(str(value))}</{name}>"
        for name, value in entry.items()
    )
