"""Open weights in and out: files, strict maps of names, and the layouts of Wan, T5 and CLIP."""
