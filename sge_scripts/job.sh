#!/usr/bin/env bash
#$ -S /bin/bash
#
# job.sh SPOOL: one attempt at one run, on a node that may have nothing but bash and coreutils.
#
# SPOOL is this attempt's own directory on the shared filesystem.
#
#   orders    what to do: assignments written by production/job/orders.py
#   started/  the fence: whoever brings it into being first owns the attempt; our notes are inside
#   reason    the job script may write one line here: why it refuses to work
#   manifest  what is about to be published, so that it can be taken back
#   revoked   the manager gave the attempt up: nothing is published any more
#   record    how it ended; it is the last word, a job without it has failed
#
# The outputs are written under temporary names and get their final names only when the job script
# ended with 0 and all of them are there.  The exit code is the job script's own, or
#
#   90 orders unreadable         91 started before           92 environment script failed
#   93 job script unreadable     94 output exists already    95 output was not written
#   96 filesystem refused        97 time limit               98 revoked
#   99 memory limit              128+n ended by signal n

set -u

readonly GRACE=3         # seconds between TERM and KILL; batch systems allow little more
readonly RAREST=5000     # milliseconds between two looks at a long job
readonly BEAT=60         # seconds between two signs of life, for those who cannot see our processes
readonly SIGNALS=(HUP INT QUIT TERM USR1 USR2 XCPU)

phase='start'            # how far we came: start, preflight, payload, publish, done
start_time=''
host=''
deferring=''             # not empty: a signal waits in `caught`
caught=''
payload=''               # the job script's process group, while it lasts
watchman=''
cpu_seconds=''
peak_memory=''           # bytes
measured=()              # record lines of the outputs
identities=()            # size, time and inode of the outputs, in the order of order_finals

# What the orders must give.  The prefix keeps them apart from what an environment script sets.
order_name='' order_script='' order_environment='' order_time='' order_memory='' order_done=''
order_complete=''
order_arguments=() order_variables=()
order_output_names=() order_temporaries=() order_finals=()

