# shellcheck shell=sh
# Sourced by the other scripts: makes .venv in the repository's root, unless it is there and up to date.
#
# PYTHON        the Python to make it with          (default: the first of 3.11 or newer that is found)
# GPUNN_EXTRA   cuda13, cuda12 or cpu               (default: what fits the NVIDIA driver)

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
venv=$root/.venv
state=$venv/gpunn-setup      # written last, so a .venv that has it is complete
making=$root/.venv.making    # there while .venv is being made, so what it leaves behind is half-made
lock=$root/.venv.lock

say() { printf 'gpunn: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

is_python() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

# Sets python. A candidate is run, not only looked up: a shim of pyenv's is there and still cannot be run.
find_python() {
    if [ -n "${PYTHON:-}" ]; then
        is_python "$PYTHON" || die "PYTHON=$PYTHON is no Python 3.11 or newer: set it to one, or unset it"
        python=$PYTHON
        return
    fi
    python=
    for candidate in python3.13 python3.12 python3.11 python3 python; do
        is_python "$candidate" || continue
        # The first that can make an environment by itself; else the first of all.
        if "$candidate" -c 'import venv, ensurepip' >/dev/null 2>&1; then
            python=$candidate
            return
        fi
        python=${python:-$candidate}
    done
    if [ -z "$python" ] && command -v uv >/dev/null 2>&1; then
        python=$(uv python find '>=3.11' 2>/dev/null) || python=
    fi
    [ -n "$python" ] || die "Python 3.11 or newer was not found: install it, or set PYTHON to one that is elsewhere"
}

make_venv() {
    if "$python" -c 'import venv, ensurepip' >/dev/null 2>&1; then
        "$python" -m venv "$venv"
    elif "$python" -m virtualenv --version >/dev/null 2>&1; then
        "$python" -m virtualenv --quiet "$venv"
    elif command -v virtualenv >/dev/null 2>&1; then
        virtualenv --quiet --python "$python" "$venv"
    elif command -v uv >/dev/null 2>&1; then
        uv venv --quiet --seed --python "$python" "$venv"
    else
        die "$python cannot make virtual environments: install python3-venv (Debian, Ubuntu: apt install python3-venv)"
    fi || die "making $venv with $python failed: see the lines above, or set PYTHON to another Python"
}

# Says in two lines which extra fits the driver, or cpu, and why. The same code as gpunn doctor decides.
# What is installed must not depend on which GPUs this one run may see.
ask_doctor() { (unset CUDA_VISIBLE_DEVICES; exec "$venv/bin/python" -I "$root/gpunn/doctor.py"); }

# Sets cuda to the extra that fits, cuda_reason to why there is none.
choose_cuda() {
    cuda_reason="GPUNN_EXTRA=${GPUNN_EXTRA:-}"
    case ${GPUNN_EXTRA:-auto} in
        cuda12 | cuda13 | cpu) cuda=$GPUNN_EXTRA ;;
        auto)
            cuda=$(ask_doctor)
            cuda_reason=$(printf '%s\n' "$cuda" | sed -n 2p)
            cuda=$(printf '%s\n' "$cuda" | sed -n 1p)
            ;;
        *) die "GPUNN_EXTRA=$GPUNN_EXTRA is unknown: set it to cuda13, cuda12 or cpu, or unset it" ;;
    esac
}

