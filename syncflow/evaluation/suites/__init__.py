"""What is measured: cases, the systems that answer them, and the runs over both."""
