"""Reports for people: what they say in which order, as a page and as a PDF."""
