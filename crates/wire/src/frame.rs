//! Frames: a size of four bytes, then as many bytes.
//!
//! Owns: cutting a byte stream into frames. Leaves to others: what is in one (`header`, `message`, `produce`).
//!
//! Invariants:
//! 1. Memory grows with the bytes that have come: at most fourfold, or [`READ_AHEAD`], whatever a size field claims.
//! 2. All state is in the caller's buffer, so a dropped `read_frame` loses nothing.
//! 3. A frame larger than [`READ_AHEAD`] shares its memory with no other frame, so keeping its records keeps no more.
//!
//! Source: `org.apache.kafka.common.network.NetworkReceive`.

use std::io;

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The most that one read takes in beyond the frame it is for: many small requests then come with one system call.
const READ_AHEAD: usize = 64 * 1024;

/// Room for a read between frames: what an idle connection costs.
const READ_MIN: usize = 8 * 1024;

const SIZE_BYTES: usize = 4;

/// A stream that has stopped making sense: nothing after it can be trusted, so the connection is closed.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("a request of {size} bytes is larger than the {limit} bytes allowed")]
    RequestTooLarge { size: usize, limit: usize },
    #[error("a request has the negative size {size}")]
    NegativeSize { size: i32 },
    /// The peer went away inside a frame.
    #[error("the connection ended after {received} of a request's {expected} bytes")]
    Torn { received: usize, expected: usize },
    #[error("cannot read from the connection")]
    Io(#[from] io::Error),
}

/// The next frame without its size field, or `None` where the stream ends between two frames.
///
/// `buf` holds what was read beyond the frame; pass the same one for the whole connection. `size_max` bounds the size
/// field (`socket.request.max.bytes`). Cancel safe.
pub async fn read_frame<R: AsyncRead + Unpin>(
    reader: &mut R,
    buf: &mut BytesMut,
    size_max: usize,
) -> Result<Option<BytesMut>, FrameError> {
    loop {
        let expected = match frame_size(buf, size_max)? {
            Some(size) if buf.len() >= SIZE_BYTES + size => return Ok(Some(split_frame(buf, size))),
            Some(size) => SIZE_BYTES + size,
            None => SIZE_BYTES,
        };
        let missing = expected - buf.len();
        let spare = buf.capacity() - buf.len();
        let room = if expected > SIZE_BYTES + READ_AHEAD {
            if spare == 0 {
                buf.reserve(missing.min(buf.len().saturating_mul(3).max(READ_AHEAD)));
            }
            missing.min(buf.capacity() - buf.len())
        } else {
            if spare < missing {
                buf.reserve(missing.max(READ_MIN));
            }
            READ_AHEAD.min(buf.capacity() - buf.len())
        };
        if reader.read_buf(&mut (&mut *buf).limit(room)).await? == 0 {
            return if buf.is_empty() { Ok(None) } else { Err(FrameError::Torn { received: buf.len(), expected }) };
        }
    }
}

fn split_frame(buf: &mut BytesMut, size: usize) -> BytesMut {
    buf.advance(SIZE_BYTES);
    let frame = buf.split_to(size);
    if size > READ_AHEAD {
        assert!(buf.is_empty(), "a large frame's last read stops at its end");
        *buf = BytesMut::new();
    }
    frame
}

