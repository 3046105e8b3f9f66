//! Header blocks after decompression: what is parsed is written and parsed again to the same.
#![no_main]

use crisp_stream::spdy::headers::{Deflater, Headers, Inflater};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|block: &[u8]| {
    let Ok(headers) = Headers::parse(block) else { return };
    assert_eq!(Headers::parse(&headers.encode()).as_ref(), Ok(&headers));
    let packed = Deflater::new().unwrap().pack(&headers).unwrap();
    if let Ok(unpacked) = Inflater::default().unpack(&packed) {
        assert_eq!(Headers::parse(&unpacked), Ok(headers));
    }
});
