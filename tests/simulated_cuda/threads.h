// What the threads of a kernel and the checks of what they do know of each other.
#pragma once
#include "cuda.h"
#include "kernel.h"

// How the threads of the next kernels are run: see simulated_checks.
struct Schedule {
    bool checks = false, races = false;
    unsigned long long seed = 0;
    int order() const { return checks ? seed % 4 : 0; }
    bool preempts() const { return checks && seed / 4 % 2; }
};
extern Schedule schedule;
// The thread that runs, and what it was ordered by: blocks count from 1, barriers of its block and of its warp.
extern unsigned current, block_number, barriers;
unsigned barriers_of_warp();

[[noreturn]] void fail(const char* format, ...);  // the launch ends with it
void may_hand_over();                             // to another thread of the block, by chance
bool is_on_stack(const char* address);            // of a thread

// ---- checks.cpp

void begin_checks(const Kernel* kernel, void** parameters);
void end_checks();
void begin_block();
