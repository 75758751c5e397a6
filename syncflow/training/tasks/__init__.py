"""What can be trained, and what each of them is made of."""
