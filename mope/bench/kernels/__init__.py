"""What `mope bench kernels` measures, on whatever device is there. Start reading at `run.bench_kernels`."""
