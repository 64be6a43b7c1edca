"""Pictures: each module draws one thing, writes the file atomically, and returns the figure."""
