"""Static files: from a URL to a file beneath its root, and from the file to a reply."""
