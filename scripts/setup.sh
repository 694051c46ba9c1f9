# shellcheck shell=sh
# Sourced by the other scripts: makes .venv in the repository's root, unless it is there and up to date.
#
# PYTHON        the Python to make it with          (default: the first of 3.11 or newer that is found)
# GPUNN_EXTRA   cuda13, cuda12 or cpu               (default: what fits the NVIDIA driver)

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
venv=$root/.venv
made=$venv/gpunn-made      # in what this script made, which it may also remove
state=$venv/gpunn-setup    # what .venv was set up for, and its extras; written last: without it, it is half-made
log=$venv/gpunn-setup.log

say() { printf 'gpunn: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# Each is run, not only looked up: a shim of pyenv's is there and still cannot be run.
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
    say "making .venv with $("$python" -V 2>&1) (only this once)"
    rm -rf "$venv"
    mkdir "$venv" || die "$root cannot be written: use a checkout of your own"
    : > "$made"
    "$python" -m venv "$venv" || die "making $venv with $python failed: see above"
}

# Says in two lines which extra fits the driver, or cpu, and why. The same code as gpunn doctor decides.
# What is installed must not depend on which GPUs this one run may see.
ask_doctor() { (unset CUDA_VISIBLE_DEVICES; exec "$venv/bin/python" -I "$root/gpunn/backend/driver.py"); }

# The driver and the GPUs as files tell of them: nvidia-smi can take seconds.
machine() {
    for file in /proc/driver/nvidia/version /proc/driver/nvidia/gpus/*/information; do
        [ ! -r "$file" ] || { IFS= read -r line < "$file" && printf '%s, ' "$line"; } || :
    done
    [ ! -e /dev/nvidiactl ] && [ ! -e /dev/dxg ] || printf 'with devices'
}

# Removes what was installed for another CUDA than $cuda, which pip never does: of two CuPy wheels each has overwritten
# files of the other, and the libraries of CUDA 13 are found before those of CUDA 12. CuPy goes last, so that a removal
# that broke off is begun again.
remove_other_cuda() {
    others=$("$venv/bin/python" -I -c '
import re, sys
from importlib.metadata import distributions
names = {re.sub(r"[-_.]+", "-", dist.name).lower() for dist in distributions() if dist.name}
cupys = {name for name in names if re.fullmatch(r"cupy|cupy-(cuda|rocm).*", name)}
libraries = {"nvidia-cublas", "nvidia-cuda-nvrtc", "nvidia-cuda-runtime"} if sys.argv[1] == "cuda12" else set()
if cupys - {f"cupy-{sys.argv[1]}x"}:
    print(*sorted(names & libraries), *sorted(cupys))
' "$cuda") || die "the packages in $venv cannot be listed: remove .venv, then run this again"
    [ -n "$others" ] || return 0
    say "removing $others, which $cuda cannot be beside"
    # shellcheck disable=SC2086  # names of packages, to be split
    "$venv/bin/python" -m pip uninstall --disable-pip-version-check --quiet --yes $others ||
        die "removing $others failed: remove .venv, then run this again"
}

# Runs pip and shows a line for each large download, and how far it is; the whole log stays in .venv.
install() {
    # An older pip shows that to a terminal only.
    bar=$("$venv/bin/python" -I -c '
from importlib.metadata import version
print("raw" if tuple(map(int, version("pip").split(".")[:2])) >= (24, 1) else "off")' 2>/dev/null) || bar=off
    what='' shown=0
    # The root may have blanks or brackets in its name, so pip is given none of it.
    (cd "$root" && "$venv/bin/python" -m pip install --disable-pip-version-check --progress-bar "$bar" \
        --editable ".$1" 2>&1 && echo "exit 0" || echo "exit 1") | tee "$log" | while IFS= read -r line; do
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

# setup [test]: makes sure that .venv holds gpunn, with its test extra if that is asked for.
setup() {
    case ${GPUNN_EXTRA:=auto} in
        auto | cuda12 | cuda13 | cpu) ;;
        *) die "GPUNN_EXTRA=$GPUNN_EXTRA is unknown: set it to cuda13, cuda12 or cpu, or unset it" ;;
    esac
    key="$(cksum < "$root/pyproject.toml"); $(machine); $GPUNN_EXTRA; $root"
    known='' had=''
    [ ! -r "$state" ] || { IFS= read -r known && IFS= read -r had; } < "$state" || :
    if [ ! -d "$venv" ] || [ -e "$made" ]; then
        if [ "${known##*; }" != "$root" ] || ! is_python "$venv/bin/python"; then
            make_venv
            known='' had=''
        fi
    elif ! is_python "$venv/bin/python"; then
        die ".venv does not run, or is older than Python 3.11, and was not made by this script: remove it, or mend it"
    fi
    cuda=$GPUNN_EXTRA reason="GPUNN_EXTRA=$GPUNN_EXTRA"
    if [ "$known" = "$key" ]; then
        case ",$had,$GPUNN_EXTRA" in
            *,cuda*,auto) cuda=here ;;
            # A driver may begin to work with no file changed: its library installed later, a reboot, --gpus.
            *,auto) case $(ask_doctor 2>/dev/null) in cuda*) ;; *) cuda=here ;; esac ;;
            *) cuda=here ;;
        esac
        case "$cuda,$had," in here*",${1:-$had},"*) return ;; esac
        cuda=$GPUNN_EXTRA
    fi
    if [ "$cuda" = auto ]; then
        cuda=$(ask_doctor)
        reason=$(printf '%s\n' "$cuda" | sed -n 2p)
        cuda=$(printf '%s\n' "$cuda" | sed -n 1p)
    fi
    extras=
    if [ "$cuda" = cpu ]; then
        say "installing for the CPU: $reason"
    else
        say "installing for the GPU with the extra $cuda, about 1 GB"
        extras=$cuda
    fi
    # What a run of another script asked for stays.
    for extra in test fuzz; do
        case ",$had,${1:-}," in *,"$extra",*) extras=$extras${extras:+,}$extra ;; esac
    done
    # An update that breaks off leaves packages half replaced, so until it is done .venv counts as half-made.
    rm -f "$state"
    [ "$cuda" = cpu ] || remove_other_cuda
    install "${extras:+[$extras]}"
    printf '%s\n%s\n' "$key" "$extras" > "$state"
    say "ready"
}
