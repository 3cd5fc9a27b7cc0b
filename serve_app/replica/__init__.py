"""What a replica that generates tells Ray, and learns from it."""
