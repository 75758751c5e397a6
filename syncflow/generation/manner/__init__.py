"""Generation as other libraries' users call it."""
