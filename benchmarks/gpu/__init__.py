"""What `bash benchmarks/gpu_suite.sh` runs; see its first lines."""
