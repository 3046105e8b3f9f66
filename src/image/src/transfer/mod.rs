//! Images from and to archives and folders, for machines without a network.
//!
//! Import reads OCI layouts and `docker save`, as folders or as tar (compressed or not); export writes a tar that is
//! both. What is imported passes the same checks and the same commit as what is pulled.

mod export;
mod import;
mod tar;
