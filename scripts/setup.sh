# shellcheck shell=sh
# Sourced by the other scripts: make .venv in the repository's root, and install what it lacks.
#
# PYTHON        the Python for .venv                (default: the first found of 3.11 or newer)
# GPUNN_EXTRA   cuda13, cuda12 or cpu               (default: the one that fits the NVIDIA driver)

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
venv=$root/.venv
made=$venv/gpunn-made      # marks a .venv that this script made, and so may remove
state=$venv/gpunn-setup    # project table, path and extras of .venv; written last: without it .venv is unfinished

say() { printf 'gpunn: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# Run each candidate: a shim of pyenv is on the path even where it cannot run.
is_python() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

make_venv() {
    python=${PYTHON:-}
    for candidate in python3.13 python3.12 python3.11 python3 python; do
        [ -n "$python" ] || ! is_python "$candidate" || python=$candidate
    done
    [ -n "$python" ] || die "Python 3.11 or newer was not found: install it, or set PYTHON to one that is elsewhere"
    is_python "$python" || die "PYTHON=$python is no Python 3.11 or newer: set it to one, or unset it"
    "$python" -c 'import venv, ensurepip' 2>/dev/null ||
        die "$python cannot make virtual environments: install python3-venv (Debian, Ubuntu: apt install python3-venv)"
    say "making .venv with $("$python" -V 2>&1)"
    rm -rf "$venv"
    mkdir "$venv" || die "$root cannot be written: use a checkout of your own"
    : > "$made"
    "$python" -m venv "$venv" || die "making $venv with $python failed: see above"
}

# setup [test | fuzz | lecture | site]: make sure that .venv holds gpunn with that extra, with the CUDA that fits the
# driver, and with the extra web for `gpunn serve` (1 MB).
setup() {
    case ${GPUNN_EXTRA:=auto} in
        auto | cuda12 | cuda13 | cpu) ;;
        *) die "GPUNN_EXTRA=$GPUNN_EXTRA is unknown: set it to cuda13, cuda12 or cpu, or unset it" ;;
    esac
    key="$(cksum < "$root/pyproject.toml") $root" known='' had=''
    [ ! -r "$state" ] || { IFS= read -r known && IFS= read -r had; } < "$state" || :
    if [ -d "$venv" ] && [ ! -e "$made" ]; then
        is_python "$venv/bin/python" ||
            die ".venv does not run, or is older than Python 3.11, and was not made by this script: remove it, or mend it"
    elif [ "${known#* * }" != "$root" ] || ! is_python "$venv/bin/python"; then
        make_venv
        known='' had=''
    fi
    cuda=$GPUNN_EXTRA why="GPUNN_EXTRA=$GPUNN_EXTRA"
    # Decide by the code of gpunn doctor. The choice must not depend on the GPUs that this one run may see.
    [ "$cuda" != auto ] || { read -r cuda; IFS= read -r why || :; } <<END
$(unset CUDA_VISIBLE_DEVICES; exec "$venv/bin/python" -I "$root/gpunn/backend/driver.py")
END
    case $cuda:$had in
        cuda12:*cuda13* | cuda13:*cuda12*)  # two wheels of CuPy overwrite each other's files
            [ -e "$made" ] || die ".venv has the extras $had, needs $cuda, and was not made by this script: remove it"
            say "making .venv anew: $cuda cannot be beside what it has, $had"
            make_venv
            known='' ;;
    esac
    extras=''
    # Keep the extras asked for before, CUDA too where no driver is found now.
    for extra in cuda12 cuda13 web test fuzz lecture site; do
        case $extra:$cuda:",$had,$cuda,web,${1:-}," in
            cuda12:cuda13:* | cuda13:cuda12:*) ;;
            *",$extra,"*) extras=$extras${extras:+,}$extra ;;
        esac
    done
    [ "$key,$extras" != "$known,$had" ] || return 0
    if [ "$cuda" = cpu ]; then say "installing for the CPU: $why"
    else say "installing for the GPU with the extra $cuda, about 1 GB"; fi
    rm -f "$state"  # an interrupted update leaves packages half replaced
    # pip gets no path: the root may have blanks or brackets in its name.
    (cd "$root" && "$venv/bin/python" -m pip install --disable-pip-version-check --editable ".${extras:+[$extras]}") >&2 ||
        die "the installation failed: check the network, then run this again"
    printf '%s\n%s\n' "$key" "$extras" > "$state"
    say "ready"
}
