"""The border to what may be hostile: files and JSON that are read, processes that read them, text on the terminal."""