/// The size in a frame's first bytes, once they are there.
fn frame_size(buf: &BytesMut, size_max: usize) -> Result<Option<usize>, FrameError> {
    let Some(bytes) = buf.first_chunk::<SIZE_BYTES>() else { return Ok(None) };
    let raw = i32::from_be_bytes(*bytes);
    let size = usize::try_from(raw).map_err(|_| FrameError::NegativeSize { size: raw })?;
    if size > size_max {
        return Err(FrameError::RequestTooLarge { size, limit: size_max });
    }
    Ok(Some(size))
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use proptest::prelude::*;
    use tokio::io::ReadBuf;

    use super::*;

    /// Hands out its bytes in pieces of the given sizes, over and over; a piece of 0 is a wait.
    struct Pieces<'a> {
        bytes: &'a [u8],
        sizes: &'a [usize],
        turn: usize,
    }

    impl AsyncRead for Pieces<'_> {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            let size = self.sizes[self.turn % self.sizes.len()];
            self.turn += 1;
            if size == 0 {
                return Poll::Pending;
            }
            let n = size.min(self.bytes.len()).min(out.remaining());
            out.put_slice(&self.bytes[..n]);
            self.bytes = &self.bytes[n..];
            Poll::Ready(Ok(()))
        }
    }

    /// All frames of a stream, each wait cancelling the read; then how the stream ended.
    fn frames(bytes: &[u8], sizes: &[usize], size_max: usize) -> (Vec<BytesMut>, Option<FrameError>) {
        let mut reader = Pieces { bytes, sizes, turn: 0 };
        let (mut buf, mut frames) = (BytesMut::new(), Vec::new());
        loop {
            let mut read = std::pin::pin!(read_frame(&mut reader, &mut buf, size_max));
            match read.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Pending => {}
                Poll::Ready(Ok(Some(frame))) => frames.push(frame),
                Poll::Ready(Ok(None)) => return (frames, None),
                Poll::Ready(Err(error)) => return (frames, Some(error)),
            }
        }
    }

    fn stream(bodies: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for body in bodies {
            bytes.extend(i32::try_from(body.len()).expect("small").to_be_bytes());
            bytes.extend(body);
        }
        bytes
    }

    #[test]
    fn each_broken_stream_has_its_own_error() {
        let error = |bytes: &[u8]| frames(bytes, &[1000], 100).1.expect("broken").to_string();
        assert_eq!(error(&[0, 0, 0, 101]), "a request of 101 bytes is larger than the 100 bytes allowed");
        assert_eq!(error(&[0xff, 0xff, 0xff, 0xff]), "a request has the negative size -1");
        assert_eq!(error(&[0, 0, 0, 9, 1]), "the connection ended after 5 of a request's 13 bytes");
        assert_eq!(error(&[0, 0]), "the connection ended after 2 of a request's 4 bytes");
        let (whole, end) = frames(&[0, 0, 0, 0], &[1], 100);
        assert!(end.is_none() && whole == [BytesMut::new()], "an empty frame is a frame");
    }

    #[test]
    fn a_size_alone_reserves_little() {
        // A peer claims 2 GiB and sends 200,000 bytes of it: the buffer stays within four times that.
        let mut bytes = i32::MAX.to_be_bytes().to_vec();
        bytes.resize(200_000, 7);
        let mut reader = Pieces { bytes: &bytes, sizes: &[30_000], turn: 0 };
        let mut buf = BytesMut::new();
        let mut read = Box::pin(read_frame(&mut reader, &mut buf, usize::MAX));
        let Poll::Ready(Err(FrameError::Torn { received, .. })) =
            read.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        else {
            panic!("the stream ends inside the frame");
        };
        drop(read);
        assert_eq!(received, 200_000);
        assert!(buf.capacity() <= 800_000 + READ_AHEAD, "{} bytes reserved", buf.capacity());
    }

    #[test]
    fn a_large_frame_keeps_its_memory_to_itself() {
        let bodies = [vec![1; 10], vec![2; 100_000], vec![3; 10]];
        let (read, end) = frames(&stream(&bodies), &[usize::MAX], usize::MAX);
        assert!(end.is_none() && read == bodies);
        let large = read[1].as_ptr().addr()..read[1].as_ptr().addr() + read[1].capacity();
        assert!(!large.contains(&read[2].as_ptr().addr()), "the next frame lies elsewhere");
    }

    proptest! {
        /// However a stream is cut, and however often a read is dropped, the same frames come out.
        #[test]
        fn frames_survive_any_cut(
            sizes in proptest::collection::vec(prop_oneof![0..20usize, 60_000..70_000usize, Just(300_000)], 0..6),
            mut cuts in proptest::collection::vec(prop_oneof![Just(0), 1..9usize, Just(100_000)], 1..9),
        ) {
            cuts.push(5);
            let bodies: Vec<_> = sizes.iter().zip(1..).map(|(n, fill)| vec![fill; *n]).collect();
            let (read, end) = frames(&stream(&bodies), &cuts, 1 << 20);
            prop_assert!(end.is_none());
            prop_assert_eq!(read, bodies);
        }
    }
}
