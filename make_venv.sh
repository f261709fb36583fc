#!/bin/sh
# sh make_venv.sh DIRECTORY PYTHON…   a virtual environment with all that `make test` needs, of the first Python that works
#
# One that is there keeps its Python, unless a single other one is named, and gets what it lacks.
set -u
directory=$1
shift
kept=$directory/bin/python
wanted="--requirement requirements.txt"
for extra in web judge dev; do wanted="$wanted --requirement requirements/$extra.txt"; done
supported='import sys, venv, ensurepip; print(sys.version); sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))'

install() {
    echo "installing what it lacks of requirements.txt and requirements/: a new one takes minutes, in which pip prints nothing;"
    echo "on Linux, where PyTorch brings CUDA, some 3 GB are downloaded, and $directory takes 6 GB"
    "$kept" -m pip install --quiet --disable-pip-version-check $wanted
}

if "$kept" -m pip --version >/dev/null 2>&1 && version=$("$kept" -c "$supported"); then
    if [ $# -gt 1 ] || [ "$version" = "$("$1" -c "$supported" 2>/dev/null)" ]; then
        echo "$directory: $("$kept" --version), as it is there"
        install
        exit
    fi
fi
for python; do
    if ! "$python" -c "$supported" >/dev/null 2>&1; then
        [ $# -gt 1 ] || echo "$python: is not there, is no Python from 3.11 to 3.14, or has no venv (Debian: apt-get install python3-venv)" >&2
        continue
    fi
    echo "$directory: $("$python" --version) ($(command -v "$python"))"
    "$python" -m venv --clear "$directory" && install && exit
    echo "$python: what is in requirements.txt cannot be installed with it" >&2
done
echo "error: no Python from 3.11 to 3.14 that works; make setup PYTHON=/path/to/python3.12 names one" >&2
exit 1
