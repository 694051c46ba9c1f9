"""Look at a machine and at a training from outside: doctor, self-test and profiler."""
