// NVRTC: programs, and a compiler that Python puts behind it (compiling.py).
#include <stdio.h>
#include <string.h>

#include "cuda.h"

namespace {

struct Program {
    std::string source, log, binary;
};
// Compiles; the log goes to a buffer of `room` bytes, the path of the library that was made to another.
typedef int (*Compiler)(const char* source, int count, const char** options, char* path, char* log, size_t room);
Compiler compiler;

}  // namespace

EXPORT void simulated_compiler(Compiler wanted) { compiler = wanted; }

DRIVER nvrtcVersion(int* major, int* minor) {
    *major = CUDART_VERSION / 1000;
    *minor = CUDART_VERSION % 1000 / 10;
    return 0;
}
EXPORT const char* nvrtcGetErrorString(int error) {
    return error == 6 ? "NVRTC_ERROR_COMPILATION" : error ? "NVRTC_ERROR" : "NVRTC_SUCCESS";
}
DRIVER nvrtcGetNumSupportedArchs(int* count) { return *count = 6, 0; }
DRIVER nvrtcGetSupportedArchs(int* architectures) {
    const int known[] = {75, 80, 86, 90, 100, 120};
    memcpy(architectures, known, sizeof known);
    return 0;
}
DRIVER nvrtcCreateProgram(Program** made, const char* source, const char*, int, const char**, const char**) {
    *made = new Program{source};
    return 0;
}
DRIVER nvrtcDestroyProgram(Program** program) {
    delete *program;
    *program = nullptr;
    return 0;
}
DRIVER nvrtcCompileProgram(Program* program, int count, const char** options) {
    {
        ENTER;
    }
    // Not under the lock: the compiler is Python's, and who holds Python's own lock may be waiting for this one.
    if (program->source.empty()) return 0;
    std::string path(4096, '\0'), log(1 << 16, '\0');
    int error = compiler(program->source.c_str(), count, options, &path[0], &log[0], log.size());
    program->log = log.c_str();
    if (error) return error;
    FILE* file = fopen(path.c_str(), "rb");
    if (!file) return 6;
    std::string library;
    char part[65536];
    for (size_t size; (size = fread(part, 1, sizeof part, file));) library.append(part, size);
    fclose(file);
    size_t size = library.size();
    program->binary = "SIMCUBIN" + std::string(reinterpret_cast<char*>(&size), 8) + library;
    return 0;
}
DRIVER nvrtcGetPTXSize(Program*, size_t* size) { return *size = 1, 0; }
DRIVER nvrtcGetPTX(Program*, char* text) { return *text = 0, 0; }
DRIVER nvrtcGetCUBINSize(Program* program, size_t* size) { return *size = program->binary.size() + 1, 0; }
DRIVER nvrtcGetCUBIN(Program* program, char* binary) {
    memcpy(binary, program->binary.c_str(), program->binary.size() + 1);
    return 0;
}
DRIVER nvrtcGetProgramLogSize(Program* program, size_t* size) { return *size = program->log.size() + 1, 0; }
DRIVER nvrtcGetProgramLog(Program* program, char* log) { return strcpy(log, program->log.c_str()), 0; }
