//! Frames: a size of four bytes, then as many bytes.
//!
//! Owns: cutting a byte stream into frames. Leaves to others: what is in one (`header`, `message`, `produce`).
//!
//! Invariants:
//! 1. Memory grows with the bytes that have come: at most fourfold, or [`CLAIM_MIN`], whatever a size field claims. Before
//!    it has seen the size field, a read takes in [`READ_AHEAD`] at most ([`peek_frame`]).
//! 2. All state is in the caller's buffer, so a dropped `read_frame` loses nothing.
//! 3. A frame larger than [`READ_AHEAD`] shares its memory with no other frame, so keeping its records keeps no more.
//!
//! Source: `org.apache.kafka.common.network.NetworkReceive`.

use std::io;

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The most that one read takes in beyond the frame it is for: many small requests then come with one system call.
pub const READ_AHEAD: usize = 16 * 1024;

/// A size field is believed up to here: most larger frames then come without growing their memory twice.
const CLAIM_MIN: usize = 64 * 1024;

/// Room for a read between frames: what an idle connection costs.
const READ_MIN: usize = 8 * 1024;

const SIZE_BYTES: usize = 4;
const KEY_BYTES: usize = 2;

/// What a request's first bytes tell of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHead {
    /// Without the size field.
    pub size: usize,
    /// -1 where the frame is too short to have one.
    pub api_key: i16,
}

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
        if !read_more(reader, buf, expected, expected).await? {
            return Ok(None);
        }
    }
}

/// What the next frame will be, before memory is taken for it; [`read_frame`] reads it then. `None` as there. Cancel
/// safe.
pub async fn peek_frame<R: AsyncRead + Unpin>(
    reader: &mut R,
    buf: &mut BytesMut,
    size_max: usize,
) -> Result<Option<FrameHead>, FrameError> {
    loop {
        let (wanted, expected) = match frame_size(buf, size_max)? {
            Some(size) => {
                let wanted = SIZE_BYTES + size.min(KEY_BYTES);
                if buf.len() >= wanted {
                    let key = buf[SIZE_BYTES..wanted].first_chunk();
                    return Ok(Some(FrameHead { size, api_key: key.map_or(-1, |key| i16::from_be_bytes(*key)) }));
                }
                (wanted, SIZE_BYTES + size)
            }
            None => (SIZE_BYTES, SIZE_BYTES),
        };
        if !read_more(reader, buf, wanted, expected).await? {
            return Ok(None);
        }
    }
}

/// Reads once, towards `wanted` bytes in the buffer, of a frame of `expected`; false where the stream ends between two
/// frames.
async fn read_more<R: AsyncRead + Unpin>(
    reader: &mut R,
    buf: &mut BytesMut,
    wanted: usize,
    expected: usize,
) -> Result<bool, FrameError> {
    let missing = wanted - buf.len();
    let spare = buf.capacity() - buf.len();
    let room = if wanted > SIZE_BYTES + READ_AHEAD {
        if spare == 0 {
            buf.reserve(missing.min(buf.len().saturating_mul(3).max(CLAIM_MIN)));
        }
        missing.min(buf.capacity() - buf.len())
    } else {
        if spare < missing {
            buf.reserve(missing.max(READ_MIN));
        }
        READ_AHEAD.min(buf.capacity() - buf.len())
    };
    if reader.read_buf(&mut (&mut *buf).limit(room)).await? > 0 {
        return Ok(true);
    }
    if buf.is_empty() { Ok(false) } else { Err(FrameError::Torn { received: buf.len(), expected }) }
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

    /// All frames of a stream, each looked at before it is read, each wait cancelling both; then how the stream ended.
    fn frames(bytes: &[u8], sizes: &[usize], size_max: usize) -> (Vec<BytesMut>, Option<FrameError>) {
        let mut reader = Pieces { bytes, sizes, turn: 0 };
        let (mut buf, mut frames) = (BytesMut::new(), Vec::new());
        loop {
            let mut read = std::pin::pin!(async {
                let Some(head) = peek_frame(&mut reader, &mut buf, size_max).await? else { return Ok(None) };
                let frame = read_frame(&mut reader, &mut buf, size_max).await?;
                Ok::<_, FrameError>(Some(head).zip(frame))
            });
            match read.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Pending => {}
                Poll::Ready(Ok(Some((head, frame)))) => {
                    let api_key = frame.first_chunk().map_or(-1, |key| i16::from_be_bytes(*key));
                    assert_eq!(head, FrameHead { size: frame.len(), api_key });
                    frames.push(frame);
                }
                Poll::Ready(Ok(None)) => return (frames, None),
                Poll::Ready(Err(error)) => return (frames, Some(error)),
            }
        }
    }

    /// The outcome of what has nothing to wait for.
    fn at_once<F: Future>(future: F) -> F::Output {
        match std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => output,
            Poll::Pending => panic!("all bytes are there"),
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
        let read = at_once(read_frame(&mut reader, &mut buf, usize::MAX));
        assert!(matches!(read, Err(FrameError::Torn { received: 200_000, .. })), "the stream ends inside the frame");
        assert!(buf.capacity() <= 800_000 + CLAIM_MIN, "{} bytes reserved", buf.capacity());
    }

    #[test]
    fn a_look_at_a_frame_takes_little_of_it() {
        let bytes = stream(&[vec![7; 200_000]]);
        let mut reader = Pieces { bytes: &bytes, sizes: &[usize::MAX], turn: 0 };
        let mut buf = BytesMut::new();
        let head = at_once(peek_frame(&mut reader, &mut buf, usize::MAX));
        assert_eq!(head.expect("sound"), Some(FrameHead { size: 200_000, api_key: 0x0707 }));
        assert_eq!((buf.len(), buf.capacity()), (READ_MIN, READ_MIN));
    }

    #[test]
    fn the_smallest_large_frame_ends_with_its_read() {
        // Five bytes, so that the look at it has to read once more, and reads as far as it may.
        let bodies = [vec![1; READ_AHEAD + 1], vec![2; 10]];
        let bytes = stream(&bodies);
        let mut reader = Pieces { bytes: &bytes, sizes: &[5, usize::MAX], turn: 0 };
        let mut buf = BytesMut::with_capacity(1 << 20);
        at_once(peek_frame(&mut reader, &mut buf, usize::MAX)).expect("sound");
        let frame = at_once(read_frame(&mut reader, &mut buf, usize::MAX)).expect("sound");
        assert_eq!(frame.expect("a frame"), bodies[0]);
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
            sizes in proptest::collection::vec(prop_oneof![0..20usize, 15_000..18_000usize, 60_000..70_000usize, Just(300_000)], 0..6),
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