# Runs pip and shows a line for each large download, and how far it is; the whole log stays in .venv.
install() {
    log=$venv/gpunn-setup.log
    # An older pip shows that to a terminal only.
    bar=$("$venv/bin/python" -I -c '
from importlib.metadata import version
print("raw" if tuple(map(int, version("pip").split(".")[:2])) >= (24, 1) else "off")' 2>/dev/null) || bar=off
    what='' shown=0
    # The root may have blanks or brackets in its name, so pip is given none of it.
    {
        (cd "$root" && exec "$venv/bin/python" -m pip install --disable-pip-version-check --progress-bar "$bar" \
            --editable ".$1") 2>&1 && echo "exit 0" || echo "exit 1"
    } | tee "$log" | while IFS= read -r line; do
        case $line in
            *Downloading*" MB)" | *Downloading*" GB)")
                line=${line##*Downloading }
                size=${line##* (}
                what=${line%%-*} shown=0
                say "  downloading $what, ${size%)}"
                ;;
            "Progress "[0-9]*" of "[0-9]*)
                share=${line#Progress }
                total=${share#* of }
                share=$((${share% of *} * 10 / (total > 0 ? total : 1)))
                # Ten lines for each file that takes a while.
                [ "$total" -gt 50000000 ] && [ "$share" -gt "$shown" ] || continue
                shown=$share
                say "  downloading $what, ${share}0 %"
                ;;
            "Installing collected packages"*) say "  installing the packages" ;;
        esac
    done
    [ "$(tail -n 1 "$log")" = "exit 0" ] && return
    grep -i 'error' "$log" | tail -n 3 >&2
    die "the installation failed (everything it said is in $log): check the network, then run this again"
}

# Removes what was installed for another CUDA than $cuda, which pip never does: of two CuPy wheels each has overwritten
# files of the other, and the libraries of CUDA 13 are found before those of CUDA 12.
remove_other_cuda() {
    others=$("$venv/bin/python" -I -c '
import re, sys
from importlib.metadata import distributions
names = {re.sub(r"[-_.]+", "-", dist.name).lower() for dist in distributions() if dist.name}
cupys = {name for name in names if re.fullmatch(r"cupy|cupy-(cuda|rocm).*", name)}
libraries = {"nvidia-cublas", "nvidia-cuda-nvrtc", "nvidia-cuda-runtime"}
if cupys - {f"cupy-{sys.argv[1]}x"}:
    print(*sorted(cupys | (names & libraries if sys.argv[1] == "cuda12" else set())))
' "$cuda") || die "the packages in $venv cannot be listed: remove .venv, then run this again"
    [ -n "$others" ] || return 0
    say "removing $others, which $cuda cannot be beside"
    # shellcheck disable=SC2086  # names of packages, to be split
    "$venv/bin/python" -m pip uninstall --disable-pip-version-check --quiet --yes $others ||
        die "removing $others failed: remove .venv, then run this again"
}

# What must be the same for .venv to be up to date. Reads files only: nvidia-smi can take seconds.
current_key() {
    driver=none
    [ ! -r /proc/driver/nvidia/version ] || IFS= read -r driver < /proc/driver/nvidia/version || :
    [ ! -e /dev/nvidiactl ] && [ ! -e /dev/dxg ] || driver="$driver, with devices"
    # An older GPU that was added may need another extra under the same driver.
    for gpu in /proc/driver/nvidia/gpus/*/information; do
        [ ! -r "$gpu" ] || { IFS= read -r model < "$gpu" && driver="$driver, $model"; } || :
    done
    printf '%s; %s; %s; %s' "$(cksum < "$root/pyproject.toml")" "$driver" "${GPUNN_EXTRA:-auto}" "$root"
}

base_of() { "$1" -c 'import os, sys; print(os.path.realpath(sys._base_executable))'; }

# Sets had (the extras installed), known (the key they were installed under), base, maker from the state file.
read_state() {
    had='' known='' base='' maker=''
    [ -r "$state" ] && { IFS= read -r known && IFS= read -r had && IFS= read -r base && IFS= read -r maker; } < "$state"
}

is_ready() {
    read_state && [ -x "$venv/bin/python" ] && [ "$known" = "$key" ] || return 1
    [ -z "$1" ] || case ",$had," in *",$1,"*) ;; *) return 1 ;; esac
    # A driver may begin to work with no file changed: its library installed later, a reboot, a container with --gpus.
    case ",$had,${GPUNN_EXTRA:-auto}" in
        *,cuda*,auto) ;;
        *,auto) case $(ask_doctor 2>/dev/null) in cuda*) return 1 ;; esac ;;
    esac
    [ -z "${PYTHON:-}" ] || [ "$(base_of "$PYTHON" 2>/dev/null)" = "$base" ]
}

# The lock is a link to its owner's process number, so it never exists without one.
take_lock() {
    waited=0
    until ln -s $$ "$lock" 2>/dev/null; do
        [ -w "$root" ] || die "$root cannot be written: use a checkout of your own"
        owner=$(readlink "$lock") || continue
        if ! kill -0 "$owner" 2>/dev/null && mkdir "$lock.breaking" 2>/dev/null; then
            # The owner was killed. Only one run at a time looks once more, and removes the lock.
            [ "$(readlink "$lock")" != "$owner" ] || rm -f "$lock"
            rmdir "$lock.breaking"
            continue
        fi
        [ $waited -ne 0 ] || say "another run is setting up .venv: waiting for it"
        [ $waited -lt 3600 ] || die "another run has been setting up .venv for an hour: if none is, remove $lock*"
        waited=$((waited + 1))
        sleep 1
    done
    trap 'rm -f "$lock"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
}

# Whether .venv has to be made anew: it is missing, half-made, or does not run here any more.
must_make() {
    [ ! -e "$making" ] && [ -d "$venv" ] || return 0
    if ! read_state; then
        # Made by hand: it is used, and never removed.
        maker=user
        base=$(base_of "$venv/bin/python" 2>/dev/null) || base=
    fi
    wrong=
    is_python "$venv/bin/python" || wrong="does not run, or is older than Python 3.11"
    [ -n "$wrong" ] || case $known in *"; $root" | '') ;; *) wrong="was made for another folder" ;; esac
    if [ -z "$wrong" ] && [ -n "${PYTHON:-}" ] && [ "$(base_of "$PYTHON")" != "$base" ]; then
        wrong="is not of $PYTHON"
    fi
    [ -n "$wrong" ] || return 1
    [ "$maker" != user ] || die ".venv $wrong, and was not made by this script: remove it, or mend it"
    return 0
}

# setup [test]: makes sure that .venv holds gpunn, with its test extra if that is asked for.
setup() {
    key=$(current_key)
    is_ready "${1:-}" && return
    take_lock
    is_ready "${1:-}" || build "${1:-}"
    rm -f "$lock"
    trap - EXIT INT TERM HUP
}

build() {
    if must_make; then
        find_python
        say "making .venv with $("$python" -V 2>&1) (only this once)"
        had='' maker=script
        : > "$making"
        rm -rf "$venv"
        make_venv
        base=$(base_of "$venv/bin/python")
    fi
    choose_cuda
    if [ "$cuda" = cpu ]; then
        say "installing for the CPU: $cuda_reason"
        extras=
    else
        say "installing for the GPU with the extra $cuda, about 1 GB"
        extras=$cuda
    fi
    # What a run of another script asked for stays.
    for extra in test fuzz; do
        case ",$had,$1," in *,"$extra",*) extras=$extras${extras:+,}$extra ;; esac
    done
    # An update that breaks off leaves packages half replaced, so from here on .venv counts as half-made.
    [ "$maker" = user ] || : > "$making"
    rm -f "$state"
    [ "$cuda" = cpu ] || remove_other_cuda
    install "${extras:+[$extras]}"
    printf '%s\n%s\n%s\n%s\n' "$key" "$extras" "$base" "$maker" > "$state"
    rm -f "$making"
    say "ready"
}
