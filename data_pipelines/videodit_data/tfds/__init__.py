"""TensorFlow Datasets both ways, without TensorFlow; needs the extra `tfds`."""
