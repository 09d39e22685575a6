//! The bytes of an object to be written, in the pieces that they were made in.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

/// An object's bytes as a list of chunks, so that nobody copies them together. Cheap to clone: a repeat sends the same.
#[derive(Clone, Debug, Default)]
pub struct Body {
    chunks: Arc<[Bytes]>,
    len: u64,
}

impl Body {
    pub fn new(chunks: Vec<Bytes>) -> Self {
        let len = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        Self { chunks: chunks.into(), len }
    }

    pub fn chunks(&self) -> &[Bytes] {
        &self.chunks
    }

    pub fn len(&self) -> u64 {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All bytes in one piece; copies unless there is one chunk.
    pub fn to_bytes(&self) -> Bytes {
        match &*self.chunks {
            [] => Bytes::new(),
            [one] => one.clone(),
            many => {
                let size = many.iter().map(Bytes::len).sum();
                let mut all = BytesMut::with_capacity(size);
                for chunk in many {
                    all.extend_from_slice(chunk);
                }
                all.freeze()
            }
        }
    }

    /// Whether `bytes` are what this body holds.
    pub fn equals(&self, mut bytes: &[u8]) -> bool {
        if bytes.len() as u64 != self.len {
            return false;
        }
        self.chunks.iter().all(|chunk| {
            let (head, rest) = bytes.split_at(chunk.len());
            bytes = rest;
            head == chunk
        })
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::new(vec![bytes])
    }
}

impl From<Vec<Bytes>> for Body {
    fn from(chunks: Vec<Bytes>) -> Self {
        Self::new(chunks)
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<&'static [u8]> for Body {
    fn from(bytes: &'static [u8]) -> Self {
        Bytes::from_static(bytes).into()
    }
}

impl<const N: usize> From<&'static [u8; N]> for Body {
    fn from(bytes: &'static [u8; N]) -> Self {
        Bytes::from_static(bytes).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_its_bytes_however_they_are_cut() {
        let whole = Body::from(b"abcdef");
        let cut = Body::new(vec![Bytes::from_static(b"ab"), Bytes::new(), Bytes::from_static(b"cdef")]);
        assert_eq!((whole.len(), cut.len()), (6, 6));
        assert_eq!(whole.to_bytes(), cut.to_bytes());
        assert!(cut.equals(b"abcdef") && !cut.equals(b"abcdeg") && !cut.equals(b"abcde") && !cut.equals(b"abcdefg"));
        assert!(Body::default().equals(b"") && Body::default().is_empty());
    }
}
