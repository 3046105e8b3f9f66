//! Records on disk, replaced atomically.