main() {
    if [[ $# -ne 1 || $1 != /* ]]; then
        echo 'Usage: job.sh SPOOL (an absolute path)' >&2
        exit 90
    fi
    SPOOL=$1
    notes=$SPOOL/started
    now start_time
    read -r host < /proc/sys/kernel/hostname    # batch systems hand on $HOSTNAME of the submit host
    take_the_attempt
    # From here to `trap ''` no command substitution: while bash 5.2 looks for the end of one, it
    # would run a trap in the midst of its parser.
    local name
    for name in "${SIGNALS[@]}"; do
        # shellcheck disable=SC2064  # the name is meant to be filled in now
        trap "ended_by_signal $name" "$name"
    done
    read_orders
    printf 'Job %s on %s, %s UTC\n' "$order_name" "$host" "$start_time"
    preflight
    run_payload
    publish
    phase='done'
    finish 0
}

# now NAME: the time in UTC, into the variable.
now() {
    local LC_ALL=C TZ=UTC0 moment=${EPOCHREALTIME-}    # new in bash 5
    if [[ -n $moment ]]; then
        # The decimal point is a comma in some languages, for bash looked before LC_ALL was set.
        printf -v "$1" '%(%Y-%m-%d %H:%M:%S)T.%s' "${moment%[.,]*}" "${moment#*[.,]}"
    else
        printf -v "$1" '%s' "$(date -u '+%Y-%m-%d %H:%M:%S.%6N')"
    fi
}

# first_line COMMAND...: the first line that it prints, into `line`.
first_line() {
    "$@" > "$notes/line" && read -r line < "$notes/line"
}

# ---------------------------------------------------------------------------- beginning and end

# Renaming a directory onto one that is not empty fails, everywhere and atomically; and unlike a
# bare mkdir the fence is never seen without its contents.
take_the_attempt() {
    local ours stat fields
    ours=$SPOOL/starting.$host.$$
    read -r stat < "/proc/$$/stat"
    read -r -a fields <<< "${stat##*) }"    # what follows the command, which may hold blanks
    if ! { mkdir -- "$ours" && printf '%s %s %s\n' $$ "${fields[19]}" "$host" > "$ours/pid"; } ||
        ! mv -T -- "$ours" "$notes" 2> /dev/null; then
        rm -rf -- "$ours"
        printf '%s: this attempt was started or revoked before, or its spool is gone\n' \
            "$SPOOL" >&2
        exit 91
    fi
    cd -- "$SPOOL" || exit 91
}

read_orders() {
    # shellcheck source=/dev/null
    source "$SPOOL/orders"
    [[ $order_complete == yes ]] || finish 90 "$SPOOL/orders cannot be read or is incomplete"
}

# shellcheck disable=SC2317  # called by the traps
ended_by_signal() {
    if [[ -n $deferring ]]; then
        caught=$1
        return
    fi
    trap '' "${SIGNALS[@]}"
    local number
    number=$(kill -l "$1")
    finish $((128 + number)) '' "$number"
}

no_longer_deferring() {
    local name=$caught
    deferring='' caught=''
    [[ -z $name ]] || ended_by_signal "$name"
}

# The only way out: finish CODE [REASON [SIGNAL]].
finish() {
    local code=$1 reason=${2-} signal=${3-}
    trap '' "${SIGNALS[@]}"
    stop_payload
    if ((code != 0)); then
        take_back
        measured=()
    fi
    if ! write_record "$code" "$reason" "$signal"; then
        printf '%s: the exit record cannot be written\n' "$SPOOL" >&2
        take_back              # without a record nobody would ever own them
        exit 96
    fi
    # The manager looks into this directory instead of into every spool.
    [[ -z $order_done ]] || : > "$order_done/${SPOOL##*/}"
    exit "$code"
}

# A final name is freed only when our own file has it: when we were cut off or frozen for long, the
# next attempt may have published meanwhile.  A hard link and a rename keep a file's identity.
# Looked at open, for an NFS client then asks its server who has the name now.
take_back() {
    local index final
    for index in "${!identities[@]}"; do
        final=${order_finals[index]}
        [[ -f $final && $(stat -c '%s %Y %i' - < "$final") == "${identities[index]}" ]] || continue
        rm -f -- "$final"
    done
    rm -f -- ${order_temporaries[@]+"${order_temporaries[@]}"}
}

write_record() {
    local text stop_time why=${2//[[:cntrl:]]/ }
    now stop_time
    printf -v text '%s\n' version=1 "phase=$phase" "exit_code=$1" "signal=$3" "host=$host" \
        "start=$start_time" "stop=$stop_time" "reason=${why:0:500}" \
        "cpu_seconds=$cpu_seconds" "peak_memory=$peak_memory" \
        ${measured[@]+"${measured[@]}"} complete=yes
    write_durably "$SPOOL/record" "$text"
}

# write_durably PATH TEXT: the file is there as a whole or not at all, also after a crash.
write_durably() {
    printf '%s' "$2" > "$1.tmp" && sync -- "$1.tmp" && mv -T -- "$1.tmp" "$1"
}

# ---------------------------------------------------------------------------- before the payload

preflight() {
    phase='preflight'
    local index path
    [[ -f $order_script && -r $order_script ]] ||
        finish 93 "job script missing or unreadable: $order_script"
    [[ -z $order_environment || -r $order_environment ]] ||
        finish 92 "environment script missing or unreadable: $order_environment"
    for index in "${!order_finals[@]}"; do
        path=${order_finals[index]}
        [[ ! -e $path && ! -L $path ]] || finish 94 "output exists already: $path"
        mkdir -p -- "${path%/*}" "${order_temporaries[index]%/*}" ||
            finish 96 "cannot create the directory of $path"
    done
}

# ---------------------------------------------------------------------------- the payload

run_payload() {
    phase='payload'
    local code reason='' signal=''
    # Job control gives each background job its own process group.  Only while they start: with it
    # switched on, `wait` would also return when a batch system merely suspends the payload.
    deferring=yes    # until we know what a signal has to end
    set -m
    payload_process < /dev/null &
    payload=$!
    watch 2> /dev/null &
    watchman=$!
    set +m
    no_longer_deferring
    wait "$payload" 2> /dev/null    # silences "Segmentation fault": the record says it
    code=$?
    stop_payload
    if [[ -s $notes/limit ]]; then
        read -r code reason < "$notes/limit"
        finish "$code" "$reason"
    fi
    if [[ -n $order_environment && ! -e $notes/entered ]] && ((code <= 128)); then
        phase='preflight'
        finish 92 "environment script failed (exit code $code): $order_environment"
    fi
    ((code != 0)) || return 0
    ((code <= 128 || code > 192)) || signal=$((code - 128))
    if [[ -s $SPOOL/reason ]]; then
        phase='preflight'
        read -r reason < "$SPOOL/reason"
    fi
    finish "$code" "$reason" "$signal"
}

payload_process() {
    ulimit -S -c 0    # thousands of core files would fill everybody's quota
    set +u
    if [[ -n $order_environment ]]; then
        export_variables    # the environment script may build on them
        load_environment || exit
    fi
    export_variables        # and must not change them
    : > "$notes/entered"
    exec "$BASH" -- "$order_script" "${order_arguments[@]}"
}

export_variables() {
    local variable
    for variable in "${order_variables[@]}"; do
        # shellcheck disable=SC2163  # it holds NAME=value
        export "$variable"
    done
}

# A function of its own, so that the script does not see arguments of ours as its own.
load_environment() {
    # shellcheck source=/dev/null
    source "$order_environment"
}

# Ends what is left of the payload, and learns what it used.
stop_payload() {
    [[ -n $payload ]] || return 0
    deferring=yes
    end_group
    # Only if it is still there: when a signal ends a `wait` at the very moment at which the child
    # ends, bash 5.2 forgets that it has seen the child's end, and a second `wait` would last for
    # ever.
    if kill -0 "$payload" 2> /dev/null; then
        wait "$payload" 2> /dev/null
    fi
    payload=''
    times > "$notes/times"    # a file, for in a pipe it would tell the times of a subshell
    learn_cpu_seconds < "$notes/times"
    # Not TERM: a shell that was forked a moment ago still has our traps, and would lose it.
    kill -ALRM -- "-$watchman" 2> /dev/null
    wait "$watchman" 2> /dev/null
    if [[ -s $notes/peak ]]; then
        read -r peak_memory < "$notes/peak"
    fi
    no_longer_deferring
}

end_group() {
    local tenths
    kill -TERM -- "-$payload" 2> /dev/null || return 0
    for ((tenths = GRACE * 10; tenths > 0; tenths--)); do
        group_lives 2> /dev/null || return 0
        sleep 0.1
    done
    kill -KILL -- "-$payload" 2> /dev/null
}

# Dead processes that nobody has reaped yet can be signalled as well, but do not count.
group_lives() {
    local file text state group
    kill -0 -- "-$payload" || return 1
    for file in /proc/[0-9]*/stat; do
        text=
        read -r text < "$file"
        read -r state _ group _ <<< "${text##*) }"
        [[ $group != "$payload" || $state == [ZX] ]] || return 0
    done
    return 1
}

# The second line of `times` is about the children: "0m1.234s 0m0.100s".
learn_cpu_seconds() {
    local user_and_system time seconds milliseconds=0
    read -r _
    read -r -a user_and_system
    for time in "${user_and_system[@]}"; do
        seconds=${time#*m}
        seconds=${seconds%s}
        # The decimal point is a comma in some languages.
        milliseconds=$((milliseconds + 60000 * ${time%%m*} + \
            1000 * ${seconds%[.,]*} + 10#${seconds#*[.,]}))
    done
    printf -v cpu_seconds '%d.%03d' $((milliseconds / 1000)) $((milliseconds % 1000))
}

# ---------------------------------------------------------------------------- the watchman

# Runs beside the payload in a process group of its own: measures memory, enforces the limits, and
# ends the payload when the wrapper was killed, for some batch systems kill nothing but it.
watch() {
    local pause=100 peak=0 beat=0 left text ppid
    trap write_peak ALRM
    SECONDS=0
    while true; do
        read -r text < "/proc/$BASHPID/stat"
        read -r _ ppid _ <<< "${text##*) }"
        ((ppid == $$)) || break
        # bash 5.2 forgets a trapped signal that comes in the midst of a redirection that fails, as
        # those from the /proc of a payload that has just ended do.
        [[ ! -e $notes/times ]] || write_peak
        look_at_memory
        if ((SECONDS >= beat)); then
            printf '%s\n' "$SECONDS" > "$notes/beat"
            beat=$((SECONDS + BEAT))
        fi
        if [[ -n $order_time ]]; then
            left=$((order_time + 1 - SECONDS))    # SECONDS may be a second ahead
            ((left > 0)) || limit_exceeded 97 "time limit of $order_time s exceeded"
            ((pause <= 1000 * left)) || pause=$((1000 * left))
        fi
        printf -v text '%d.%03d' $((pause / 1000)) $((pause % 1000))
        sleep "$text"
        pause=$((pause * 3 / 2))
        ((pause < RAREST)) || pause=$RAREST
    done
    end_group
}

write_peak() {
    printf '%s\n' $((peak * 1024)) > "$notes/peak"
    exit
}

limit_exceeded() {
    printf '%s %s\n' "$1" "$2" > "$notes/limit"
    end_group
    write_peak
}

look_at_memory() {
    local tree=() sum most
    find_tree
    add_up status VmHWM
    ((most <= peak)) || peak=$most
    add_up status VmRSS
    ((sum <= peak)) || peak=$sum
    [[ -n $order_memory ]] && ((sum * 1024 > order_memory)) || return 0
    # Resident memory counts pages that processes share once for each of them.  Where the kernel
    # can tell the true sum, that decides; it is too slow to be asked each time.
    local resident=$sum
    add_up smaps_rollup Pss
    ((sum > 0)) || sum=$resident
    ((sum * 1024 <= order_memory)) || limit_exceeded 99 \
        "memory limit of $((order_memory / 1000000)) MB exceeded: $((sum * 1024 / 1000000)) MB in use"
}

# The payload and all its descendants, into `tree`.
find_tree() {
    local index file children
    tree=("$payload")
    for ((index = 0; index < ${#tree[@]}; index++)); do
        for file in "/proc/${tree[index]}"/task/*/children; do
            children=
            read -r children < "$file"
            # shellcheck disable=SC2206  # a list of numbers
            tree+=($children)
        done
    done
}

# add_up FILE KEY: sum and largest of "KEY: n kB" in /proc/PID/FILE over the tree.
add_up() {
    local pid text
    sum=0 most=0
    for pid in "${tree[@]}"; do
        text=
        IFS= read -r -d '' text < "/proc/$pid/$1"
        [[ $text =~ (^|$'\n')$2:[[:space:]]*([0-9]+) ]] || continue
        ((sum += BASH_REMATCH[2]))
        ((most >= BASH_REMATCH[2])) || most=${BASH_REMATCH[2]}
    done
}

# ---------------------------------------------------------------------------- the outputs

publish() {
    phase='publish'
    local index temporary what
    for index in "${!order_temporaries[@]}"; do
        temporary=${order_temporaries[index]}
        what="did not write output ${order_output_names[index]}"
        [[ -e $temporary ]] || finish 95 "$what: there is no $temporary"
        [[ -f $temporary && ! -L $temporary ]] || finish 95 "$what: $temporary is no file"
        [[ -s $temporary ]] || finish 95 "$what: $temporary is empty"
    done
    measure
    trap '' "${SIGNALS[@]}"    # what is as good as done is brought to its end
    refuse_when_revoked
    for index in "${!order_finals[@]}"; do
        give_final_name "${order_temporaries[index]}" "${order_finals[index]}"
    done
    # The manager may have given up in the meantime.
    refuse_when_revoked
    for index in "${!order_finals[@]}"; do
        rm -f -- "${order_temporaries[index]}"
        sync -- "${order_finals[index]%/*}" 2> /dev/null
    done
}

# Writes the manifest and remembers the outputs for the record.
measure() {
    local index temporary final line size mtime inode sum manifest=''
    for index in "${!order_finals[@]}"; do
        temporary=${order_temporaries[index]}
        final=${order_finals[index]}
        # Network filesystems tell only now that the disk or the quota is full.
        sync -- "$temporary" || finish 96 "cannot bring $temporary to disk"
        first_line stat -c '%s %Y %i' -- "$temporary" || finish 96 "cannot look at $temporary"
        identities+=("$line")
        read -r size mtime inode <<< "$line"
        first_line sha256sum < "$temporary" || finish 96 "cannot read back $temporary"
        sum=${line%% *}
        measured+=("output.${order_output_names[index]}=$size $sum $final")
        manifest+="$size $mtime $inode $sum $final"$'\n'
    done
    [[ -z $manifest ]] || write_durably "$SPOOL/manifest" "$manifest" ||
        finish 96 "cannot write $SPOOL/manifest"
}

# Our notes are gone when the manager cleared the spool away.
refuse_when_revoked() {
    [[ ! -e $SPOOL/revoked && -e $notes/pid ]] ||
        finish 98 'the manager gave this attempt up while it ran; its outputs were dropped'
}

# A hard link never replaces what is there.  Where there are none: mv -n.
give_final_name() {
    local said
    if said=$(ln -T -- "$1" "$2" 2>&1) || [[ $1 -ef $2 ]]; then
        return
    fi
    [[ ! -e $2 && ! -L $2 ]] || finish 94 "output exists already: $2"
    said+=$(mv -n -T -- "$1" "$2" 2>&1)
    # Without a temporary file, whoever gave this attempt up has removed it.
    [[ ! -e $1 && -e $2 ]] || finish 96 "cannot publish $2: $said"
}

# Read to the end before anything runs, so that the script may be replaced under a running job.
main "$@"
