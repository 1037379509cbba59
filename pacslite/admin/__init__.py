"""Administration over REST: health, peers, and the description of the interface itself."""
