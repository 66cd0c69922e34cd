"""Import and export of open weights: safetensors files, name mappings, and the layouts of Wan, T5 and CLIP."""
