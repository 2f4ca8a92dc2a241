#!/bin/sh
# What only a GPU shows, within twelve minutes, by any python that has the packages: see benchmarks/gpu.py
#     [PYTHON=python3] benchmarks/gpu.sh [FOLDER] [flags]
here=$(cd "$(dirname "$0")" && pwd)
if [ -z "$PYTHON" ]; then
    PYTHON=$here/../.venv/bin/python
    [ -x "$PYTHON" ] || PYTHON=python3
fi
exec "$PYTHON" "$here/gpu.py" "$@"
