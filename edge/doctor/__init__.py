"""What is wrong on a site, in plain words: on the gateway and from afar."""
