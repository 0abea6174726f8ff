"""Evidence: what an answer was and what it rests on, in a document that others can check and compute again."""
