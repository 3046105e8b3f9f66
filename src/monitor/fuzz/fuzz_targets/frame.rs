//! Whatever bytes come, a frame is a message or an error, and what was decoded is encoded to something that decodes to the same.
#![no_main]

use crisp_monitor::{
    frame::{self, HEADER},
    protocol::{Call, MAX_FRAME, Message},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((header, body)) = bytes.split_first_chunk::<HEADER>() else { return };
    if let Ok(length) = frame::length(*header) {
        assert!(length <= MAX_FRAME);
    }
    if let Ok(call) = frame::decode::<Call>(body) {
        let again = frame::encode(&call).expect("what was decoded can be encoded");
        let same: Call = frame::decode(&again[HEADER..]).expect("and decoded again");
        assert_eq!(format!("{call:?}"), format!("{same:?}"));
    }
    if let Ok(message) = frame::decode::<Message>(body) {
        let again = frame::encode(&message).expect("what was decoded can be encoded");
        let same: Message = frame::decode(&again[HEADER..]).expect("and decoded again");
        assert_eq!(format!("{message:?}"), format!("{same:?}"));
    }
});
