"""What is not a task itself, but a part of one or of several like it."""
