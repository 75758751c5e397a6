"""What `bash benchmarks/gpu_lease.sh` runs; see its first lines."""
