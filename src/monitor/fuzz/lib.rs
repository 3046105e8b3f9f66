//! The modules of the monitor that are fuzzed, under the library's name: depending on the package would build libcontainer,
//! which only its binary needs, and sixty crates below it.

#[path = "../src/frame.rs"]
pub mod frame;
#[path = "../src/log_line.rs"]
pub mod log_line;
#[path = "../src/protocol.rs"]
pub mod protocol;
