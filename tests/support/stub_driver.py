"""A driver's library made of a few lines of C, which answers what environment variables say."""

import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

# S_VERSION: of CUDA; S_INIT: what cuInit answers; S_HANG: it never answers; S_COUNT, S_CC ("89,61"), S_NAME: its GPUs.
SOURCE = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static int number(const char *name, int other) { const char *text = getenv(name); return text ? atoi(text) : other; }
static int capability(int device) {
    const char *text = getenv("S_CC");
    if (!text) return 86;
    for (; device > 0 && strchr(text, ','); device--) text = strchr(text, ',') + 1;
    return atoi(text);
}
int cuDriverGetVersion(int *version) { *version = number("S_VERSION", 13000); return 0; }
int cuInit(unsigned flags) { while (number("S_HANG", 0)) sleep(10); return number("S_INIT", 0); }
int cuDeviceGetCount(int *count) { *count = number("S_COUNT", 1); return number("S_COUNT_CODE", 0); }
int cuDeviceGet(int *device, int index) { *device = index; return 0; }
int cuDeviceGetName(char *name, int size, int device) {
    const char *text = getenv("S_NAME");
    snprintf(name, size, "%s", text ? text : "Stub GPU");
    return 0;
}
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = 8ull << 30; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 75 ? capability(device) / 10 : attribute == 76 ? capability(device) % 10
        : attribute == 20 ? number("S_MODE", 0) : 0;
    return 0;
}
int cuDeviceGetPCIBusId(char *id, int size, int device) { snprintf(id, size, "0000:%02x:00.0", device + 1); return 0; }
int cuGetErrorString(int code, const char **text) { *text = "in the words of the driver"; return 0; }
"""

# NVML. S_NVML: what its start answers; S_NVML_HANG: it never does; S_USED: MiB that are in use on each GPU, in the
# order of the bus; S_NVML_MEMORY: what the question for memory answers; S_MIG: which are divided ("1,0").
MANAGEMENT = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static int number(const char *name, int other) { const char *text = getenv(name); return text ? atoi(text) : other; }
static int of(const char *name, void *gpu) {
    const char *text = getenv(name);
    for (long at = (long)gpu - 1; text && at > 0 && (text = strchr(text, ',')); at--) text++;
    return text ? atoi(text) : 0;
}
int nvmlInit_v2(void) { while (number("S_NVML_HANG", 0)) sleep(10); return number("S_NVML", 0); }
int nvmlDeviceGetHandleByPciBusId_v2(const char *id, void **gpu) {
    unsigned bus;
    if (sscanf(id, "0000:%x:00.0", &bus) != 1 || bus < 1) return 6;
    *gpu = (void *)(long)bus;
    return 0;
}
int nvmlDeviceGetMemoryInfo(void *gpu, unsigned long long *memory) {
    memory[0] = 40ull << 30, memory[2] = (unsigned long long)of("S_USED", gpu) << 20, memory[1] = memory[0] - memory[2];
    return number("S_NVML_MEMORY", 0);
}
int nvmlDeviceGetMigMode(void *gpu, unsigned *now, unsigned *later) {
    if (!getenv("S_MIG")) return 3;  // not supported
    *now = *later = of("S_MIG", gpu);
    return 0;
}
"""


@functools.cache
def stub_driver() -> Path:
    """The folder that holds the driver's library and NVML, for LD_LIBRARY_PATH."""
    compiler = shutil.which("gcc") or shutil.which("cc") or shutil.which("g++")
    if compiler is None:
        pytest.skip("a stub of the driver needs a C compiler: apt install gcc")
    folder = Path(tempfile.mkdtemp(prefix="stub-driver-"))
    for library, source in {"libcuda.so.1": SOURCE, "libnvidia-ml.so.1": MANAGEMENT}.items():
        (folder / "stub.c").write_text(source)
        command = [compiler, "-x", "c", "-shared", "-fPIC", "-w", "stub.c", "-o", library]
        subprocess.run(command, cwd=folder, check=True, timeout=120)
    return folder


def with_driver(**variables: str) -> dict[str, str]:
    """The environment of a process that finds the stub before any other driver."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CUDA_", "SLURM_", "NVIDIA_"))}
    return kept | {"LD_LIBRARY_PATH": str(stub_driver())} | variables
