"""`citybrain proof`: that nothing was lost, doubled or reordered, from books that were kept apart from each other."""
