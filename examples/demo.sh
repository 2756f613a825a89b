#!/usr/bin/env bash
# demo.sh PYTHON: the example experiment from the archive to a picture, in ./demo (or $DEMO_DIR).
#
# Everything stays there to be looked at and played with; run again, it goes on with what is not
# finished (failed runs are tried again) or starts the next version.  DEMO_RUNS=2091-2095 takes fewer runs than all 67.
set -eu

project=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
python=$(CDPATH='' cd -- "$(dirname -- "$1")" && pwd)/$(basename -- "$1")
demo=${DEMO_DIR:-$project/demo}
runs=${DEMO_RUNS:-2091-2103,2119-2172}
database=$demo/production.db
options=(--database="$database" --pause=1 --spacelim=99)
export PYTHONPATH=$project${PYTHONPATH:+:$PYTHONPATH} NETRC=$demo/netrc

production() { "$python" -m production "$@" --database="$database"; }
title() { printf '\n\033[1m%s\033[0m\n' "$*"; }

# Show a query as one types it, and its answer.
query() {
    printf '\n$ sqlite3 demo/production.db "%s"\n' "$1"
    if command -v sqlite3 > /dev/null; then
        sqlite3 "$database" "$1"
    else
        "$python" - "$database" "$1" <<'PYTHON'
import sqlite3, sys
for row in sqlite3.connect(sys.argv[1]).execute(sys.argv[2]):
    print(*("" if value is None else value for value in row), sep="|")
PYTHON
    fi
}

# produce TYPE MESSAGE: go on with the newest production of a type if it is not finished,
# otherwise start the next.
produce() {
    local new=()
    title "$2"
    if [[ $(state_of "$1") == unfinished ]]; then
        production retry --production="$1"
    else
        new=(--new="$1-$(date +%Y%m%d)")
    fi
    printf '$ ./run_production.py --production=%s %s--database=demo/production.db %s\n' \
        "$1" "${new[*]:+${new[*]} }" '--pause=1 --spacelim=99'
    "$project/run_production.py" --production="$1" ${new[@]+"${new[@]}"} "${options[@]}"
}

state_of() {
    "$python" - "$database" "$1" <<'PYTHON'
import sqlite3, sys
row = sqlite3.connect(sys.argv[1]).execute(
    "SELECT stop FROM productions WHERE type = ? ORDER BY version DESC LIMIT 1", sys.argv[2:]
).fetchone()
print("none" if row is None else "finished" if row[0] else "unfinished")
PYTHON
}

mkdir -p "$demo"
PATH=$(dirname -- "$python"):$PATH

title 'Real detector events, written as MIDAS run files onto the "tape" of an archive'
"$python" "$project/examples/make_raw.py" "$demo/archive/mu2e/run2013" --runs "$runs"

(umask 077 && printf 'machine 127.0.0.1\n    login example\n    password tape\n' > "$NETRC")
rm -f "$demo/port"
"$python" "$project/examples/archive.py" --root "$demo/archive" --port-file "$demo/port" \
    --password-file "$NETRC" --stage-seconds 0.5 --log "$demo/archive.log" &
archive=$!
trap 'kill "$archive" 2> /dev/null; wait "$archive" 2> /dev/null || true' EXIT
for _ in $(seq 100); do [[ -s $demo/port ]] && break || sleep 0.1; done

cat > "$demo/production.toml" <<TOML
data = "data"

[archive]
url = "ftp://127.0.0.1:$(cat "$demo/port")/mu2e/run2013"

[environment]
script = "$project/examples/thisdaq.sh"

[environment.variables]
PRODUCTION_EXAMPLE_PYTHON = "$python"

[modules]
alcapana = "$project/examples/MODULES"
rootana = "$project/examples/production.cfg"
TOML

title 'A database with the runs of dataset SiR2'
[[ -e $database ]] || production init
if [[ -z ${DEMO_RUNS-} ]]; then
    production datasets import "$project/examples/runs.csv"
else
    production datasets add SiR2 "$runs" --quality=gold
fi
production datasets list

produce alcapana 'First pass: alcapana makes trees, histograms and ODB dumps from the raw files'
produce rootana 'Second pass: rootana makes physics histograms from the trees'

title 'What was produced'
production status
newest=$("$python" - "$database" <<'PYTHON'
import sqlite3, sys
print(sqlite3.connect(sys.argv[1]).execute(
    "SELECT max(version) FROM productions WHERE type = 'rootana'").fetchone()[0])
PYTHON
)
query "SELECT run, status, user, start, stop, out FROM rootana_v$newest LIMIT 3"
query "SELECT count(*), round(sum(cpu_seconds)), max(peak_memory)/1000000 FROM rootana_v$newest"
query "SELECT count(DISTINCT modules), count(*) FROM rootana_v$newest"

"$python" "$project/examples/picture.py" --database "$database" --table "rootana_v$newest" \
    --output "$demo/mass.png"
title "Done. The picture: $demo/mass.png   The outputs: $demo/data"
