#!/usr/bin/env bash
#
# node.sh TOKEN FILE...: what a job finds on its node, for production/doctor/node.py.
#
# It runs under sge_scripts/job.sh like any job and needs no more than that.  Lines "KEY VALUE" go
# to $PM_SPOOL/report as they are found, for what comes next may fail.

report=$PM_SPOOL/report

say() {
    printf '%s %s\n' "$1" "${2//[[:cntrl:]]/ }" >> "$report"
}

# The options that job.sh uses are not in every coreutils, nor in busybox.
try() {
    local name=$1
    shift
    "$@" > /dev/null 2>&1 || say lacks "$name"
}

say host "$(uname -n)"
say bash "$BASH_VERSION"
((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 402)) || say lacks 'bash 4.2'

token=$1
shift
found=''
[[ -r $PM_SPOOL/token ]] && read -r found < "$PM_SPOOL/token"
[[ $found == "$token" ]] || say other "$PM_SPOOL"
for path in "$@"; do
    [[ -r $path ]] || say unreadable "$path"
done

for name in cat date ln mkdir mv rm sha256sum sleep stat sync uname; do
    type -P "$name" > /dev/null || say lacks "$name"
done
probe=$PM_SPOOL/probe
if { printf 'probe\n' > "$probe"; } 2> /dev/null; then
    try 'stat -c' stat -c '%s %Y %i' -- "$probe"
    try 'sha256sum' sha256sum "$probe"
    try 'ln -T' ln -T -- "$probe" "$probe.link"
    try 'mv -T' mv -T -- "$probe" "$probe.moved"
    try 'sync FILE' sync -- "$probe.moved"
    [[ $(date -u '+%6N' 2> /dev/null) =~ ^[0-9]{6}$ ]] || say lacks 'date +%6N'
    [[ -r /proc/$$/stat ]] || say lacks /proc
else
    say readonly "$PM_SPOOL"
fi

if [[ -n $DOCTOR_ENVIRONMENT && -r $DOCTOR_ENVIRONMENT ]]; then
    # As job.sh does it: a function, so that the script sees no arguments of ours.
    load() {
        # shellcheck source=/dev/null
        source "$DOCTOR_ENVIRONMENT"
    }
    (set +u; load) < /dev/null > "$PM_SPOOL/said" 2>&1
    code=$?
    ((code == 0)) || say environment "exit code $code: $(tail -n 1 "$PM_SPOOL/said")"
fi

# The report's own time, by the file server, is compared with this.
say time "$(date -u +%s.%N)"
