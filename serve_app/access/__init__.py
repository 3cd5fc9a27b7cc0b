"""Who may ask what, and how much: keys, lists of endpoints, limits, and the front of a replica."""
