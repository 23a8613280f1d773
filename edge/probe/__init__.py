"""Who is on this line? Asks, one question at a time, and only questions that read."""
