//! References, registries, pulls, layers and the index of images.
