"""Rights signals in and beside works: whether their owners reserved text and data mining, or training."""
