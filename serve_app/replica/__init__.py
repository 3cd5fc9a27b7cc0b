"""What a replica tells of its requests, and what it learns from Ray."""
