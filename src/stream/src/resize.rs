//! The resize stream: JSON objects `{"Width":80,"Height":24}` one after the other, cut anywhere.

use serde::Deserialize;

/// Bytes of an object that has begun. Clients send forty.
const MAX: usize = 1024;

#[derive(Deserialize)]
struct Size {
    #[serde(rename = "Width")]
    width: u16,
    #[serde(rename = "Height")]
    height: u16,
}

/// Finds sizes in the bytes of a resize stream.
#[derive(Debug, Default)]
pub(crate) struct Sizes {
    rest: Vec<u8>,
}

impl Sizes {
    /// The (columns, rows) that are complete with these bytes. What is no size is passed over.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<(u16, u16)> {
        self.rest.extend_from_slice(bytes);
        let mut sizes = Vec::new();
        let mut stream = serde_json::Deserializer::from_slice(&self.rest).into_iter::<Size>();
        let mut used = 0;
        while let Some(size) = stream.next() {
            match size {
                Ok(Size { width, height }) => {
                    sizes.push((width, height));
                    used = stream.byte_offset();
                }
                // An object that is not complete yet stays.
                Err(error) if error.is_eof() => break,
                Err(_) => {
                    used = self.rest.len();
                    break;
                }
            }
        }
        self.rest.drain(..used);
        if self.rest.len() > MAX {
            self.rest.clear();
        }
        sizes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_cut_anywhere() {
        let text = b"{\"Width\":80,\"Height\":24}\n{\"Width\":132,\"Height\":43}\n";
        for cut in 0..text.len() {
            let mut sizes = Sizes::default();
            let mut found = sizes.push(&text[..cut]);
            found.extend(sizes.push(&text[cut..]));
            assert_eq!(found, [(80, 24), (132, 43)], "{cut}");
        }
    }

    #[test]
    fn nonsense_is_passed_over_and_bounded() {
        let mut sizes = Sizes::default();
        assert_eq!(sizes.push(b"hello"), []);
        assert_eq!(sizes.push(b"{\"Width\":-1,\"Height\":70000}"), []);
        assert_eq!(sizes.push(b"{\"Width\":1,\"Height\":2}"), [(1, 2)]);
        let mut endless = Sizes::default();
        for _ in 0..100 {
            endless.push(&[b'['; 100]);
            assert!(endless.rest.len() <= MAX);
        }
    }
}
