"""Who is asking, and may they; see README.md."""
