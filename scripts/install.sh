#!/bin/sh
# The environment in .venv, exactly as requirements.lock pins it: every file is checked against its hash.
# pip installs uv (pinned in the lock as well), and uv installs the rest in a tenth of pip's time. uv does not read
# pip's configuration, so where it cannot reach the packages (an index of your own, set up for pip), pip does it all.
set -eu
cd "$(dirname "$0")/.."
PYTHON="${PYTHON:-python3}"
"$PYTHON" - <<'CHECK' || exit 1
import sys
if sys.version_info < (3, 11):
    sys.exit(f"heed needs Python 3.11 or newer, this is {sys.version.split()[0]}. Say which with: make PYTHON=python3.12")
CHECK
if ! [ -x .venv/bin/python ]; then
    echo "making the environment in .venv"
    "$PYTHON" -m venv .venv || {
        echo "Python's venv module is missing. On Debian and Ubuntu: apt-get install python3-venv" >&2
        exit 1
    }
fi
quiet="--quiet --disable-pip-version-check"
echo "installing the pinned packages (a minute or two the first time)"
sed -n '/^uv==/,/^[^ ]/{/^uv==/p;/^ /p;}' requirements.lock > .venv/uv.lock
# shellcheck disable=SC2086
if .venv/bin/python -m pip install $quiet --require-hashes --no-deps -r .venv/uv.lock 2>.venv/install.log &&
    .venv/bin/uv pip install --quiet --python .venv/bin/python --require-hashes --no-deps \
        -r requirements.lock 2>>.venv/install.log; then
    :
else
    echo "uv could not fetch the packages; pip does it (slower)"
    .venv/bin/python -m pip install $quiet --require-hashes --no-deps -r requirements.lock
fi
# heed itself, in place; its build tool is pinned above, so nothing else is fetched.
# shellcheck disable=SC2086
.venv/bin/python -m pip install $quiet --no-deps --no-build-isolation --no-index --editable .
echo "compiling what would otherwise be compiled on first use"
# Also where Python is told to keep nothing it compiled: this is what installation is for.
env -u PYTHONDONTWRITEBYTECODE .venv/bin/python -m dagster_project.commands.precompile
echo "the environment stands"
