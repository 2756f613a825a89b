# The environment of the example experiment.  Jobs source it:  . examples/thisdaq.sh
#
# Sets DAQdir to this directory and puts the programs of bin/ on the PATH.  The programs need a
# python3 that has uproot; where that is not the one on the PATH, PRODUCTION_EXAMPLE_PYTHON names it.

DAQdir=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
export DAQdir

if [ -n "${PRODUCTION_EXAMPLE_PYTHON:-}" ]; then
    PATH=$(CDPATH='' cd -- "$(dirname -- "$PRODUCTION_EXAMPLE_PYTHON")" && pwd):$PATH
fi
PATH=$DAQdir/bin:$PATH
export PATH
