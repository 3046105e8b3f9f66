//! Pod networks: CNI plugins or the built-in bridge.
