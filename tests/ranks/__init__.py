"""One network in several processes, which mpiexec starts; a stage of CI of its own, with the extra mpich."""
